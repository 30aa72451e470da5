"""Label maps of pictures of any kind and size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxnets import create_model
from jaxnets.errors import InputError
from jaxnets.layers import Conv, resize_bilinear
from jaxnets.models.resizing import Resizing
from jaxnets.segmentation import segmenting
from jaxnets.segmentation.segmenter import Segmenter
from jaxnets.segmentation.segmenting import segment

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Same(nn.Module):
    """A backbone whose map is the image."""

    def __call__(self, images, train):
        return {"same": images}


class Pointwise(nn.Module):
    """Scores each pixel by itself."""

    @nn.compact
    def __call__(self, maps, size, train):
        return Conv(4, 1, name="conv")(maps["same"])


class Neighbors(nn.Module):
    """Scores each pixel by those on its left, so that a mirrored picture is scored otherwise."""

    @nn.compact
    def __call__(self, maps, size, train):
        return Conv(4, (1, 5), padding=((0, 0), (4, 0)), name="conv")(maps["same"])


def make(decoder, resizing, **fields):
    model = Segmenter(Same(), decoder, 4, input_size=(8, 8, 3), resizing=resizing, **fields)
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    noise = iter(np.random.default_rng(0).normal(size=1000))
    drawn = jax.tree.map(
        lambda leaf: np.array([next(noise) for _ in range(leaf.size)], np.float32).reshape(leaf.shape),
        variables,
    )
    return model, drawn


def pointwise(min_size=None, max_size=None, order="RGB"):
    return make(Pointwise(), Resizing(min_size, max_size, MEAN, STD, order))


def picture(size=(40, 52), seed=0):
    """Blobs of colors."""
    blocks = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    return blocks.repeat(7, 0).repeat(7, 1)[: size[0], : size[1]]


def scores_of(variables, pixels):
    """What `Pointwise` says of normalized pixels, in float64."""
    own = variables["params"]["decoder"]["conv"]
    return pixels.astype(float) @ np.asarray(own["kernel"], float)[0, 0] + np.asarray(own["bias"], float)


def normalized(pixels):
    return (pixels / 255 - np.array(MEAN)) / np.array(STD)


# Pixels on a diagonal of torchvision 0.29.1's SemanticSegmentation(resize_size=520), of noise.
PRESET = {
    (97, 120): (
        (0, 199, 519),
        [
            [-0.49105233, 0.2401962, 1.5768193],
            [-0.81642264, 1.2380953, 0.5484969],
            [0.60493195, 0.90546227, -1.3861438],
        ],
    ),
    (1000, 777): (
        (0, 100, 400),
        [
            [0.86180323, 0.69537824, 1.4025275],
            [0.50218344, -0.47759098, 0.2522005],
            [-0.2855553, 0.6778712, 0.70535964],
        ],
    ),
}


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def at_size(scores, size):
    return np.asarray(
        resize_bilinear(jnp.asarray(scores[None], jnp.float32), size, align_corners=False)[0]
    )


def test_labels_are_of_each_pixel_in_order_in_the_pictures_own_sizes():
    model, variables = pointwise()
    pictures = [picture(), picture((23, 31), 1), picture((40, 52), 2)]
    found = segment(model, variables, pictures)
    assert type(found) is list
    for own, labels in zip(pictures, found, strict=True):
        assert type(labels) is np.ndarray
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, scores_of(variables, normalized(own)).argmax(-1))
    assert len(np.unique(found[0])) > 2
    likely = segment(model, variables, pictures[:1], probabilities=True)[0]
    assert likely.dtype == np.float32
    wanted = softmax(scores_of(variables, normalized(pictures[0])))
    np.testing.assert_allclose(likely, wanted, atol=1e-5)


def test_pictures_of_every_kind_are_looked_at(tmp_path):
    model, variables = pointwise(30)
    own = picture()
    Image.fromarray(own).save(tmp_path / "a.png")
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(own), own, own / 255]
    first, *others = segment(model, variables, kinds)
    for other in others[:-1]:
        np.testing.assert_array_equal(other, first)
    assert np.mean(others[-1] == first) > 0.99  # floats are scaled without rounding
    gray = own[..., 0]
    found = segment(model, variables, [gray, gray[..., None].repeat(3, -1)])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("before", "after"),  # of SemanticSegmentation(resize_size=520) of torchvision 0.29.1
    [
        ((97, 120), (520, 643)),
        ((120, 97), (643, 520)),
        ((49, 333), (520, 3533)),
        ((427, 640), (520, 779)),
        ((1000, 777), (669, 520)),
        ((13, 1000), (520, 40000)),
    ],
)
def test_pictures_are_scaled_to_the_sizes_of_torchvision(before, after):
    assert segmenting._scaled_size(before, Resizing(520, None)) == after


def test_sizes_have_limits_and_scales():
    of = segmenting._scaled_size
    assert of((100, 400), Resizing(50, 120)) == (30, 120)
    assert of((400, 100), Resizing(50, 120), 0.5) == (60, 15)
    assert of((100, 200), Resizing(50, 120), 2) == (100, 200)
    assert of((100, 200), Resizing(None, 120)) == (60, 120)
    assert of((33, 45), Resizing(None, None)) == (33, 45)
    assert of((33, 45), Resizing(None, None), 2) == (66, 90)
    assert of((1, 3), Resizing(None, None), 0.1) == (1, 3)


@pytest.mark.parametrize("size", PRESET)
def test_the_model_gets_what_torchvisions_preset_gives(size):
    places, wanted = PRESET[size]
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    model = create_model("fcn", backbone="resnet18", num_classes=3)
    scaled = segmenting._scaled_size(size, model.resizing)
    image = segmenting._normalized(segmenting._resized(pixels, scaled), model)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[places, places], wanted, rtol=1e-6)


def test_scores_are_resized_to_the_picture():
    """Not labels; and a picture is scaled with antialiasing, which its scores are not."""
    model, variables = pointwise(24)
    own = picture((41, 60))
    scaled = np.asarray(Image.fromarray(own).resize((35, 24), Image.Resampling.BILINEAR))
    scores = at_size(scores_of(variables, normalized(scaled)), (41, 60))
    found = segment(model, variables, [own], probabilities=True)[0]
    np.testing.assert_allclose(found, softmax(scores), atol=1e-5)
    sure = np.diff(np.sort(scores, -1)[..., -2:])[..., 0] > 1e-4
    np.testing.assert_array_equal(segment(model, variables, [own])[0][sure], scores.argmax(-1)[sure])


def test_channels_come_in_the_models_order():
    model, variables = pointwise(order="BGR")
    own = picture()
    found = segment(model, variables, [own])[0]
    wanted = scores_of(variables, normalized(own[..., ::-1])).argmax(-1)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_strips_of_a_large_picture_are_those_of_the_whole(monkeypatch):
    model, variables = pointwise(20)
    options = {"probabilities": True}
    whole = segment(model, variables, [picture((41, 60))], **options)[0]
    monkeypatch.setattr(segmenting, "_STRIP", 6 * 60 * 4)  # 7 strips of 6 rows, the last of 5
    jax.clear_caches()
    strips = segment(model, variables, [picture((41, 60))], **options)[0]
    np.testing.assert_allclose(strips, whole, atol=1e-6)
    labels = segment(model, variables, [picture((41, 60))])[0]
    assert np.mean(labels == whole.argmax(-1)) > 0.999
    jax.clear_caches()


def test_flipping_is_the_mean_with_the_mirrored_picture():
    model, variables = make(Neighbors(), Resizing(None, None, MEAN, STD))
    own = picture()
    options = {"probabilities": True}
    one, mirrored = segment(model, variables, [own, own[:, ::-1]], **options)
    both, again = segment(model, variables, [own, own[:, ::-1]], flip=True, **options)
    np.testing.assert_allclose(both, (one + mirrored[:, ::-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(both, again[:, ::-1], atol=1e-6)
    assert np.abs(both - one).max() > 0.1
    labels = segment(model, variables, [own], flip=True)[0]
    assert np.mean(labels == both.argmax(-1)) > 0.999


def test_scales_are_the_mean_of_scaled_pictures():
    own = picture()
    options = {"probabilities": True}
    model, variables = pointwise(24)
    found = segment(model, variables, [own], scales=(0.5, 1, 2), **options)[0]
    single = [segment(pointwise(side)[0], variables, [own], **options)[0] for side in (12, 24, 48)]
    np.testing.assert_allclose(found, np.mean(single, 0), atol=1e-6)
    assert np.abs(single[0] - single[2]).max() > 0.05


@pytest.mark.parametrize("window", [16, (16, 24), (64, 10), 200])
def test_windows_of_a_model_of_single_pixels_are_the_whole(window):
    model, variables = pointwise(36)
    options = {"probabilities": True, "flip": True, "scales": (0.5, 1)}
    pictures = [picture(), picture((90, 31))]
    whole = segment(model, variables, pictures, **options)
    windows = segment(model, variables, pictures, window=window, **options)
    for one, other in zip(whole, windows, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_windows_overlap_by_a_third_and_reach_the_end():
    assert segmenting._starts(100, 45) == [0, 30, 55]
    assert segmenting._starts(105, 45) == [0, 30, 60]
    assert segmenting._starts(45, 45) == [0]
    assert segmenting._starts(2, 1) == [0, 1]


def test_where_windows_overlap_scores_are_their_mean_and_padding_is_the_mean_color():
    model, variables = make(Neighbors(), Resizing(None, None, MEAN, STD))
    own = picture((1, 10))
    found = segment(model, variables, [own], window=(1, 6), probabilities=True)[0]
    # Windows of the columns 0 to 5 and 4 to 9: the model sees nothing on the left of each.
    parts = [segment(model, variables, [own[:, part]], probabilities=True)[0] for part in
             (slice(0, 6), slice(4, 10))]  # fmt: skip
    np.testing.assert_allclose(found[:, :4], parts[0][:, :4], atol=1e-5)
    np.testing.assert_allclose(found[:, 6:], parts[1][:, 2:], atol=1e-5)
    mean = np.log(parts[0][:, 4:]) / 2 + np.log(parts[1][:, :2]) / 2  # of scores, but for a constant
    np.testing.assert_allclose(found[:, 4:6], softmax(mean), atol=1e-5)
    padded = segment(model, variables, [own], window=(4, 30), probabilities=True, flip=True)[0]
    np.testing.assert_allclose(
        padded, segment(model, variables, [own], probabilities=True, flip=True)[0], atol=1e-5
    )


def test_a_window_is_compiled_once_whatever_the_pictures():
    model, variables = pointwise(17)
    before = segmenting._logits._cache_size()
    pictures = [picture((20 + k, 30 + 2 * k)) for k in range(4)]
    segment(model, variables, pictures, window=19, scales=(1, 1.5))
    assert segmenting._logits._cache_size() == before + 1


def test_parameters_may_be_of_low_precision():
    model, variables = pointwise()
    full = segment(model, variables, [picture()], probabilities=True)[0]
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    half = segment(model, low, [picture()], probabilities=True)[0]
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.05)


def test_double_precision_may_be_on():
    model, variables = pointwise(24)
    wanted = segment(model, variables, [picture()], window=20, flip=True)[0]
    with jax.enable_x64(True):
        found = segment(model, variables, [picture()], window=20, flip=True)[0]
    assert found.dtype == np.int32
    assert np.mean(found == wanted) > 0.999


@pytest.mark.slow
def test_a_fcn_gives_label_maps():
    model = create_model("fcn", backbone="resnet18", num_classes=3)
    model = dataclasses.replace(model, resizing=Resizing(40, None))
    variables = model.init(jax.random.key(0), np.zeros((1, 40, 52, 3), np.float32))
    labels = segment(model, variables, [picture((60, 78))])[0]
    assert labels.shape == (60, 78)
    assert set(np.unique(labels)) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (picture(), {}, "pictures: got one; wanted a list"),
        ("a.png", {}, "pictures: got one; wanted a list"),
        (["nowhere.png"], {}, "nowhere.png cannot be read as a picture"),
        ([picture().astype(float)], {}, "wanted uint8, or floats from 0 to 1"),
        ([picture()], {"scales": ()}, "scales is \\(\\); wanted numbers above 0"),
        ([picture()], {"scales": 1.5}, "scales is 1.5; wanted numbers above 0"),
        ([picture()], {"scales": (1, 0)}, "scales is \\(1, 0\\)"),
        ([picture()], {"scales": ("1",)}, "scales is \\('1',\\)"),
        ([picture()], {"scales": (float("nan"),)}, "scales is \\(nan,\\)"),
        ([picture()], {"window": 7}, "window is 7; give an int or two, each at least 8"),
        ([picture()], {"window": 20.5}, "window is 20.5; give an int or two"),
        ([picture()], {"window": (20, 20, 20)}, "window is \\(20, 20, 20\\)"),
    ],
)
def test_what_cannot_be_segmented_is_refused_in_a_line(given, options, message):
    model, variables = make(Pointwise(), Resizing(None, None), min_size=8)
    with pytest.raises(InputError, match=message):
        segment(model, variables, given, **options)


def test_no_pictures_have_no_label_maps():
    model, variables = pointwise()
    assert segment(model, variables, []) == []


def test_pictures_that_are_too_small_for_the_model_are_padded():
    model, variables = make(Pointwise(), Resizing(None, None), min_size=8)
    free, _ = make(Pointwise(), Resizing(None, None))
    given = [picture((6, 60))]
    for options in ({}, {"scales": (0.1,)}, {"flip": True}):
        (found,), (wanted,) = (segment(own, variables, given, **options) for own in (model, free))
        np.testing.assert_array_equal(found, wanted)
