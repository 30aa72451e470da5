"""Normalization and whitening, against NumPy and scikit-learn."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from jaxnets import data
from jaxnets.errors import InputError


@pytest.fixture(scope="module")
def images():
    """Correlated values, of which the first component varies far more than the last."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(18, 18)) * np.geomspace(1, 0.1, 18)[:, None]
    return (rng.normal(size=(500, 18)) @ mixing + 0.5).astype(np.float32).reshape(500, 3, 2, 3)


def covariance(images):
    return np.cov(np.asarray(images, np.float64).reshape(len(images), -1), rowvar=False, bias=True)


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_whitened_values_are_uncorrelated_with_mean_zero_and_variance_one(images, kind):
    whitened = data.whiten(images, data.fit_whitening(images, epsilon=0, kind=kind))
    assert whitened.shape == images.shape
    np.testing.assert_allclose(covariance(whitened), np.eye(18), atol=1e-3)
    np.testing.assert_allclose(np.mean(whitened, 0), 0, atol=1e-4)


def test_pca_gives_scikit_learns_components_up_to_sign(images):
    whitened = data.whiten(images, data.fit_whitening(images, epsilon=0, kind="pca"))
    wanted = PCA(whiten=True).fit_transform(images.reshape(500, -1).astype(np.float64))
    got = np.asarray(whitened).reshape(500, -1)
    np.testing.assert_allclose(np.abs(got), np.abs(wanted) * np.sqrt(500 / 499), atol=2e-3)


def test_zca_is_the_symmetric_whitening_nearest_to_the_images(images):
    zca = data.fit_whitening(images, epsilon=0, kind="zca")
    np.testing.assert_allclose(zca.matrix, zca.matrix.T, atol=1e-4)
    pca = data.fit_whitening(images, epsilon=0, kind="pca")
    centered = images - images.mean(0)
    near, far = (np.square(data.whiten(images, fit) - centered).sum() for fit in (zca, pca))
    assert near < far


def test_epsilon_is_added_to_each_variance(images):
    variances = np.linalg.eigvalsh(covariance(images))[::-1]
    whitened = data.whiten(images, data.fit_whitening(images, epsilon=0.3, kind="pca"))
    np.testing.assert_allclose(covariance(whitened).diagonal(), variances / (variances + 0.3), atol=1e-3)


def test_fewer_images_than_values_can_be_whitened(images):
    fit = data.fit_whitening(images[:5], epsilon=1e-2)
    assert np.isfinite(data.whiten(images, fit)).all()
    with pytest.raises(InputError, match="epsilon=0"):
        data.fit_whitening(np.zeros((5, 2, 2, 1)), epsilon=0)


def test_impossible_fits_are_refused_by_name(images):
    with pytest.raises(InputError, match="kind"):
        data.fit_whitening(images, kind="ica")
    with pytest.raises(InputError, match="epsilon"):
        data.fit_whitening(images, epsilon=-1)
    with pytest.raises(InputError, match="patches"):
        data.fit_whitening(images[:1])
    with pytest.raises(InputError, match="150528"):
        data.fit_whitening(np.zeros((2, 224, 224, 3), np.uint8))


class Unreadable(data.ArraySource):
    """Says of every third image that it cannot be read."""

    take = property()  # hides the short cut, as hasattr() sees it

    def __getitem__(self, index):
        return {**super().__getitem__(index), "weight": np.float32(index % 3 > 0)}


def test_channel_statistics_are_those_of_all_pixels_that_can_be_read():
    images = np.random.default_rng(1).integers(0, 256, (40, 5, 4, 3), np.uint8)
    images[..., 1] //= 3
    source = Unreadable(images, np.zeros(40, int), "a")
    mean, std = data.channel_statistics(source, batch_size=16)
    pixels = images[np.arange(40) % 3 > 0].reshape(-1, 3) / 255
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-6)
    scaled = data.normalize(data.to_float(images[np.arange(40) % 3 > 0]), mean, std)
    np.testing.assert_allclose(np.mean(scaled, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(scaled, (0, 1, 2)), 1, atol=1e-5)


def test_a_channel_that_never_changes_can_be_divided_by_its_deviation():
    source = data.ArraySource(np.full((3, 2, 2, 1), 7, np.uint8), [0, 0, 0], "a")
    mean, std = data.channel_statistics(source)
    np.testing.assert_allclose([mean, std], [[7 / 255], [1 / 255]], rtol=1e-6)


def test_statistics_of_no_image_are_refused():
    with pytest.raises(InputError, match="at least one image"):
        data.channel_statistics(Unreadable(np.zeros((1, 2, 2, 1), np.uint8), [0], "a"))


def test_to_float_puts_the_ends_of_uint8_on_zero_and_one():
    np.testing.assert_array_equal(data.to_float(np.array([0, 255], np.uint8)), [0, 1])
    assert data.to_float(np.array([51], np.uint8)).dtype == np.float32


def test_statistics_of_floats_are_those_of_bytes_and_other_pixels_are_refused():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 2), np.uint8)

    def statistics(images):
        return data.channel_statistics([{"image": image} for image in images])

    np.testing.assert_allclose(statistics(pixels / 255), statistics(pixels), rtol=1e-6)
    for wrong in (pixels * 1.0, pixels * np.nan, pixels.astype(np.uint16)):
        with pytest.raises(InputError, match="image has"):
            statistics(wrong)
