import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.weights import from_keras, from_torch, to_torch

KERAS = {"tf_padding": True, "epsilon": 1e-3}
LEAVES = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}


@functools.cache
def keras_weights(offset=0):
    """Xception's, as Keras has them: every layer's name and layout written out by hand.

    The layers that the application leaves unnamed are numbered from `offset`.
    """
    rng = np.random.default_rng(0)
    weights = {}

    def add(path, *shape):
        weights[path] = rng.normal(size=shape).astype(np.float32)

    def norm(layer, width):
        for leaf in LEAVES.values():
            add(f"{layer}/{leaf}", width)

    def unnamed(kind, number):
        return f"{kind}_{number + offset}" if number + offset else kind

    def separable(layer, inputs, outputs):
        add(f"{layer}/depthwise_kernel", 3, 3, inputs, 1)
        add(f"{layer}/pointwise_kernel", 1, 1, inputs, outputs)
        norm(f"{layer}_bn", outputs)

    for layer, inputs, outputs in (("block1_conv1", 3, 32), ("block1_conv2", 32, 64)):
        add(f"{layer}/kernel", 3, 3, inputs, outputs)
        norm(f"{layer}_bn", outputs)
    inputs, shortcuts = 64, 0
    blocks = [(128, 128), (256, 256), (728, 728), *[(728,) * 3] * 8, (728, 1024), (1536, 2048)]
    for block, widths in enumerate(blocks, start=2):
        if block in (2, 3, 4, 13):
            add(f"{unnamed('conv2d', shortcuts)}/kernel", 1, 1, inputs, widths[-1])
            norm(unnamed("batch_normalization", shortcuts), widths[-1])
            shortcuts += 1
        for i, outputs in enumerate(widths, start=1):
            separable(f"block{block}_sepconv{i}", inputs, outputs)
            inputs = outputs
    add("predictions/kernel", 2048, 1000)
    add("predictions/bias", 1000)
    return weights


def test_every_weight_finds_its_place():
    weights = keras_weights()
    variables = from_keras("xception", weights, **KERAS)
    params = variables["params"]["backbone"]
    sepconv = params["block12"]["sepconv2"]
    np.testing.assert_array_equal(
        sepconv["depthwise"]["kernel"],
        weights["block13_sepconv2/depthwise_kernel"].reshape(3, 3, 1, 728),
    )
    for ours, theirs in (
        (sepconv["pointwise"]["kernel"], "block13_sepconv2/pointwise_kernel"),
        (params["conv1"]["kernel"], "block1_conv1/kernel"),
        (params["block12"]["shortcut_conv"]["kernel"], "conv2d_3/kernel"),
        (params["block12"]["shortcut_bn"]["scale"], "batch_normalization_3/gamma"),
        (params["bn4"]["bias"], "block14_sepconv2_bn/beta"),
        (variables["params"]["head"]["fc"]["kernel"], "predictions/kernel"),
        (variables["params"]["head"]["fc"]["bias"], "predictions/bias"),
    ):
        np.testing.assert_array_equal(ours, weights[theirs], err_msg=theirs)
    statistics = variables["batch_stats"]["backbone"]["block1"]["bn1"]
    np.testing.assert_array_equal(statistics["var"], weights["block2_sepconv1_bn/moving_variance"])


def test_numbers_of_unnamed_layers_may_begin_anywhere():
    # From 8, so that the order of the numbers, 8 to 11, is not that of their names.
    shifted = from_keras("xception", keras_weights(offset=8), **KERAS)
    jax.tree.map(np.testing.assert_array_equal, shifted, from_keras("xception", keras_weights()))


def test_depthwise_convolutions_of_keras_3_are_told_by_their_shape():
    rng = np.random.default_rng(0)
    state_dict = {
        name: rng.normal(size=value.shape).astype(np.float32)
        for name, value in to_torch("mobilenet_v1_025", mobilenet_variables(), "keras").items()
        if not name.endswith("num_batches_tracked")
    }
    leaves = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    weights = {}
    for name, value in state_dict.items():
        layer, _, leaf = name.rpartition(".")
        if value.ndim == 4:
            order = (2, 3, 0, 1) if "conv_dw" in layer else (2, 3, 1, 0)
            weights[f"{layer}/kernel"] = value.transpose(order)
        elif layer.endswith("_bn"):
            leaf = {"weight": "gamma", "bias": "beta"}.get(leaf, leaf)
            weights[f"{layer}/{leaves.get(leaf, leaf)}"] = value
        else:
            weights[f"{layer}/{leaf}"] = value
    assert weights["conv_dw_2/kernel"].shape == (3, 3, 16, 1)
    jax.tree.map(
        np.testing.assert_array_equal,
        from_keras("mobilenet_v1_025", weights, **KERAS),
        from_torch("mobilenet_v1_025", state_dict, "keras"),
    )


def mobilenet_variables():
    from jaxnets.models import create_model

    model = create_model("mobilenet_v1_025")
    shapes = jax.eval_shape(
        functools.partial(nn.Module.init, model), jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32)
    )
    return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)


def test_what_does_not_fit_is_named():
    with pytest.raises(InputError, match=r"weights: wanted paths such as .*got 'conv1/filters'"):
        from_keras("mobilenet_v1_100", {"conv1/filters": np.zeros(3)})
    with pytest.raises(InputError, match=r"does not fit mobilenet_v1_100 by keras's names: .*missing"):
        from_keras("mobilenet_v1_100", {"conv1/kernel": np.zeros((3, 3, 3, 32))})
    with pytest.raises(InputError, match="unknown library of vgg11 'keras'"):
        from_keras("vgg11", {})
