"""Operations of augmentation on single images, against torchvision's and Pillow's answers."""

import functools
from pathlib import Path

import draw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmented import SIGMAS, picture
from PIL import Image, ImageFilter, ImageOps

from jaxnets.data import enhancing, movement, operations, perspective
from jaxnets.errors import InputError

# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "data" / "augmentation.npz")
IMAGE = picture(3) / np.float32(255)
LEVEL = 1.001 / 255


def test_a_blur_is_that_of_torchvision():
    blurred = jit(lambda image, sigma: operations.gaussian_blur(image, sigma, 13))
    for k, sigma in enumerate(SIGMAS):
        got = blurred(IMAGE, sigma)
        np.testing.assert_allclose(got, GOLDENS[f"blur {k}"] / 255, atol=0.51 / 255)


def test_a_blur_is_nearly_that_of_pillow_within_the_image():
    """Pillow's is three box blurs."""
    rows, columns = np.mgrid[:40, :40] / 40
    smooth = np.uint8(255 * (0.5 + 0.5 * np.sin(9 * rows) * np.cos(7 * columns)))[..., None]
    got = jit(lambda image: operations.gaussian_blur(image, 2.0, 17))(smooth / np.float32(255))
    wanted = np.asarray(Image.fromarray(smooth[..., 0]).filter(ImageFilter.GaussianBlur(2))) / 255
    np.testing.assert_allclose(np.asarray(got)[8:-8, 8:-8, 0], wanted[8:-8, 8:-8], atol=2 / 255)


def test_an_inverted_image_is_that_of_torchvision():
    np.testing.assert_allclose(operations.invert(IMAGE), GOLDENS["invert"] / 255, atol=1e-6)


@jit
def by_ours(image):
    return {
        "equalize": operations.equalize(image),
        "autocontrast": operations.autocontrast(image),
        "posterize": operations.posterize(image, 3),
        "solarize": operations.solarize(image, 100 / 255),
    }


BY_PILLOW = {
    "equalize": ImageOps.equalize,
    "autocontrast": ImageOps.autocontrast,
    "posterize": lambda image: ImageOps.posterize(image, 3),
    "solarize": lambda image: ImageOps.solarize(image, 100),
}
PLAIN = np.full((6, 7, 3), 77, np.uint8)
TWO = PLAIN.copy()
TWO[2:, :, 1] = 200
PHOTO = np.round(40 + 150 * draw.uniform("photo", (64, 48, 3), 0, 1) ** 3).astype(np.uint8)


@pytest.mark.parametrize("levels", [PLAIN, TWO, PHOTO], ids=["plain", "two levels", "noise"])
def test_operations_of_levels_are_those_of_pillow(levels):
    """With channels of one level too, which have nothing to equalize or to stretch."""
    for name, got in by_ours(levels / np.float32(255)).items():
        wanted = np.asarray(BY_PILLOW[name](Image.fromarray(levels))) / 255
        np.testing.assert_allclose(got, wanted, atol=LEVEL, err_msg=name)


@pytest.mark.parametrize("count", [operations.count_by_adding, operations.count_by_comparing])
def test_each_form_of_a_histogram_counts_what_is_to_be_counted(count):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (9, 11, 3), np.int32)
    counted = rng.random((9, 11, 3)) < 0.7
    wanted = [np.bincount(levels[..., c][counted[..., c]], minlength=256) for c in range(3)]
    got = jit(count)(levels, counted)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, wanted)


@jit
def seen_from(image, rows, columns):
    seen = perspective.perspective(rows, columns, *image.shape[:2])
    corners = jnp.array([[0, 0], [0, 29], [22, 29], [22, 0]], jnp.float32)
    places = seen.forth(corners[:, 0] - 11.5, corners[:, 1] - 15)
    return movement.move_image(image, seen), places, seen.back(*places)


def test_a_perspective_is_that_of_torchvision_and_takes_corners_where_it_should():
    columns, rows = GOLDENS["corners"].T.astype(np.float32)
    got, places, back = seen_from(IMAGE, rows, columns)
    np.testing.assert_allclose(got, GOLDENS["perspective"] / 255, atol=0.51 / 255)
    np.testing.assert_allclose(places, [rows - 11.5, columns - 15], atol=1e-4)
    np.testing.assert_allclose(back[0], np.float32([0, 0, 22, 22]) - 11.5, atol=1e-3)
    np.testing.assert_allclose(back[1], np.float32([0, 29, 29, 0]) - 15, atol=1e-3)


def test_corners_on_a_line_give_no_more_than_black():
    rows, columns = np.float32([1, 0, 3, 2]), np.float32([1, 2, 3, 0])
    got, *_ = seen_from(np.ones((4, 4, 1), np.float32), rows, columns)
    assert np.isfinite(got).all()


@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        (enhancing.random_posterize, {"bits": 9}),
        (enhancing.random_solarize, {"threshold": 255}),
        (enhancing.random_invert, {"p": 2}),
        (enhancing.random_autocontrast, {"p": -1}),
        (enhancing.random_equalize, {"p": 1.5}),
        (enhancing.random_sharpness, {"strength": 3}),
        (enhancing.gaussian_blur, {"kernel_size": 4}),
        (enhancing.gaussian_blur, {"sigma": (2, 1)}),
        (perspective.random_perspective, {"distortion": 0.9}),
        (perspective.random_perspective, {"p": 2}),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(factory, arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        factory(**arguments)
