"""Detection in pictures of any kind and size."""

import jax
import numpy as np
import pytest
from PIL import Image
from small_detectors import CLASSES, draw, make

from jaxnets.data.pictures import read
from jaxnets.detection import Resizing, detect, paste_masks, pictures
from jaxnets.detection.detecting import pasted
from jaxnets.detection.pictures import scaled_size
from jaxnets.errors import InputError


@pytest.fixture(scope="module")
def small():
    model = make("mask_rcnn")
    return model, draw(model)


def pixels(size=(80, 110)):
    blocks = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]


def test_pictures_of_every_kind_are_looked_at(small, tmp_path):
    own = pixels()
    Image.fromarray(own).save(tmp_path / "a.png")
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(own), own, own / 255]
    first, *others = detect(*small, kinds)
    assert len(first.boxes) > 3
    assert first.masks.shape == (len(first.boxes), 80, 110)
    assert first.masks.any()
    assert first.names == tuple(map(str, first.labels))
    assert set(first.labels) <= set(range(CLASSES))
    assert (np.diff(first.scores) <= 0).all()
    assert (first.boxes >= 0).all()
    assert (first.boxes <= [110, 80, 110, 80]).all()
    for other in others:
        np.testing.assert_allclose(other.boxes, first.boxes, atol=1e-3)


@pytest.mark.slow
def test_thresholds_are_the_callers(small):
    own = [pixels()]
    (every,) = detect(*small, own, score=0.0, iou=1.0)
    (some,) = detect(*small, own, score=float(np.median(every.scores)), iou=1.0)
    (few,) = detect(*small, own, score=0.0, iou=0.1)
    assert 0 < len(some.boxes) < len(every.boxes)
    assert some.scores.min() > np.median(every.scores)
    assert 0 < len(few.boxes) < len(every.boxes)


@pytest.mark.slow
def test_the_best_k_are_found(small):
    (every,) = detect(*small, [pixels()])
    (best,) = detect(*small, [pixels()], k=2)
    np.testing.assert_allclose(best.scores, every.scores[:2], rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (pixels(), {}, "pictures: got one; wanted a list"),
        ("a.png", {}, "pictures: got one; wanted a list"),
        (["nowhere.png"], {}, "nowhere.png cannot be read as a picture"),
        ([pixels().astype(float)], {}, "float64 from 0 to 25.; wanted uint8, or floats from 0 to 1"),
        ([pixels()[..., :2]], {}, r"shape \[80, 110, 2\]"),
        ([pixels()], {"score": 1.5}, "score is 1.5"),
        ([pixels()], {"iou": -0.1}, "iou is -0.1"),
        ([pixels()], {"k": 0}, "k is 0"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_a_line(given, options, message):
    with pytest.raises(InputError, match=message):
        detect(make("fcos"), {}, given, **options)


def test_a_gray_picture_is_three_times_the_same():
    gray = pixels()[..., 0]
    for own in (gray, gray[..., None], Image.fromarray(gray)):
        np.testing.assert_array_equal(read(own), read(gray[..., None].repeat(3, -1)))


@pytest.mark.parametrize(
    ("before", "after"),  # of torchvision 0.29.1
    [((427, 640), (800, 1199)), ((97, 120), (799, 989)), ((100, 2000), (66, 1333))],
)
def test_pictures_are_scaled_to_the_sizes_of_torchvision(before, after):
    assert scaled_size(before, Resizing()) == after


def test_few_canvases_hold_all_pictures():
    rng, found = np.random.default_rng(0), set()
    for before in rng.integers(1, 3000, (300, 2)):
        size = scaled_size(tuple(map(int, before)), Resizing())
        canvas = pictures.canvas_of(size, Resizing())
        assert all(long >= short and long % 32 == 0 for long, short in zip(canvas, size, strict=True))
        found.add(canvas)
    assert len(found) <= 5


def test_a_mask_is_pasted_alone_as_among_others():
    rng = np.random.default_rng(0)
    masks = rng.random((12, 28, 28)).astype(np.float32)
    corner = rng.uniform(-10, 50, (12, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 40, (12, 2))], 1).astype(np.float32)
    among = np.asarray(jax.jit(paste_masks, static_argnums=(2, 3))(masks, boxes, 45, 60))
    alone = np.stack([pasted(mask, box, (45, 60)) for mask, box in zip(masks, boxes, strict=True)])
    sure = np.abs(among - 0.5) > 1e-5
    np.testing.assert_array_equal(alone[sure], (among >= 0.5)[sure])
    assert alone.any()
