"""Pictures of label maps, judged by their pixels and texts."""

import html
import re

import numpy as np
import pytest
from PIL import Image

from jaxnets.errors import InputError
from jaxnets.segmentation.drawing import draw, draw_confusion, draw_sheet

NAMES = ("background", "cat", "dog")


def read(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def texts(path):
    """All texts of an SVG; each line stands in a comment."""
    return [html.unescape(text) for text in re.findall("<!-- (.*?) -->", path.read_text(), re.DOTALL)]


def example(size=(600, 500)):
    """A gray picture whose upper half is class 1 but for a column that is ignored."""
    labels = np.zeros(size, np.int32)
    labels[: size[0] // 2] = 1
    labels[:, -size[1] // 10 :] = 255
    return np.full((*size, 3), 100, np.uint8), labels


def test_labels_lie_over_the_pixels_of_the_picture(tmp_path):
    picture, labels = example()
    Image.fromarray(picture).save(tmp_path / "picture.png")
    for given in (picture, Image.fromarray(picture), tmp_path / "picture.png", picture / 255):
        draw(given, labels, tmp_path / "labels.png", NAMES)
        pixels = read(tmp_path / "labels.png")
        height, width, _ = pixels.shape
        assert height == 600
        assert 550 < width < 800
        assert (pixels[:300, :450] == (114, 50, 50)).all()
        assert (pixels[300:, :450] == (50, 50, 50)).all()
        assert (pixels[:, 450:500] == (162, 162, 146)).all()
        legend = pixels[:, 500:]
        assert (legend[80:] == 255).all()
        assert (legend[:80] == (128, 0, 0)).all(-1).any()
        assert (legend[:, -2:] == 255).all()  # no text is cut off


def test_the_legend_tells_the_shares_of_the_classes_that_are_there(tmp_path):
    picture, labels = example()
    labels[0, 0] = 7
    draw(picture, labels, tmp_path / "labels.svg", NAMES)
    found = texts(tmp_path / "labels.svg")
    assert found == ["background  45.0%", "cat  45.0%", "ignored  10.0%", "7  <0.1%"]
    draw(picture, labels, tmp_path / "labels.svg", ())
    assert texts(tmp_path / "labels.svg")[:2] == ["0  45.0%", "1  45.0%"]


def test_of_many_classes_the_largest_are_listed(tmp_path):
    labels = np.repeat(np.arange(100), np.arange(100, 200))[None]
    draw(np.zeros((*labels.shape, 3), np.uint8), labels, tmp_path / "labels.svg")
    found = texts(tmp_path / "labels.svg")
    assert len(found) == 30
    assert found[0].startswith("99  ")
    assert found[-1] == "and 71 more"
    labels = np.arange(19000).reshape(100, 190) % 100
    draw(np.zeros((100, 190, 3), np.uint8), labels, tmp_path / "labels.png")
    pixels = read(tmp_path / "labels.png")
    assert pixels.shape[0] > 300  # of the picture, which is at the top
    assert (pixels[:300, 0] < 255).all()
    assert (pixels[300:, 0] == 255).all()
    assert (pixels[-2:] == 255).all()  # no text is cut off


def test_a_small_picture_is_enlarged_by_whole_pixels(tmp_path):
    picture, labels = example((30, 60))
    draw(picture, labels, tmp_path / "labels.png")
    pixels = read(tmp_path / "labels.png")
    assert pixels.shape[0] == 240
    assert (pixels[:120, :432] == (114, 50, 50)).all()
    assert (pixels[120:, :432] == (50, 50, 50)).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((20, 30), int), r"labels have shape \[20, 30\], and the picture is \[30, 20\]"),
        (np.zeros((30, 20, 1), int), r"labels have shape \[30, 20, 1\]"),
        (np.zeros((30, 20)), "labels: wanted integers from 0, got float64"),
        (np.full((30, 20), -1), "labels: wanted integers from 0, got int64 from -1"),
    ],
)
def test_labels_that_cannot_be_drawn_are_refused(tmp_path, labels, message):
    picture = np.zeros((30, 20, 3), np.uint8)
    with pytest.raises(InputError, match=message):
        draw(picture, labels, tmp_path / "labels.png")
    with pytest.raises(InputError, match=message):
        draw_sheet([(picture, np.zeros((30, 20), int), labels)], tmp_path / "sheet.png")


def test_files_that_cannot_be_read_or_written_are_refused(tmp_path):
    picture, labels = example((30, 20))
    for path in ("labels.txt", "nowhere/labels.png"):
        with pytest.raises(InputError, match="output: "):
            draw(picture, labels, tmp_path / path)
        with pytest.raises(InputError, match="output: "):
            draw_sheet([(picture, labels, labels)], tmp_path / path)
        with pytest.raises(InputError, match="output: "):
            draw_confusion(np.eye(3), NAMES, tmp_path / path)
    with pytest.raises(InputError, match="missing.png cannot be read"):
        draw(tmp_path / "missing.png", labels, tmp_path / "labels.png")


def test_a_sheet_shows_pictures_beside_what_is_there_and_what_was_found(tmp_path):
    picture, labels = example((40, 60))
    rows = [(picture, labels, np.zeros_like(labels))] * 3
    draw_sheet(rows, tmp_path / "sheet.svg", NAMES)
    found = texts(tmp_path / "sheet.svg")
    assert found.count("picture") == found.count("there") == found.count("found") == 2
    assert found[-3:] == ["background", "cat", "ignored"]
    draw_sheet(rows, tmp_path / "sheet.png", NAMES)
    pixels = read(tmp_path / "sheet.png")
    for color, times in ((100, 100, 100), 3), ((114, 50, 50), 1.5), ((50, 50, 50), 1.5 + 2.7):
        share = (pixels == color).all(-1).mean() / (pixels == 100).all(-1).mean() * 3
        assert share > 0.8 * times, color
    draw_sheet([], tmp_path / "none.png")


def test_a_confusion_has_pixels_and_names(tmp_path):
    draw_confusion(np.array([[1_000_000, 1000, 0], [0, 30, 10], [0, 0, 0]]), NAMES, tmp_path / "c.svg")
    found = texts(tmp_path / "c.svg")
    assert {"background", "cat", "dog", "99.9%", "0.1%", "75.0%", "25.0%"} <= set(found)
    assert "share of the pixels of the true class" in found
    assert "confusion: 99.90% of 1,001,040 pixels right" in found
    draw_confusion(np.eye(3, dtype=int), (), tmp_path / "c.svg")
    assert {"0", "1", "2", "true class"} <= set(texts(tmp_path / "c.svg"))
    with pytest.raises(InputError, match="matrix has shape"):
        draw_confusion(np.eye(4), NAMES, tmp_path / "c.svg")
