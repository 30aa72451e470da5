"""What holds for every augmentation, and those of whole batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import beta
from sklearn.neighbors import KNeighborsClassifier

from jaxnets import data
from jaxnets.data import augmentation, color, crops, enhancing, geometry, perspective
from jaxnets.errors import InputError

# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# Crops by overlap need objects (`test_crops.py`), and policies have tests of their own.
ELSEWHERE = {"iou_crop", *augmentation.POLICIES}
PLAIN = {name: own for name, own in augmentation.AUGMENTATIONS.items() if name not in ELSEWHERE}
# Of the presets one; the others are movements of `test_movement.py`.
EVERY = PLAIN | {"imagenet": augmentation.PRESETS["imagenet"]}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((6, 8, 11, 3), np.float32)


@functools.cache
def eight(name):
    """Eight samples of one image and eight of its first channel, compiled."""
    augment = EVERY[name]()

    def apply(key, image):
        return augmentation.apply(key, {"image": jnp.stack([image] * 8)}, augment)["image"]

    return jit(lambda key, image: (apply(key, image), apply(key, image[..., :1])))


def with_extremes(image, name=None):
    """Has both ends of the range in it; not for what would then have nothing to stretch."""
    if name == "autocontrast":
        return image / 2
    image = image.copy()
    image[:2], image[2:4] = 0, 1
    return image


@pytest.mark.parametrize("name", EVERY)
def test_keys_decide_and_shape_type_and_range_stay(name, images):
    sample = eight(name)
    image = with_extremes(images[0], name)
    got = np.asarray(sample(jax.random.key(0), image)[0])
    assert got.shape == (8, *image.shape)
    assert got.dtype == np.float32
    assert got.min() >= 0
    assert got.max() <= 1
    np.testing.assert_array_equal(sample(jax.random.key(0), image)[0], got)
    assert (np.asarray(sample(jax.random.key(1), image)[0]) != got).any()
    assert len({one.tobytes() for one in got}) > 1, "keys of one batch must differ"


@pytest.mark.parametrize("name", PLAIN)
def test_a_batch_is_its_images_one_by_one_and_gradients_are_finite(name, images):
    """GANs are trained through augmentations, on flat images as well."""
    augment = augmentation.AUGMENTATIONS[name]()

    def energy(image, key):
        augmented = augment(key, {"image": image})["image"]
        return jnp.sum(augmented**2), augmented

    one = jit(jax.grad(energy, has_aux=True))
    image = with_extremes(images[0])
    batch, _ = eight(name)(jax.random.key(0), image)
    for key, wanted in zip(jax.random.split(jax.random.key(0), 8), batch, strict=True):
        gradient, got = one(image, key)
        np.testing.assert_allclose(got, wanted, atol=5e-6)
        assert np.isfinite(gradient).all()
    assert np.isfinite(one(np.full_like(image, 0.5), jax.random.key(0))[0]).all()


@pytest.mark.parametrize("name", PLAIN)
def test_gray_images_pass(name, images):
    image = with_extremes(images[0], name)
    got = np.asarray(eight(name)(jax.random.key(0), image)[1])
    assert got.shape == (8, *image.shape[:2], 1)
    assert got.min() >= 0
    assert got.max() <= 1
    assert (got != image[..., :1]).any() == (name != "gray")


@pytest.mark.parametrize("name", ["color", "gray", "rotate"])
def test_gray_in_three_channels_comes_out_as_gray_in_one(name, images):
    """Saturation, hue and luma have nothing to change in it."""
    three, one = eight(name)(jax.random.key(0), np.repeat(images[0, ..., :1], 3, -1))
    np.testing.assert_allclose(three, np.repeat(one, 3, -1), atol=2e-4)  # luma weights: 0.9999


def test_zero_strength_changes_nothing(images):
    idle = {
        "flip": geometry.random_flip(p=0),
        "crop": geometry.pad_and_crop(0),
        "resized_crop": geometry.random_resized_crop(scale=(1, 1), ratio=(11 / 8, 11 / 8)),
        "translate": geometry.random_translate(0),
        "rotate": geometry.random_rotate(0),
        "shear": geometry.random_shear(0),
        "stretch": geometry.random_stretch(1),
        "lens": geometry.lens_distortion(0),
        "scale_jitter": crops.scale_jitter((1, 1)),
        "iou_crop": crops.iou_crop(overlaps=(1,)),
        "color": color.color_jitter(0, 0, 0, 0),
        "photometric": color.photometric_distortion(p=0),
        "gray": color.random_gray(p=0),
        "channel_mix": color.random_channel_mix(p=0),
        "noise": color.gaussian_noise(0),
        "erase": color.random_erasing(p=0),
        "perspective": perspective.random_perspective(distortion=0),
        "posterize": enhancing.random_posterize(8, p=1),
        "solarize": enhancing.random_solarize(p=0),
        "invert": enhancing.random_invert(p=0),
        "autocontrast": enhancing.random_autocontrast(p=0),
        "equalize": enhancing.random_equalize(p=0),
        "sharpness": enhancing.random_sharpness(0),
        "blur": enhancing.gaussian_blur(p=0),
    }
    assert idle.keys() == augmentation.AUGMENTATIONS.keys() - augmentation.POLICIES.keys()
    idle["nothing"] = augmentation.compose()

    @jit
    def every(image):
        key, example = jax.random.key(0), {"image": image}
        return {name: augment(key, example)["image"] for name, augment in idle.items()}

    image = np.round(255 * images[0]) / np.float32(255)  # of whole levels, to which some round
    for name, got in every(image).items():
        np.testing.assert_allclose(got, image, atol=2e-6, err_msg=name)


def test_compose_gives_each_its_own_key():
    noise = augmentation.compose(color.gaussian_noise(0.05), color.gaussian_noise(0.05))
    example = {"image": jnp.full((64, 64, 3), 0.5)}
    added = np.asarray(jit(noise)(jax.random.key(0), example)["image"]) - 0.5
    assert abs(added.std() - 0.05 * np.sqrt(2)) < 0.002  # equal keys would give 0.1


def test_compose_works_from_left_to_right(images):
    flip = geometry.random_flip(p=1)
    roll = augmentation.on_image(lambda key, image: jnp.roll(image, 1, axis=1))
    got = jit(augmentation.compose(flip, roll))(jax.random.key(0), {"image": images[0]})
    np.testing.assert_array_equal(got["image"], np.roll(images[0, :, ::-1], 1, axis=1))


def test_names_make_the_augmentations_they_stand_for(images):
    @jit
    def both(key, example):
        other = augmentation.compose(geometry.pad_and_crop(), color.gaussian_noise())
        return augmentation.by_name(["crop", "noise"])(key, example), other(key, example)

    got, wanted = both(jax.random.key(0), {"image": images[0]})
    np.testing.assert_array_equal(got["image"], wanted["image"])
    assert (got["image"] != images[0]).any()


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(InputError, match="'rotate'"):
        augmentation.by_name(["flip", "rotat"])


def test_digits_stay_the_digits_they_are_under_their_preset():
    """Nearest neighbors still tell augmented digits; of flipped ones they tell far fewer."""
    digits = data.load("digits", size=16)
    neighbors = KNeighborsClassifier(1).fit(
        digits.train.images.reshape(len(digits.train), -1), digits.train.labels
    )

    def accuracy(augment):
        batch = {"image": digits.test.images / np.float32(255)}
        seen = jit(lambda batch: augmentation.apply(jax.random.key(0), batch, augment))(batch)["image"]
        return neighbors.score(np.asarray(seen).reshape(len(seen), -1) * 255, digits.test.labels)

    assert accuracy(augmentation.digits()) > 0.8
    assert accuracy(geometry.random_flip(p=1)) < 0.5


MIXES = {"mixup": jit(augmentation.mixup(0.2)), "cutmix": jit(augmentation.cutmix(1.0))}
VALUES = np.arange(1, 7, dtype=np.float32) / 8
CONSTANT = np.broadcast_to(VALUES[:, None, None, None], (6, 8, 11, 3))  # image n is VALUES[n] all over


def mixed(name, images, count):
    """Pairs of images and targets, for so many keys."""
    for seed in range(count):
        got, targets = MIXES[name](jax.random.key(seed), images, np.eye(6))
        yield np.asarray(got), np.asarray(targets)


@pytest.mark.parametrize("name", MIXES)
def test_targets_tell_exactly_what_share_of_each_image_came(name):
    """So the mean of a mixed image is the mean of the values by its targets."""
    shares = []
    for got, targets in mixed(name, CONSTANT, 30):
        assert got.shape == CONSTANT.shape
        assert got.dtype == targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        assert targets.min() >= 0
        np.testing.assert_allclose(got.mean((1, 2, 3)), targets @ VALUES, atol=1e-5)
        shares.append(targets.max(1).mean())
    assert max(shares) > 0.9
    assert min(shares) < 0.7


def test_mixup_blends_each_pixel_alike(images):
    for got, targets in mixed("mixup", images, 5):
        np.testing.assert_allclose(got, np.einsum("nk,k...->n...", targets, images), atol=1e-6)


def test_cutmix_pastes_one_box_and_counts_its_pixels():
    for got, targets in mixed("cutmix", CONSTANT, 40):
        foreign = (got != CONSTANT).all(-1)
        for own, (box, image, target) in enumerate(zip(foreign, got, targets, strict=True)):
            if not box.any():
                continue
            rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
            assert box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            partner = int(image[box][0, 0] * 8) - 1
            np.testing.assert_allclose(target[partner], box.sum() / 88, rtol=1e-6)
            np.testing.assert_allclose(target[own], 1 - box.sum() / 88, rtol=1e-6)


def test_shares_are_of_the_beta_distribution():
    """min(x, 1 - x) has mean 0.083 for Beta(0.2, 0.2), and 0.25 for Beta(1, 1), which is uniform."""
    share = beta(0.2, 0.2)
    wanted = share.expect(lambda x: np.minimum(x, 1 - x))
    least = np.array([targets.max(1).min() for _, targets in mixed("mixup", CONSTANT, 500)])
    got = np.minimum(least, 1 - least)
    assert abs(got.mean() - wanted) < 0.02


@pytest.mark.parametrize("factory", augmentation.BATCH_AUGMENTATIONS.values())
def test_alpha_zero_mixes_nothing(factory, images):
    got, targets = jit(factory(0))(jax.random.key(0), images, jnp.eye(6))
    np.testing.assert_array_equal(got, images)
    np.testing.assert_array_equal(targets, np.eye(6))


@pytest.mark.parametrize("factory", augmentation.BATCH_AUGMENTATIONS.values())
def test_labels_in_place_of_targets_are_refused(factory, images):
    with pytest.raises(InputError, match="one_hot"):
        factory()(jax.random.key(0), images, jnp.arange(6))
    with pytest.raises(InputError, match="alpha"):
        factory(-1)
