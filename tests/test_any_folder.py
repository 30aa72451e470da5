"""Whatever a folder holds and however it is called, a command ends in 0, or in 2 with a line or two."""

import contextlib
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxnets import cli

ENDINGS = (".png", ".jpg", ".JPEG", ".jfif", ".webp", ".bmp", ".tiff", ".gif", ".txt", "")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F")
SPLITS = ("train", "Val", "valid", "test", "dev")


def made(kind, mode, size):
    """The bytes of a picture; none where the format has no such mode."""
    file = io.BytesIO()
    with contextlib.suppress(OSError, ValueError):
        Image.new(mode, size).save(file, kind)
    return file.getvalue()


PICTURES = [
    picture
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
    for mode in MODES
    for size in ((8, 8), (1, 9), (30, 7))
    if (picture := made(kind, mode, size))
]
BROKEN = [b"", b"text", PICTURES[0][:40], PICTURES[-1][:20]]

# What means something to a shell, to glob, rich, matplotlib, JSON, a terminal or a file system.
ODD = ("cat", "[x]", "[bold]", "a b", "$x$", "_y", "*?", "%s", "{0}", "-f", "~", "c\u0327a", "猫", "#")
names = st.sampled_from(ODD) | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name.strip("."))
files = st.dictionaries(
    st.tuples(names, st.sampled_from(ENDINGS)).map("".join),
    st.sampled_from(PICTURES * 9 + BROKEN),
    max_size=8,
)
classes = st.dictionaries(names, files, min_size=1, max_size=3)
folders = classes | st.dictionaries(st.sampled_from(SPLITS), classes, min_size=1, max_size=3)


def write(root, content):
    root.mkdir(exist_ok=True)
    for name, inside in content.items():
        with contextlib.suppress(OSError):  # a name that is a folder's already, or is too long
            if isinstance(inside, bytes):
                (root / name).write_bytes(inside)
            else:
                write(root / name, inside)


def run(*words):
    """The status of a command and what it says in standard error."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            cli.main(list(words))
        except SystemExit as stop:
            return stop.code, said.getvalue()
    return 0, said.getvalue()


def train(root, run_dir):
    return ("train", "--dataset", f"folder:{root}", "--model", "mlp", "--settings", "widths=[4]",
            "--image-size", "8", "--epochs", "1", "--batch-size", "2", "--augment",
            "--strategy", "single", "--run-dir", run_dir)  # fmt: skip


@pytest.mark.slow
def test_names_that_mean_something_elsewhere_are_names(tmp_path, monkeypatch):
    name = "-[x] [bold] $x^{$ *? %s {0} ~ 猫#"
    monkeypatch.chdir(tmp_path)
    picture = made("PNG", "RGB", (8, 8))
    write(tmp_path / name, {odd: {f"{k}.png": picture for k in range(3)} for odd in ODD})
    run_dir = f"./runs/{name}"
    assert run(*train(tmp_path / name, run_dir)) == (0, "")
    assert run("train", "--resume", "--epochs", "2", "--run-dir", run_dir) == (0, "")
    assert run("eval", run_dir) == (0, "")
    assert run("predict", run_dir, f"./{name}/[x]/0.png") == (0, "")
    assert run("plots", run_dir) == (0, "")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names, folders)
def test_a_folder_is_trained_on_measured_and_predicted_or_refused_in_a_line(name, content):
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        root = Path(place) / name
        write(root, content)
        seen = [path for path in sorted(root.rglob("*")) if path.is_file()][:2]
        commands = [train(root, "run"), ("eval", "run"), *(("predict", "run", str(p)) for p in seen)]
        for words in commands:
            status, said = run(*words)
            assert status in (0, 2), (words, said)
            *_, last = said.strip().split("\n")
            assert status == 0 or last.startswith("jaxnets: "), (words, said)
            if status == 2 and words[0] == "train":
                break
