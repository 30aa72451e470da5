import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.models.mobilenet_v1 import DepthwiseSeparable, Stem, scaled_channels

IMAGES = np.random.default_rng(1).normal(size=(2, 8, 11, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "count"),
    [("mobilenet_v1_100", 4_231_976), ("mobilenet_v1_050", 1_331_592), ("mobilenet_v1_025", 470_072)],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


def test_maps_are_those_of_the_papers_table_1(map_sizes):
    assert map_sizes("mobilenet_v1_100") == {
        "stem": (112, 32),
        "stage1": (112, 64),
        "stage2": (56, 128),
        "stage3": (28, 256),
        "stage4": (14, 512),
        "stage5": (7, 1024),
    }


def test_net_has_13_depthwise_separable_convolutions(shapes_of):
    backbone = shapes_of("mobilenet_v1_100")["params"]["backbone"]
    depths = zip((1, 2, 3, 4, 5), (1, 2, 2, 6, 2), strict=True)
    blocks = [f"stage{s}_block{b}" for s, depth in depths for b in range(1, depth + 1)]
    assert len(blocks) == 13
    assert set(backbone) == {"stem", *blocks}
    layers = {"depthwise", "depthwise_bn", "pointwise", "pointwise_bn"}
    assert all(set(backbone[block]) == layers for block in blocks)


@pytest.mark.parametrize("width", [0.1, 0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
@pytest.mark.parametrize("channels", [16, 24, 32, 96, 1280])
def test_scaled_channels_are_multiples_of_8_near_the_product(channels, width):
    scaled = scaled_channels(channels, width)
    assert scaled % 8 == 0
    assert scaled >= max(8, 0.9 * channels * width)
    # The nearest multiple, or the one after it.
    assert scaled <= max(8, channels * width + 8)


def test_scaled_channels_of_the_papers_widths():
    assert [scaled_channels(c, 0.25) for c in (32, 64, 1024)] == [8, 16, 256]
    # 24 * 1.4 = 33.6 goes down to 32; 16 * 0.35 = 5.6 not below 8; 24 * 0.75 = 18 up to 24,
    # since 16 would be more than a tenth less.
    assert [scaled_channels(c, w) for c, w in ((24, 1.4), (16, 0.35), (24, 0.75))] == [32, 8, 24]


def normalized(x, layer, statistics, epsilon):
    deviation = np.sqrt(np.asarray(statistics["var"], np.float64) + epsilon)
    x = (x - statistics["mean"]) / deviation * layer["scale"] + layer["bias"]
    return np.clip(x, 0, 6)


def padded(x, low, high):
    return np.pad(x, ((0, 0), (low, high), (low, high), (0, 0)))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("tf_padding", "epsilon"), [(False, 1e-5), (True, 1e-3)])
def test_blocks_match_numpy(stride, tf_padding, epsilon, drawn_variables, numpy_conv):
    block = DepthwiseSeparable(5, stride, epsilon, tf_padding)
    x = np.random.default_rng(2).normal(size=(2, 8, 11, 4)).astype(np.float32) * 4
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, False))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.uniform(-1, 1.5, s.shape).astype(np.float32), shapes)
    variables["batch_stats"] = jax.tree.map(lambda s: abs(s) / 9, variables["batch_stats"])
    params, statistics = variables["params"], variables["batch_stats"]
    # Keras pads at the far edges only where it halves, whether the side is even or odd.
    y = padded(x, 0, 1) if tf_padding and stride == 2 else padded(x, 1, 1)
    y = numpy_conv(y, params["depthwise"]["kernel"], stride, groups=4)
    y = normalized(y, params["depthwise_bn"], statistics["depthwise_bn"], epsilon)
    y = y @ np.asarray(params["pointwise"]["kernel"])[0, 0]
    y = normalized(y, params["pointwise_bn"], statistics["pointwise_bn"], epsilon)
    assert (y == 6).any()  # otherwise the six of ReLU6 would not show
    got = jax.jit(lambda v, x: block.apply(v, x, False))(variables, x)
    np.testing.assert_allclose(got, y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("tf_padding", "pads"), [(False, ((1, 1), (1, 1))), (True, ((0, 1), (1, 1)))])
def test_first_convolution_pads_symmetrically_or_as_tensorflow(tf_padding, pads, numpy_conv):
    stem = Stem(4, tf_padding=tf_padding)
    variables = stem.init(jax.random.key(0), IMAGES, False)
    x = np.pad(IMAGES, ((0, 0), *pads, (0, 0)))
    want = np.clip(numpy_conv(x, variables["params"]["conv"]["kernel"], 2) / np.sqrt(1 + 1e-5), 0, 6)
    np.testing.assert_allclose(stem.apply(variables, IMAGES, False), want, rtol=1e-4, atol=1e-5)


def test_any_size_from_32_fits_the_same_parameters(shapes_of):
    model = create_model("mobilenet_v1_025")
    for size in ((32, 32), (100, 300)):
        images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        assert jax.eval_shape(model.apply, shapes_of("mobilenet_v1_025"), images).shape == (1, 1000)


@pytest.mark.parametrize("width", [0, -0.5])
def test_a_width_that_is_not_positive_is_refused(width):
    with pytest.raises(InputError, match="width: wanted a positive number, such as 1.0; got"):
        create_model("mobilenet_v1_100", width=width)
