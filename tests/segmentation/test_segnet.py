import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model

SMALL = {"num_classes": 11, "widths": (8, 12, 16), "depths": (2, 1, 1)}


def images(*shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(1), shape, jnp.float32).astype(dtype)


@pytest.mark.parametrize("name", ["segnet_vgg16", "segnet_basic"])
@pytest.mark.parametrize("size", [(64, 64), (29, 33), (1, 5)])
def test_scores_have_the_size_of_the_picture_whatever_it_is(name, size):
    model = create_model(name, **SMALL)
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images(2, *size, 3))
    assert (logits.shape, logits.dtype) == ((2, *size, 11), jnp.float32)


def test_the_published_chain_of_sizes():
    model = create_model("segnet_vgg16")
    maps, _ = jax.eval_shape(model.backbone.init_with_output, jax.random.key(0), images(1, 360, 480, 3))
    sizes = [maps[f"stage{stage}"].shape[1:3] for stage in range(1, 6)]
    assert sizes == [(180, 240), (90, 120), (45, 60), (23, 30), (12, 15)]
    assert all(maps[f"indices{stage}"].dtype == jnp.int32 for stage in range(1, 6))


@pytest.mark.slow
def test_in_bfloat16_and_under_strict_promotion_scores_are_float32_of_the_same_picture():
    model = create_model("segnet_vgg16", **SMALL)
    variables = model.init(jax.random.key(0), images(2, 16, 16, 3))
    wanted = jax.jit(model.apply)(variables, images(2, 16, 16, 3))
    half = {
        "params": jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"]),
        "batch_stats": variables["batch_stats"],
    }
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        logits = jax.jit(model.apply)(half, images(2, 16, 16, 3, dtype=jnp.bfloat16))
    assert logits.dtype == jnp.float32
    assert np.corrcoef(np.ravel(logits), np.ravel(wanted))[0, 1] > 0.9


def test_pictures_of_published_weights_are_blue_first_and_not_normalized():
    resizing = create_model("segnet_vgg16").resizing
    assert (resizing.order, resizing.mean) == ("BGR", (0.0, 0.0, 0.0))
    np.testing.assert_allclose(resizing.std, [1 / 255] * 3)
    assert create_model("segnet").resizing.order == "RGB"


def test_depths_and_widths_must_be_as_many():
    with pytest.raises(InputError, match="widths: 5 depths and 2 widths"):
        create_model("segnet_vgg16", widths=(8, 8))
