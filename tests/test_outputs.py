"""Files that are asked for are refused before the work, and text in pictures is as it was given."""

import os

import pytest
from matplotlib.figure import Figure

from jaxnets import outputs
from jaxnets.errors import InputError


def test_a_picture_is_written_in_the_format_of_its_ending_or_refused(tmp_path):
    figure = Figure(figsize=(1, 1))
    outputs.save_figure(figure, tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    for name in ("a.mp3", "a", "none/a.png"):
        with pytest.raises(InputError, match="output: "):
            outputs.save_figure(figure, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_nothing_may_be_written_into_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        outputs.check_picture(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["$x^{$", "a $5$ b", r"\$", "$", r"\alpha_x", "100% ^_ {}", r"a\$b$c"])
def test_plain_text_is_drawn_as_it_is(name):
    from matplotlib.text import Text

    text = Text(text=outputs.plain(name))
    shown, is_formula = text._preprocess_math(text.get_text())
    assert (shown, is_formula) == (name, False)


@pytest.mark.filterwarnings("error")
def test_names_that_no_font_has_or_that_are_no_text_are_drawn_in_silence(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.suptitle(outputs.plain("\u732b\x1b \udcff"))
    outputs.save_figure(figure, tmp_path / "a.png")
