import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model


@pytest.mark.parametrize("name", ["refinenet", "refinenet_lw"])
@pytest.mark.parametrize(
    "backbone",
    [
        "resnet18",
        pytest.param("densenet121", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2_100", marks=pytest.mark.slow),
        "vgg16_bn",
    ],
)
def test_any_backbone_gives_scores_of_the_size_of_the_picture(name, backbone):
    model = create_model(name, num_classes=11, backbone=backbone, width=16)
    images = jax.ShapeDtypeStruct((2, 64, 75, 3), jnp.float32)
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert (logits.shape, logits.dtype) == ((2, 64, 75, 11), jnp.float32)


@pytest.mark.slow
def test_dropout_is_of_the_two_coarsest_maps_and_before_the_scores():
    def masks(name):
        model = create_model(name, num_classes=3, backbone="resnet18", width=8)
        images = jnp.ones((1, 32, 32, 3))
        variables = jax.eval_shape(model.init, jax.random.key(0), images)

        def run(variables, images):
            return model.apply(
                variables, images, True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"]
            )

        return str(jax.make_jaxpr(run)(variables, jnp.ones((2, 64, 64, 3)))).count("random_bits")

    assert (masks("refinenet"), masks("refinenet_lw")) == (3, 2)


def test_in_bfloat16_and_under_strict_promotion_scores_are_float32():
    model = create_model("refinenet", num_classes=3, backbone="resnet18", width=8)
    images = jnp.ones((1, 64, 64, 3), jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), images.astype(jnp.float32))
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), variables["params"]
    )
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        logits = jax.eval_shape(model.apply, variables | {"params": params}, images)
    assert (logits.shape, logits.dtype) == ((1, 64, 64, 3), jnp.float32)


def test_published_rows_keep_the_size_of_pictures():
    assert create_model("refinenet_resnet101").resizing.min_size is None
    assert create_model("refinenet").resizing.min_size == 520


def test_a_backbone_without_a_map_of_stride_4_is_refused():
    with pytest.raises(InputError, match=r"backbone: lenet5 has maps of strides .* none of"):
        create_model("refinenet", backbone="lenet5")


def test_more_channels_at_the_coarsest_map():
    model = create_model("refinenet", num_classes=3, backbone="resnet18", width=8)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 64, 64, 3)))
    decoder = variables["params"]["decoder"]
    widths = [decoder[f"level{level}_reduce"]["kernel"].shape[-1] for level in (1, 2, 3, 4)]
    np.testing.assert_array_equal(widths, [16, 8, 8, 8])
