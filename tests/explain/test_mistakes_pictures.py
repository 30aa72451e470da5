"""The confusion matrix and the worst mistakes, judged by the pictures' pixels and texts."""

import html
import re

import numpy as np
import pytest
from PIL import Image

from jaxnets.errors import InputError
from jaxnets.explain import Mistake, plot_confusion, plot_mistakes

LONG = [f"a class whose name is so long that it needs several lines, number {k}" for k in range(10)]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def assert_nothing_touches_the_edge(path):
    picture = pixels(path)
    for side in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (side == 255).all()


def texts(path):
    """All texts of an SVG; each line stands in a comment."""
    return [html.unescape(text) for text in re.findall("<!-- (.*?) -->", path.read_text(), re.DOTALL)]


def cell_colors(path, count):
    """Darkness (0 to 255) in the corner of each cell of a matrix, beside its number."""
    picture = 255 - pixels(path).astype(int)
    dark = np.abs(picture - picture[2, 2]).max(-1) > 100
    frame = dark[:, : picture.shape[1] * 4 // 5]  # without the color bar
    rows = np.flatnonzero(frame.mean(1) > 0.5)
    columns = np.flatnonzero(frame[rows[0] : rows[-1]].mean(0) > 0.9)
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    places = (np.arange(count) + 0.15) / count
    grid = np.ix_(
        (top + places * (bottom - top)).astype(int), (left + places * (right - left)).astype(int)
    )
    return picture[..., 0][grid]


def test_a_cell_is_as_dark_as_the_share_of_its_true_class(tmp_path):
    matrix = np.array([[90, 10, 0], [0, 4, 4], [0, 0, 0]])
    plot_confusion(matrix, ["a", "b", "c"], tmp_path / "c.png")
    found = cell_colors(tmp_path / "c.png", 3)
    assert found[0, 0] > found[1, 1] == found[1, 2] > found[0, 1] > found[0, 2] == found[2, 2]


def test_small_matrices_have_numbers_names_and_a_title(tmp_path):
    plot_confusion(np.array([[9000, 1], [0, 999]]), ["cat", "dog"], tmp_path / "c.svg")
    found = texts(tmp_path / "c.svg")
    assert {"cat", "dog", "9000", "1", "999", "true class", "predicted class"} <= set(found)
    assert "confusion: 99.99% of 10,000 images right" in found


@pytest.mark.parametrize(
    "names", [LONG, [f"{k}" for k in range(37)], [f"class {k}" for k in range(300)]]
)
def test_nothing_of_a_matrix_is_cut_off(tmp_path, names):
    matrix = np.eye(len(names)) * 7 + np.eye(len(names), k=3)
    plot_confusion(matrix, names, tmp_path / "c.png")
    assert_nothing_touches_the_edge(tmp_path / "c.png")


def test_of_many_classes_the_most_frequent_confusions_are_listed(tmp_path):
    matrix = np.diag(np.full(1000, 50))
    matrix[3, 999], matrix[998, 2] = 40, 45
    names = [f"name {k}" for k in range(1000)]
    plot_confusion(matrix, names, tmp_path / "c.svg")
    found = " ".join(texts(tmp_path / "c.svg")).replace("\n", " ")
    assert "name 3 → name 999" in found
    assert "45 (47%)" in found
    assert found.index("name 998 →") < found.index("name 3 →")
    assert "name 4 →" not in found


def test_a_matrix_of_another_size_is_refused(tmp_path):
    with pytest.raises(InputError, match="wanted .2, 2."):
        plot_confusion(np.eye(3), ["a", "b"], tmp_path / "c.png")


def test_mistakes_show_image_classes_and_probability(tmp_path):
    red = np.zeros((8, 16, 3), np.uint8)
    red[..., 0] = 255
    gray = np.full((8, 16, 1), 100, np.uint8)
    mistakes = [Mistake(red, 0, 9, 0.987), Mistake(gray, 1, 0, 0.5)]
    plot_mistakes(mistakes, LONG, tmp_path / "m.png", title="2 of 9 images wrong")
    assert_nothing_touches_the_edge(tmp_path / "m.png")
    picture = pixels(tmp_path / "m.png")
    lefts = [
        np.argwhere((picture == color).all(-1))[:, 1].min() for color in ((255, 0, 0), (100, 100, 100))
    ]
    assert lefts[0] < lefts[1]
    plot_mistakes(mistakes, LONG, tmp_path / "m.svg", title="2 of 9 images wrong")
    found = " ".join(texts(tmp_path / "m.svg")).replace("\n", " ")
    assert found.count(LONG[0]) == 2
    assert f"said: {LONG[9]} (98.7%)" in found
    assert f"true: {LONG[1]}" in found
    assert "2 of 9 images wrong" in found


def test_no_mistakes_give_a_picture_that_says_so(tmp_path):
    plot_mistakes([], ["a"], tmp_path / "m.svg", title="0 of 9 images wrong")
    assert "0 of 9 images wrong" in texts(tmp_path / "m.svg")
