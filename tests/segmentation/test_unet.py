"""U-Net on any backbone, in any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.layers import resize_nearest
from jaxnets.models import create_model, feature_info

SMALL_RESNET = {"depths": (1, 1, 1), "small_input": True}


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("resnet34", {}),
        ("densenet121", {}),
        ("vgg16_bn", {}),
        ("mobilenet_v2_100", {}),
        ("xception", {}),
        ("xception41", {}),
        ("resnetv2_50", {}),
        ("mobilenet_v3_large", {}),
        ("resnet18", SMALL_RESNET),
        ("wrn_16_8", {"widths": (16, 32, 64)}),
    ],
)
def test_scores_come_in_the_size_of_the_images(backbone, settings):
    model = create_model("unet", backbone=backbone, backbone_settings=settings, num_classes=5)
    images = jnp.ones((2, 65, 97, 3))
    logits = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images)[0])
    assert (logits.shape, logits.dtype) == ((2, 65, 97, 5), jnp.float32)


@pytest.mark.parametrize(
    ("backbone", "settings", "steps"),
    [
        ("resnet34", {}, [16, 8, 4, 2, 1]),
        ("resnet18", SMALL_RESNET, [2, 1]),
        ("wrn_16_8", {}, [2, 1]),
    ],
)
def test_every_map_of_the_backbone_is_read_and_widths_are_by_stride(backbone, settings, steps):
    model = create_model("unet", backbone=backbone, backbone_settings=settings)
    assert [stride for stride, *_ in model.decoder.steps] == steps
    widths = (256, 128, 64, 32, 16)[-len(steps) :]
    assert tuple(width for _, width, _ in model.decoder.steps) == widths
    strides = {stride for _, stride in feature_info(create_model(backbone, 0, **settings)).values()}
    read = {stride for stride, _, name in model.decoder.steps if name}
    assert read == strides - {max(strides)}


def test_too_few_widths_are_refused():
    with pytest.raises(InputError, match="widths: resnet50 has maps up to stride 32, which ask for 5"):
        create_model("unet", widths=(8, 8))


@pytest.mark.parametrize(("before", "after"), [(4, 7), (4, 8), (5, 5), (3, 1), (7, 13)])
def test_repeated_takes_the_position_above_and_to_the_left(before, after):
    x = np.random.default_rng(0).normal(size=(1, before, 2, 3)).astype(np.float32)
    wanted = x[:, [i * before // after for i in range(after)]]
    np.testing.assert_array_equal(resize_nearest(jnp.asarray(x), (after, 2)), wanted)


def test_shares_of_the_way_are_rounded_as_torchs():
    x = jnp.arange(2.0).reshape(1, 2, 1, 1)
    assert np.sum(np.asarray(resize_nearest(x, (82, 1))) == 0) == 42  # of torch 2.14; exactly 41


def test_parameters_in_bfloat16_give_scores_in_float32():
    model = create_model("unet", backbone="resnet18", backbone_settings=SMALL_RESNET, num_classes=3)

    def scores():
        variables = model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])
        return model.apply(variables | {"params": params}, jnp.ones((1, 32, 32, 3), jnp.bfloat16))

    assert jax.eval_shape(scores).dtype == jnp.float32
