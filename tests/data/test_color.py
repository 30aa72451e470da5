"""Augmentations that change values, against colorsys, Pillow and their definitions."""

import colorsys
import functools

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnets.data import color
from jaxnets.errors import InputError

# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

NONE = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


@pytest.fixture(scope="module")
def image():
    """Between 0.2 and 0.6, so that small changes are not clipped."""
    return 0.2 + 0.4 * np.random.default_rng(0).random((8, 10, 3), np.float32)


def samples(augment, image, count):
    keys = jax.random.split(jax.random.key(0), count)
    many = jit(jax.vmap(lambda key, image: augment(key, {"image": image})["image"], (0, None)))
    return np.asarray(many(keys, image))


def hsv(image):
    return np.array([colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3).tolist()])


def spread(factors, strength):
    """Whether factors fill [1 - strength, 1 + strength] and do not leave it."""
    factors = (np.asarray(factors) - 1) / strength
    return np.abs(factors).max() < 1 + 1e-4 and factors.min() < -0.7 and factors.max() > 0.7


def test_brightness_multiplies_all_values_by_one_factor(image):
    image = image[..., :2]  # which have neither saturation nor hue to compile
    factors = samples(color.color_jitter(**NONE | {"brightness": 0.3}), image, 30) / image
    one = factors.mean((1, 2, 3))
    np.testing.assert_allclose(factors, np.broadcast_to(one[:, None, None, None], factors.shape), 1e-4)
    assert spread(one, 0.3)


def test_contrast_scales_what_differs_from_each_channels_mean(image):
    image = image[..., :2]
    jittered = samples(color.color_jitter(**NONE | {"contrast": 0.3}), image, 30)
    mean = image.mean((0, 1))
    np.testing.assert_allclose(jittered.mean((1, 2)), np.tile(mean, (30, 1)), atol=1e-5)
    factors = (jittered - mean).std((1, 2, 3)) / (image - mean).std()
    wanted = mean + factors[:, None, None, None] * (image - mean)
    np.testing.assert_allclose(jittered, wanted, atol=1e-5)
    assert spread(factors, 0.3)


def test_saturation_scales_that_of_hsv_alone(image):
    before, factors = hsv(image), []
    for sample in samples(color.color_jitter(**NONE | {"saturation": 0.3}), image, 30):
        after = hsv(sample)
        np.testing.assert_allclose(after[:, 2], before[:, 2], atol=1e-5)
        unclipped = after[:, 1] < 0.99
        ratio = after[unclipped, 1] / before[unclipped, 1]
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
        factors.append(ratio.mean())
    assert spread(factors, 0.3)


def test_hue_turns_that_of_hsv_alone(image):
    before, turns = hsv(image), []
    for sample in samples(color.color_jitter(**NONE | {"hue": 0.2}), image, 30):
        after = hsv(sample)
        np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=1e-5)
        turn = (after[:, 0] - before[:, 0] + 0.5) % 1 - 0.5
        np.testing.assert_allclose(turn, turn.mean(), atol=1e-4)
        turns.append(1 + turn.mean())
    assert spread(turns, 0.2)


def changed(samples, image, p):
    """The samples that are not the image, which come with probability `p`."""
    different = (samples != image).any((1, 2, 3))
    assert abs(different.mean() - p) < 0.05
    return samples[different]


def test_gray_is_pillows_luma_in_three_channels_with_its_probability(image):
    levels = np.round(image * 255).astype(np.uint8)
    image = levels / np.float32(255)
    gray = changed(samples(color.random_gray(p=0.3), image, 1000), image, 0.3)
    wanted = np.stack([np.asarray(Image.fromarray(levels).convert("L")) / 255] * 3, -1)
    np.testing.assert_allclose(gray, np.broadcast_to(wanted, gray.shape), atol=0.6 / 255)


def test_mixed_channels_are_darkened_means_of_all_with_their_probability(image):
    image = image.copy()
    image[0, :3] = np.eye(3)  # a red, a green and a blue pixel: the weights come out
    mixed = changed(samples(color.random_channel_mix(p=0.3), image, 1000), image, 0.3)
    weights = mixed[:, 0, :3]
    factors = weights.sum(1)
    assert weights.min() >= 0
    assert 0.2 <= factors.min() < 0.25
    assert 0.95 < factors.max() <= 1 + 1e-6
    assert abs((weights / factors[:, None]).mean() - 1 / 3) < 0.02  # no channel is preferred
    assert (weights / factors[:, None]).max(1).mean() > 0.8  # most of a mean is one channel
    np.testing.assert_allclose(mixed, np.einsum("hwc,ncd->nhwd", image, weights), atol=1e-6)


def test_noise_has_its_deviation_and_no_mean():
    noise = samples(color.gaussian_noise(0.1), np.full((32, 32, 3), 0.5, np.float32), 8) - 0.5
    assert abs(noise.std() - 0.1) < 0.002
    assert abs(noise.mean()) < 0.002
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.08


def test_erasing_fills_one_box_of_the_wanted_area_with_noise_with_its_probability():
    black = np.zeros((20, 30, 3), np.float32)
    erased = changed(samples(color.random_erasing(p=0.4, scale=(0.1, 0.3)), black, 500), black, 0.4)
    for sample in erased:
        mask = sample.any(-1)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        assert np.ptp(rows) + 1 == len(rows)
        assert np.ptp(columns) + 1 == len(columns)
        rounding = (len(rows) + len(columns)) / 2 + 0.25
        assert 0.1 * 600 - rounding < mask.sum() < 0.3 * 600 + rounding
    inside = erased[erased > 0]
    assert abs(inside.mean() - 0.5) < 0.01
    assert abs(inside.std() - 1 / np.sqrt(12)) < 0.01


def test_erasing_leaves_an_image_whole_that_no_box_fits():
    black = np.zeros((12, 12, 1), np.float32)
    assert not samples(color.random_erasing(p=1, scale=(0.5, 0.6), ratio=(9, 9)), black, 20).any()


@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        (color.color_jitter, {"brightness": 1.5}),
        (color.color_jitter, {"contrast": -0.1}),
        (color.color_jitter, {"saturation": 2}),
        (color.color_jitter, {"hue": 0.6}),
        (color.random_gray, {"p": -1}),
        (color.gaussian_noise, {"sigma": -0.1}),
        (color.random_erasing, {"p": 2}),
        (color.random_erasing, {"scale": (0.1, 2)}),
        (color.random_erasing, {"ratio": (-1, 1)}),
    ],
)
def test_color_parameters_out_of_range_are_refused_by_name(factory, arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        factory(**arguments)


def test_a_photometric_distortion_fills_its_ranges_and_reorders_channels():
    """Of one gray, contrast, saturation and hue change nothing."""
    gray = np.full((4, 4, 3), 0.4, np.float32)
    factors = samples(color.photometric_distortion(p=1), gray, 40) / gray
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1, :1], factors.shape), 1e-4)
    assert spread(factors[:, 0, 0, 0], 0.125)
    red = np.broadcast_to(np.float32([0.7, 0.2, 0.2]), (4, 4, 3))
    assert set(samples(color.photometric_distortion(p=1), red, 20)[:, 0, 0].argmax(-1)) == {0, 1, 2}
    contrast = np.concatenate([gray - 0.1, gray + 0.1])
    strengths = np.ptp(samples(color.photometric_distortion(p=1), contrast, 40)[..., 0], (1, 2)) / 0.2
    assert 0.4 < strengths.min() < 0.7
    assert 1.3 < strengths.max() < 1.7
