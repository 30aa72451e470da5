"""Augmentations that move pixels, against windows, SciPy, Pillow and cases worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxnets.data import geometry, movement
from jaxnets.errors import InputError


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((9, 12, 3), np.float32)


# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@jit
def traced_affine(image, parameters):
    return movement.move_image(image, movement.affine(**parameters))


def affine(image, **parameters):
    """With all its parameters, so that it is compiled once for each size of an image."""
    rest = {"degrees": 0.0, "translation": (0.0, 0.0), "shear": 0.0, "stretch": (1.0, 1.0)}
    return np.asarray(traced_affine(image, rest | jax.tree.map(float, parameters)))


@jit
def distort(image, strength):
    return movement.move_image(image, movement.lens(strength, *image.shape[:2]))


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def samples(augment, image, count):
    many = jit(jax.vmap(lambda key, image: augment(key, {"image": image})["image"], (0, None)))
    return np.asarray(many(keys(count), image))


def windows(image, rows, columns):
    """Every place that an image can be moved to by so many rows and columns either way."""
    padded = np.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    height, width, _ = image.shape
    return {
        padded[top : top + height, left : left + width].tobytes()
        for top in range(2 * rows + 1)
        for left in range(2 * columns + 1)
    }


def test_flip_mirrors_columns_and_is_its_own_inverse(image):
    flip = jit(geometry.random_flip(p=1))
    once = flip(jax.random.key(0), {"image": image})
    np.testing.assert_array_equal(once["image"], image[:, ::-1])
    np.testing.assert_array_equal(flip(jax.random.key(1), once)["image"], image)


def test_flip_comes_with_its_probability(image):
    flipped = samples(geometry.random_flip(p=0.25), image, 2000)[:, 0, 0, 0] != image[0, 0, 0]
    assert abs(flipped.mean() - 0.25) < 0.04


def test_pad_and_crop_reaches_every_window_and_no_other(image):
    got = {sample.tobytes() for sample in samples(geometry.pad_and_crop(1), image, 200)}
    assert got == windows(image, 1, 1)


def test_translate_moves_by_whole_pixels_up_to_its_fraction_of_each_side(image):
    got = {sample.tobytes() for sample in samples(geometry.random_translate(0.25), image, 700)}
    assert got == windows(image, 2, 3)  # round(0.25 * 9) and round(0.25 * 12)


@pytest.mark.parametrize("side", [6, 7])
def test_quarter_turn_counter_clockwise_is_rot90(side):
    image = np.random.default_rng(1).random((side, side, 3), np.float32)
    np.testing.assert_allclose(affine(image, degrees=90.0), np.rot90(image), atol=2e-6)


def test_translation_moves_down_and_right_and_leaves_black(image):
    moved = affine(image, translation=(2, 3))
    np.testing.assert_array_equal(moved[2:, 3:], image[:-2, :-3])
    assert not np.asarray(moved[:2]).any()
    assert not np.asarray(moved[:, :3]).any()


def test_positive_shear_moves_what_is_below_the_middle_to_the_right():
    image = np.zeros((7, 7, 3), np.float32)
    image[:, 3] = 1
    slanted = affine(image, shear=45.0)
    np.testing.assert_allclose(slanted, np.stack([np.eye(7)] * 3, -1), atol=1e-6)


@pytest.mark.parametrize(
    "parameters",
    [
        {"degrees": 23.0},
        {"shear": -31.0},
        {"stretch": (1.4, 0.7)},
        {"degrees": -70.0, "shear": 20.0, "stretch": (0.8, 1.3), "translation": (1.25, -2.5)},
    ],
)
def test_affine_equals_scipy_with_the_inverted_product_of_matrices(image, parameters):
    turn, slant = (np.deg2rad(parameters.get(name, 0)) for name in ("degrees", "shear"))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shear = np.array([[1, 0], [np.tan(slant), 1]])  # rows first: column += tan * row
    stretch = np.diag(parameters.get("stretch", (1, 1)))
    back = np.linalg.inv(rotation @ shear @ stretch)
    center = (np.array(image.shape[:2]) - 1) / 2
    offset = center - back @ (center + parameters.get("translation", (0, 0)))
    wanted = [
        ndimage.affine_transform(plane, back, offset, order=1, mode="grid-constant")
        for plane in np.moveaxis(image, -1, 0)
    ]
    np.testing.assert_allclose(affine(image, **parameters), np.stack(wanted, -1), atol=1e-5)


def test_random_affine_stays_within_its_bounds():
    """A single bright pixel tells where the middle went."""
    image = np.zeros((21, 21, 1), np.float32)
    image[10, 10] = 1
    moved = samples(geometry.random_affine(translate=0.1), image, 300)[..., 0]
    rows, columns = np.nonzero(moved.sum(0))
    assert moved.sum() == 300  # whole pixels: nothing is spread, nothing lost
    assert set(rows) == set(columns) == {8, 9, 10, 11, 12}


def test_rotation_angles_fill_their_range_evenly():
    """Of a dot right of the middle, the angle can be read."""
    image = np.zeros((31, 31, 1), np.float32)
    image[15, 28] = 1
    turned = samples(geometry.random_rotate(30), image, 300)[..., 0]
    rows, columns = np.mgrid[-15:16, -15:16]
    mass = turned.sum((1, 2))
    angles = np.degrees(
        np.arctan2(-(turned * rows).sum((1, 2)) / mass, (turned * columns).sum((1, 2)) / mass)
    )
    assert -31 < angles.min() < -28
    assert 28 < angles.max() < 31
    assert abs(np.std(angles) - 60 / np.sqrt(12)) < 1.5


def test_lens_moves_points_by_its_formula():
    """In a picture whose values grow evenly with the column, they tell the column that was read."""
    distance = np.broadcast_to(np.linspace(0, 1, 11, dtype=np.float32)[:, None], (11, 11, 1))
    pinched = 2 * np.asarray(distort(distance, -0.2))[..., 0] - 1
    np.testing.assert_allclose(pinched[0, 0], -(1 - 0.2), atol=1e-6)  # a corner: radius 1
    np.testing.assert_allclose(pinched[5, 10], 1 - 0.2 / 2, atol=1e-6)  # a side: radius sqrt(1/2)
    np.testing.assert_allclose(pinched[5, 5], 0, atol=1e-6)
    np.testing.assert_allclose(pinched[10, 10], 1 - 0.2, atol=1e-6)


def test_lens_barrel_leaves_black_corners_and_pincushion_none():
    white = np.ones((15, 15, 1), np.float32)
    barrel, pincushion = (np.asarray(distort(white, s))[..., 0] for s in (0.3, -0.3))
    assert barrel[0, 0] == barrel[-1, -1] == 0
    assert barrel[7, 7] == 1
    np.testing.assert_allclose(pincushion, 1, atol=1e-6)


SCALE, RATIO = (0.2, 0.9), (0.5, 2.0)


@jit
def boxes(height, width):
    """Of 500 keys: top, left, height, width and whether it fits."""
    return jax.vmap(lambda key: geometry.random_box(key, height, width, SCALE, RATIO))(keys(500))


@pytest.mark.parametrize("size", [(32, 32), (20, 45)])
def test_random_boxes_lie_inside_with_the_wanted_area_and_ratio(size):
    scale, ratio = SCALE, RATIO
    top, left, height, width, fits = map(np.asarray, boxes(*size))
    assert fits.mean() > 0.99
    top, left, height, width = (part[fits] for part in (top, left, height, width))
    assert (np.minimum(top, left) >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    assert (top + height == size[0]).any()  # the far borders are reached
    assert (left + width == size[1]).any()
    rounding = (height + width) / 2 + 0.25  # of half a pixel each side
    area = size[0] * size[1]
    assert (height * width > scale[0] * area - rounding).all()
    assert (height * width < scale[1] * area + rounding).all()
    assert (width + 0.5 >= ratio[0] * (height - 0.5)).all()
    assert (width - 0.5 <= ratio[1] * (height + 0.5)).all()


def pillow_resize(image, box):
    """Pillow's bilinear resize of (left, top, right, bottom) to the size of the image."""
    size = image.shape[1::-1]
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR, box=box))
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack(planes, -1)


