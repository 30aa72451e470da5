"""Backbones whose strides become dilations. ResNet's are tested beside it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.models import create_model, feature_info
from jaxnets.models import densenet as densenet_file

SMALL = {
    "vgg16": {"num_classes": 0, "depths": (1, 1, 1, 2, 2)},
    "densenet121": {"depths": (1, 1, 2, 2), "growth": 8},
    "mobilenet_v1_100": {"width": 0.25},
    "mobilenet_v2_100": {"width": 0.25},
    "xception": {},
    "xception41": {"middle": 1},
    "resnetv2_50": {"block": "basic", "depths": (1, 1, 2, 2), "widths": (8, 8, 16, 16)},
}
LAST_STRIDES = {
    "vgg16": {"stage3": 8, "stage4": 16, "stage5": 32},
    "densenet121": {"denseblock2": 8, "denseblock3": 16, "denseblock4": 32},
    "mobilenet_v1_100": {"stage3": 8, "stage4": 16, "stage5": 32},
    "mobilenet_v2_100": {"stage3": 8, "stage5": 16, "stage7": 32, "last_conv": 32},
    "xception": {"block2": 8, "block3": 16, "block11": 16, "block12": 32, "conv4": 32},
    "xception41": {"block2": 8, "block3_sepconv2": 8, "block3": 16, "block5": 32, "block6": 32},
    "resnetv2_50": {"stage2": 8, "stage3": 16, "stage4": 32},
}


SLOW = ("mobilenet_v2_100", "xception", "xception41")
ROWS = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SMALL]


@pytest.mark.parametrize("name", ROWS)
def test_output_stride_bounds_the_stride_and_keeps_the_parameters(name, shapes_of):
    settings = SMALL[name]
    for stride in (8, 16, 32):
        info = feature_info(create_model(name, output_stride=stride, **settings))
        wanted = {key: min(value, stride) for key, value in LAST_STRIDES[name].items()}
        assert {key: info[key][1] for key in wanted} == wanted
        assert shapes_of(name, output_stride=stride, **settings) == shapes_of(name, **settings)


# The pools of VGG and Xception keep their windows, so the second that loses its stride sees less.
@pytest.mark.parametrize(
    ("name", "output_stride", "exact"),
    [
        pytest.param("vgg16", 16, {"stage4": 1, "stage5": 2}, marks=pytest.mark.slow),
        pytest.param("vgg16", 8, {"stage3": 1, "stage4": 2}, marks=pytest.mark.slow),
        ("densenet121", 8, {"denseblock2": 1, "denseblock3": 2, "denseblock4": 4}),
        pytest.param(
            "mobilenet_v1_100", 8, {"stage3": 1, "stage4": 2, "stage5": 4}, marks=pytest.mark.slow
        ),
        pytest.param(
            "mobilenet_v2_100", 8, {"stage3": 1, "stage5": 2, "last_conv": 4}, marks=pytest.mark.slow
        ),
        pytest.param("xception", 16, {"block11": 1, "block12": 2, "conv4": 2}, marks=pytest.mark.slow),
        ("xception", 8, {"block2": 1, "block3": 2, "block11": 2}),
        pytest.param(
            "xception41",
            8,
            {"block2": 1, "block3": 2, "block4": 2, "block5": 4, "block6": 4},
            marks=pytest.mark.slow,
        ),
        ("resnetv2_50", 8, {"stage2": 1, "stage3": 2, "stage4": 4}),
    ],
)
def test_dilated_nets_compute_what_the_net_with_strides_does_and_more_between(
    name, output_stride, exact, drawn_variables, monkeypatch
):
    # A transition that lost its pool reads one position where the pool took the mean of four.
    monkeypatch.setattr(densenet_file, "avg_pool", lambda x, window: x[:, ::window, ::window])
    images = np.random.default_rng(2).normal(size=(1, 64, 64, 3)).astype(np.float32)
    models = {s: create_model(name, output_stride=s, **SMALL[name]) for s in (32, output_stride)}
    variables = drawn_variables(models[32], images)
    maps = {
        s: jax.jit(functools.partial(model.apply, method="features"))(variables, images)
        for s, model in models.items()
    }
    for key, apart in exact.items():
        sparse, dense = maps[32][key], maps[output_stride][key]
        scale = float(jnp.max(jnp.abs(sparse)))
        assert scale > 0
        near = dense[:, ::apart, ::apart]
        assert near.shape == sparse.shape
        np.testing.assert_allclose(near, sparse, rtol=0, atol=1e-5 * scale)


def test_a_vgg_with_windows_of_3_rounds_sizes_up():
    model = create_model("vgg16", 0, depths=(1, 1, 1, 1, 1), pool_window=3, output_stride=8)
    shape = jax.eval_shape(
        lambda: model.backbone.init_with_output(jax.random.key(0), jnp.zeros((1, 97, 120, 3)))[0]
    )["stage5"].shape
    assert shape == (1, 13, 16, 512)
