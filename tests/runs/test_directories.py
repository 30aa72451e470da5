"""Directories of runs: a new one for each process, called by safe names, and gone if it is refused."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxnets import config
from jaxnets.errors import InputError
from jaxnets.layout import CHECKPOINTS, CONFIG_FILE
from jaxnets.runs.directories import new_directory

TAKEN = {CONFIG_FILE: "a run", CHECKPOINTS: "a run"}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def directory(chosen=None, dataset="digits", begun=lambda directory: False, claim=None):
    return new_directory(chosen, "mlp", dataset, taken_by=TAKEN, begun=begun, claim=claim)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("digits", "mlp_digits_1"),
        ("folder:data/", "mlp_data_1"),
        ("folder:data[v2]", "mlp_data_v2_1"),
        ("folder:a b*?'\"$%{}#\n\\", "mlp_a_b_1"),
        ("folder:naïve-日本.v1", "mlp_naïve-日本.v1_1"),
        ("folder:/", "mlp_data_1"),
        ("folder:..", None),
        ("folder:" + "x" * 300, f"mlp_{'x' * 40}_1"),
    ],
)
def test_names_of_directories_have_safe_characters_alone(dataset, name, tmp_path):
    with directory(dataset=dataset) as made:
        name = name or f"mlp_{tmp_path.parent.name[:40]}_1"
        assert made == Path("runs") / name
        assert made.is_dir()


def test_those_who_begin_at_once_get_a_directory_each():
    together = threading.Barrier(16)

    def begin(_):
        together.wait()
        with directory() as made:
            return made.name

    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(begin, range(16)))
    assert sorted(names) == sorted(f"mlp_digits_{k}" for k in range(1, 17))


def test_of_two_that_begin_at_once_in_one_directory_one_is_refused():
    with directory(Path("mine"), claim=CHECKPOINTS) as made:
        with pytest.raises(InputError, match="run_dir: mine holds a run already"):
            directory(Path("mine"), claim=CHECKPOINTS).__enter__()
        assert [entry.name for entry in made.iterdir()] == [CHECKPOINTS]


def test_what_is_refused_before_it_has_begun_leaves_what_was_there_and_no_more(tmp_path):
    Path("here").mkdir()
    Path("here/mine.txt").write_text("mine")

    def begin(chosen):
        with directory(chosen, claim=CHECKPOINTS) as made:
            (made / CONFIG_FILE).write_text("{}")
            raise InputError("no")

    for chosen in (None, Path("new/er/est"), Path("here")):
        with pytest.raises(InputError, match="no"):
            begin(chosen)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "here", tmp_path / "here/mine.txt"]


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_what_has_begun_or_was_interrupted_stays(error):
    begun = error is InputError
    with pytest.raises(error), directory(begun=lambda directory: begun) as made:
        raise error("stop")
    assert made.is_dir()


def test_a_file_is_no_directory():
    Path("file").touch()
    with pytest.raises(InputError, match="run_dir: file is not a directory"):
        directory(Path("file")).__enter__()


def test_the_newest_run_is_one_with_a_checkpoint_unless_it_is_to_be_resumed():
    for name, inside in {
        "trained": [CONFIG_FILE, f"{CHECKPOINTS}/7/"],
        "begun": [CONFIG_FILE, f"{CHECKPOINTS}/"],
        "saving": [CONFIG_FILE, f"{CHECKPOINTS}/3.orbax-checkpoint-tmp/"],
        "foreign": [CONFIG_FILE],
        "search": ["search.json"],
    }.items():
        for entry in inside:
            path = Path("runs", name, entry)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(parents=True) if entry.endswith("/") else path.write_text("{}")
    assert config.newest_run() == Path("runs/trained")
    assert config.newest_run(usable=False).name in ("begun", "saving")
    assert [name for name in ("trained", "begun", "foreign") if config.is_run(f"runs/{name}")] == [
        "trained",
        "begun",
    ]