def test_resized_crop_is_pillows_resize_of_a_random_box():
    image = np.random.default_rng(2).random((24, 31, 3), np.float32)
    cropped = samples(geometry.random_resized_crop(SCALE, RATIO), image, 500)[:20]
    drawn = np.stack(boxes(24, 31), axis=1)[:20]
    for (top, left, height, width, _), crop in zip(drawn.tolist(), cropped, strict=True):
        box = (left, top, left + width, top + height)
        np.testing.assert_allclose(crop, pillow_resize(image, box), atol=1e-5)


def test_resized_crop_takes_the_middle_when_no_box_fits():
    image = np.random.default_rng(3).random((8, 8, 1), np.float32)
    got = samples(geometry.random_resized_crop(scale=(1, 1), ratio=(2, 2)), image, 1)[0]
    np.testing.assert_allclose(got, pillow_resize(image, (0, 2, 8, 6)), atol=1e-6)


def test_whole_number_never_reaches_its_count():
    largest = np.nextafter(np.float32(1), np.float32(0))
    counts = jnp.arange(1, 5000)
    np.testing.assert_array_equal(geometry.whole_number(largest, counts), counts - 1)
    assert geometry.whole_number(jnp.float32(0), 7) == 0


@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        (geometry.random_flip, {"p": 1.5}),
        (geometry.pad_and_crop, {"padding": -1}),
        (geometry.random_translate, {"fraction": 1.1}),
        (geometry.random_affine, {"degrees": -1}),
        (geometry.random_affine, {"translate": 2}),
        (geometry.random_affine, {"shear": 90}),
        (geometry.random_affine, {"stretch": 0.9}),
        (geometry.lens_distortion, {"strength": 0.5}),
        (geometry.random_resized_crop, {"scale": (0.5, 0.2)}),
        (geometry.random_resized_crop, {"scale": (0.5, 1.2)}),
        (geometry.random_resized_crop, {"ratio": (0, 1)}),
        (geometry.random_resized_crop, {"ratio": (1,)}),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(factory, arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        factory(**arguments)
