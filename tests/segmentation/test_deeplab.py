"""DeepLab v2 and v3+ on any backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import weights
from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.weights import files, from_torch, to_torch

KINDS = ("deeplabv2", "deeplabv3plus")
DILATED = ("resnet18", "vgg16", "densenet121", "mobilenet_v1_100", "mobilenet_v2_100", "xception41")


def shape_of(model, size=(65, 97)):
    images = jnp.ones((2, *size, 3))
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images)[0])


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [
        *(
            pytest.param(KINDS[0], name, marks=[pytest.mark.slow] * (name != "vgg16"))
            for name in DILATED
        ),
        (KINDS[0], "resnetv2_50"),
        *((KINDS[1], backbone) for backbone in ("resnet18", "xception41", "resnetv2_50")),
    ],
)
def test_any_backbone_scores_every_pixel(kind, backbone):
    logits = shape_of(create_model(kind, backbone=backbone, num_classes=5))
    assert (logits.shape, logits.dtype) == ((2, 65, 97, 5), jnp.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_output_stride_is_that_of_the_last_map(kind, output_stride):
    model = create_model(kind, backbone="resnet18", output_stride=output_stride)
    images = jnp.ones((1, 96, 128, 3))
    maps = jax.eval_shape(lambda: model.backbone.init_with_output(jax.random.key(0), images)[0])
    assert maps["stage4"].shape[1:3] == (96 // output_stride, 128 // output_stride)


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"output_stride": 8}, (12, 24, 36)),
        ({}, (6, 12, 18)),
        ({"output_stride": 32}, (3, 6, 9)),
        ({"rates": (2, 3)}, (2, 3)),
        ({"backbone": "zfnet"}, (3, 6, 9)),
    ],
)
def test_rates_of_v3_plus_follow_the_output_stride(settings, rates):
    assert create_model("deeplabv3plus", **settings).decoder.rates == rates


def test_small_nets_are_read_at_their_own_strides():
    settings = {"backbone_settings": {"small_input": True}, "backbone": "resnet18"}
    for kind in KINDS:
        assert shape_of(create_model(kind, **settings), (33, 40)).shape == (2, 33, 40, 21)


@pytest.mark.parametrize("kind", [*KINDS, "unet"])
def test_a_backbone_whose_last_map_is_one_position_is_refused(kind):
    message = "backbone: vit_base_patch16_224 has maps of strides 16, 224 and none of 32; give another"
    with pytest.raises(InputError, match=message):
        create_model(kind, backbone="vit_base_patch16_224")


def test_pictures_of_v2_are_those_of_caffe():
    resizing = create_model("deeplabv2_resnet101").resizing
    assert (resizing.min_size, resizing.max_size, resizing.order) == (None, None, "BGR")
    pixel = np.array([104.008, 116.669, 122.675]) / 255
    np.testing.assert_allclose((pixel - resizing.mean) / resizing.std, 0, atol=1e-6)
    np.testing.assert_allclose((1 - np.array(resizing.mean)) / resizing.std, 255 - 255 * pixel)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_in_bfloat16_give_scores_in_float32(kind):
    model = create_model(kind, backbone="resnet18", num_classes=3)

    def scores():
        variables = model.init(jax.random.key(0), jnp.ones((1, 64, 64, 3)))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])
        return model.apply(variables | {"params": params}, jnp.ones((1, 64, 64, 3), jnp.bfloat16))

    assert jax.eval_shape(scores).dtype == jnp.float32


@pytest.mark.slow
def test_a_row_is_written_and_read_by_the_library_of_its_backbone(tmp_path):
    assert weights.usual_library("deeplabv3plus_resnet50", "net.pth") == "smp"
    assert weights.usual_library("deeplabv3plus_xception65", "net.pth") == "chainercv"
    of_five = create_model("deeplabv3plus_resnet50", num_classes=5)
    variables = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, np.float32),
        jax.eval_shape(of_five.init, jax.random.key(0), jnp.ones((2, 64, 64, 3))),
    )
    state = to_torch("deeplabv3plus_resnet50", variables, "smp", num_classes=5)
    files.write_safetensors(tmp_path / "net.safetensors", state)
    loaded = weights.load("deeplabv3plus_resnet50", tmp_path / "net.safetensors")
    assert loaded.model == of_five
    del state["segmentation_head.0.weight"]
    with pytest.raises(InputError, match="does not fit deeplabv3plus_resnet50 by smp's names"):
        from_torch("deeplabv3plus_resnet50", state, num_classes=5)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_refused_for_backbones_that_no_library_has(kind):
    with pytest.raises(InputError, match="names"):
        from_torch(kind, {}, backbone="densenet121")
    with pytest.raises(InputError, match="names"):
        to_torch(kind, {}, {"deeplabv2": "deeplab"}.get(kind, "smp"), backbone="densenet121")
