"""Scale jitter and crops that keep objects, read off pictures whose colors are their coordinates."""

import functools

import jax
import numpy as np
import pytest

from jaxnets.data import crops
from jaxnets.errors import InputError
from jaxnets.metrics.detection import box_iou

# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

CANVAS, SIZE = (64, 64), (40, 64)
BOXES = np.array(
    [[4, 6, 24, 30], [30, 4, 60, 36], [50, 20, 62, 38], [10, 10, 60, 38], [0] * 4], np.float32
)
VALID = np.array([True, True, True, False, False])


def example(masks):
    """Red and green count rows and columns; blue is the picture. The fourth object is padding."""
    rows, columns = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    image = np.stack([rows / 100, columns / 100, np.ones(CANVAS)], -1)
    image[SIZE[0] :] = 0
    found = {
        "image": image.astype(np.float32),
        "size": np.array(SIZE, np.int32),
        "box": BOXES,
        "valid": VALID,
    }
    inside = (rows < BOXES[:, 3, None, None]) & (columns < BOXES[:, 2, None, None])
    inside &= (rows > BOXES[:, 1, None, None]) & (columns > BOXES[:, 0, None, None])
    return found | ({"mask": inside} if masks else {})


def samples(augment, count, masks=False):
    """The examples of so many keys."""
    keys = jax.random.split(jax.random.key(0), count)
    many = jax.tree.map(np.asarray, jit(jax.vmap(augment, (0, None)))(keys, example(masks)))
    return [{name: value[index] for name, value in many.items()} for index in range(count)]


def crop_of(image, size):
    """The crop (left, top, right, bottom) of the picture that fills (height, width) of an image."""
    found = []
    for axis, side in enumerate(size):
        values = 100 * image[: size[0], : size[1], axis].mean(1 - axis)
        middle = np.arange(side)[side // 4 : -(side // 4)]  # away from the borders
        slope, start = np.polyfit(middle + 0.5, values[middle], 1)
        found.append((start, start + slope * side))
    (top, bottom), (left, right) = found
    return np.array([left, top, right, bottom])


@pytest.mark.parametrize("augment", [crops.scale_jitter((0.3, 2)), crops.iou_crop()])
@pytest.mark.parametrize("masks", [False, True])
def test_boxes_and_masks_go_with_the_picture_and_nothing_invalid_becomes_valid(augment, masks):
    kept = np.zeros(len(BOXES), bool)
    for got in samples(augment, 25, masks):
        height, width = got["size"]
        blue = got["image"][..., 2]
        np.testing.assert_allclose(blue[:height, :width], 1, atol=1e-5)
        assert not blue[height:].any()
        assert not blue[:, width:].any()
        assert not (got["valid"] & ~VALID).any()
        assert not got["box"][~got["valid"]].any()
        left, top, right, bottom = crop_of(got["image"], got["size"])
        zoom = np.array([width / (right - left), height / (bottom - top)] * 2)
        wanted = (BOXES - [left, top, left, top]) * zoom
        wanted = np.clip(wanted, 0, [width, height, width, height])
        own = got["valid"]
        np.testing.assert_allclose(got["box"][own], wanted[own], atol=0.8 if masks else 0.3)
        if masks:
            assert not got["mask"][:, height:].any()
        kept |= own
    assert kept[:3].all()


def test_scale_jitter_fills_its_range_of_scales_and_all_places():
    zooms, starts = [], []
    for got in samples(crops.scale_jitter((0.5, 2)), 60):
        left, top, right, bottom = crop_of(got["image"], got["size"])
        zoom = got["size"][1] / (right - left)
        zooms.append(zoom)
        starts.append((left * zoom, top * zoom) if zoom > 1.8 else (0, 0))
        if zoom < 1:
            np.testing.assert_allclose([left, top, right, bottom], [0, 0, 64, 40], atol=0.7)
            assert abs(got["size"][0] - got["size"][1] * 40 / 64) <= 1
    assert 0.49 < min(zooms) < 0.6
    assert 1.85 < max(zooms) < 2.02
    assert np.max(starts, 0)[0] > 30  # of 64 more columns than fit
    assert 5 < np.max(starts, 0)[1] < 17  # of 16 more rows


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_an_iou_crop_keeps_an_object_that_covers_enough_of_it(least):
    """Departures of a pixel: the crop is read off to a tenth of one."""
    cropped = 0
    for got in samples(crops.iou_crop(overlaps=(least,)), 60):
        left, top, right, bottom = crop = crop_of(got["image"], got["size"])
        height, width = bottom - top, right - left
        if height > 39 and width > 63:
            continue
        cropped += 1
        assert 0.29 * 40 - 1 < height < 40.2
        assert 0.29 * 64 - 1 < width < 64.2
        assert 0.48 < width / height < 2.1
        middle = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        margin = np.minimum(middle - crop[:2], crop[2:] - middle).min(1)
        near = np.abs(margin) < 0.3
        np.testing.assert_array_equal(got["valid"][~near], (VALID & (margin > 0))[~near])
        assert got["valid"].any()
        overlap = box_iou(crop[None], BOXES[got["valid"]]).max()
        assert overlap > least - 0.03
        np.testing.assert_allclose(got["size"].max(), 64)  # as large as it fits
        np.testing.assert_allclose(got["size"][0] / got["size"][1], height / width, atol=0.05)
    assert cropped > 30


def test_a_picture_stays_whole_without_objects_and_crowds_are_none():
    crop, crowd = jit(crops.iou_crop(overlaps=(0.1,))), example(False) | {"crowd": VALID}
    got = crop(jax.random.key(0), crowd)
    for name in ("image", "size", "valid"):
        np.testing.assert_allclose(got[name], crowd[name], atol=1e-5)
    np.testing.assert_allclose(got["box"][:3], BOXES[:3], atol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: crops.scale_jitter((2, 1)), "scale must be two numbers"),
        (lambda: crops.scale_jitter((0, 1)), "scale must be"),
        (lambda: crops.iou_crop(scale=(0.3, 2)), "scale must be"),
        (lambda: crops.iou_crop(overlaps=(0.5, 1.5)), "overlaps must be"),
    ],
)
def test_other_settings_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
