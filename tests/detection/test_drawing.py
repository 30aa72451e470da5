"""Pictures of what was found, and of precision over recall."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxnets.data.marking import color_of
from jaxnets.detection.drawing import draw, draw_precision_recall
from jaxnets.errors import InputError
from jaxnets.metrics.detection import coco_table


def found(boxes, labels, masks=None):
    scores = np.linspace(0.9, 0.5, len(boxes))
    names = tuple(f"thing {label}" for label in labels)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return SimpleNamespace(
        boxes=boxes, scores=scores, labels=np.array(labels, int), masks=masks, names=names
    )


def read(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_boxes_lie_in_the_pixels_of_the_picture_in_the_colors_of_their_labels(tmp_path):
    picture = np.full((601, 803, 3), 40, np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    own = found([[100, 200, 301, 400], [500, 50, 700, 150]], [3, 5])
    for given in (picture, Image.fromarray(picture), tmp_path / "picture.png"):
        draw(given, own, tmp_path / "boxes.png")
        pixels = read(tmp_path / "boxes.png")
        assert pixels.shape == picture.shape
        for place, label in (
            ((300, 100), 3),
            ((300, 300), 3),
            ((399, 200), 3),
            ((100, 500), 5),
            ((149, 600), 5),
        ):
            assert tuple(pixels[place]) == color_of(label), place
        np.testing.assert_array_equal(pixels[300, 106:290], 40)  # not filled
        np.testing.assert_array_equal(pixels[450:], 40)
        # The name and the score, on the color of the box, right above it.
        text = pixels[185:199, 101:160].reshape(-1, 3)
        assert {tuple(pixel) for pixel in text} > {color_of(3)}


def test_a_small_picture_is_enlarged_and_masks_show_it_through(tmp_path):
    picture = np.zeros((30, 60, 1), np.uint8)
    picture[:, 30:] = 200
    mask = np.zeros((1, 30, 60), bool)
    mask[0, 12:20, 20:40] = True
    draw(picture, found([[20, 12, 40, 20]], [1], mask), tmp_path / "masks.png")
    pixels = read(tmp_path / "masks.png")
    assert pixels.shape == (240, 480, 3)
    color = np.array(color_of(1))
    assert np.abs(pixels[128, 220] - color / 2).max() <= 1
    assert np.abs(pixels[128, 260] - color / 2 - 100).max() <= 1
    assert tuple(pixels[128, 160]) == color_of(1)
    assert not pixels[128, 150].any()


def test_the_best_detection_lies_on_top_and_none_is_fine(tmp_path):
    picture = np.zeros((500, 500, 3), np.uint8)
    draw(picture, found([[100, 100, 300, 300]] * 2, [1, 2]), tmp_path / "boxes.png")
    assert tuple(read(tmp_path / "boxes.png")[200, 100]) == color_of(1)
    draw(picture, found([], []), tmp_path / "none.jpg")
    assert read(tmp_path / "none.jpg").max() <= 2


def test_what_cannot_be_drawn_is_refused(tmp_path):
    picture, own = np.zeros((20, 20, 3), np.uint8), found([[1, 1, 5, 5]], [0])
    with pytest.raises(InputError, match="must end in"):
        draw(picture, own, tmp_path / "boxes.txt")
    with pytest.raises(InputError, match="picture: wanted a file"):
        draw(picture / 255, own, tmp_path / "boxes.png")
    with pytest.raises(InputError, match="masks of \\[9, 9\\], and the picture is \\[20, 20\\]"):
        draw(picture, found([[1, 1, 5, 5]], [0], np.zeros((1, 9, 9), bool)), tmp_path / "boxes.png")


def test_curves_are_those_of_the_table_and_classes_are_named(tmp_path):
    rng = np.random.default_rng(0)
    truths = [{"boxes": [[0, 0, 20, 20]] * 22, "labels": np.arange(22)} for _ in range(3)]
    predictions = [own | {"scores": rng.random(22)} for own in truths]
    names = [f"class {label}" for label in range(22)]
    path = tmp_path / "curves.svg"
    draw_precision_recall(coco_table(predictions, truths), path, names)
    svg = path.read_text()
    assert "ten best, ten worst of 22" in svg
    assert sum(f"<!-- {name}: 1.000 -->" in svg for name in names) == 20
    assert "<!-- IoU 0.95: 1.000 -->" in svg
    with pytest.raises(InputError, match="no class has a truth"):
        draw_precision_recall(coco_table([], []), path)
