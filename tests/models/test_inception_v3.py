from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.models.inception_v3 import AuxiliaryHead


@pytest.mark.parametrize(("overrides", "count"), [({}, 23_834_568), ({"aux": True}, 27_161_264)])
def test_parameter_count(overrides, count, count_parameters):
    assert count_parameters("inception_v3", **overrides) == count


def test_maps_at_299(map_sizes):
    assert map_sizes("inception_v3") == {
        "conv2b": (147, 64),
        "conv4a": (71, 192),
        "mixed5b": (35, 256),
        "mixed5c": (35, 288),
        "mixed5d": (35, 288),
        "mixed6a": (17, 768),
        "mixed6b": (17, 768),
        "mixed6c": (17, 768),
        "mixed6d": (17, 768),
        "mixed6e": (17, 768),
        "mixed7a": (8, 1280),
        "mixed7b": (8, 2048),
        "mixed7c": (8, 2048),
    }


def test_multiply_adds_are_those_that_torchvision_publishes(multiply_adds):
    assert multiply_adds("inception_v3") / 1e9 == pytest.approx(5.713, abs=0.0005)


def test_smallest_image_ends_in_one_pixel(shapes_of):
    """75 is torchvision's smallest too."""
    model, shapes = create_model("inception_v3"), shapes_of("inception_v3")
    assert model.min_size == 75
    images, smaller = (jax.ShapeDtypeStruct((1, n, n, 3), jnp.float32) for n in (75, 74))
    maps = jax.eval_shape(partial(model.apply, method="features"), shapes, images)
    assert maps["mixed7c"].shape == (1, 1, 1, 2048)
    with pytest.raises(InputError, match="does not fit into 2 pixels"):
        jax.eval_shape(model.clone(min_size=1).apply, shapes, smaller)


@pytest.mark.parametrize(
    ("module", "kernels"),
    [
        ("mixed6b", {"branch7x7_2": (1, 7, 128, 128), "branch7x7_3": (7, 1, 128, 192)}),
        ("mixed6c", {"branch7x7dbl_2": (7, 1, 160, 160), "branch7x7dbl_3": (1, 7, 160, 160)}),
        ("mixed7b", {"branch3x3_2a": (1, 3, 384, 384), "branch3x3dbl_3b": (3, 1, 384, 384)}),
    ],
)
def test_large_kernels_are_factorized(module, kernels, shapes_of):
    layers = shapes_of("inception_v3")["params"]["backbone"][module]
    assert {name: layers[name]["conv"]["kernel"].shape for name in kernels} == kernels


def test_auxiliary_head_matches_numpy(drawn_variables, numpy_conv):
    maps = np.random.default_rng(0).normal(size=(2, 17, 17, 6)).astype(np.float32)
    head = AuxiliaryHead(num_classes=3)
    variables = drawn_variables(head, maps)
    params, statistics = variables["params"], variables["batch_stats"]

    def unit(x, name):
        bn, moments = params[name]["bn"], statistics[name]["bn"]
        x = numpy_conv(x, params[name]["conv"]["kernel"])
        x = (x - moments["mean"]) / np.sqrt(np.asarray(moments["var"], np.float64) + 1e-3)
        return np.maximum(x * bn["scale"] + bn["bias"], 0)

    starts = (0, 3, 6, 9, 12)
    cells = [maps[:, i : i + 5, j : j + 5].mean((1, 2)) for i in starts for j in starts]
    x = unit(unit(np.stack(cells, 1).reshape(2, 5, 5, 6), "conv0"), "conv1")
    assert x.shape == (2, 1, 1, 768)
    want = x[:, 0, 0] @ params["fc"]["kernel"] + params["fc"]["bias"]
    np.testing.assert_allclose(head.apply(variables, maps), want, rtol=1e-4, atol=1e-4)


def traced_training(model, shapes, side):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    train = partial(
        model.apply,
        train=True,
        mutable=["batch_stats", "auxiliary"],
        rngs={"dropout": jax.random.key(0)},
    )
    return jax.eval_shape(train, shapes, images)[1]


def test_training_gives_the_logits_of_the_auxiliary_head(shapes_of):
    settings = {"aux": True, "num_classes": 7}
    model, shapes = create_model("inception_v3", **settings), shapes_of("inception_v3", **settings)
    auxiliary = traced_training(model, shapes, 299)["auxiliary"]
    assert {name: logits.shape for name, logits in auxiliary.items()} == {"mixed6e": (2, 7)}


def test_auxiliary_head_wants_images_of_299_in_training_only(shapes_of):
    model, shapes = create_model("inception_v3", aux=True), shapes_of("inception_v3", aux=True)
    with pytest.raises(InputError, match="299 x 299 pixels .* got maps of 16 x 16; .*aux=False"):
        traced_training(model, shapes, 298)
    jax.eval_shape(model.apply, shapes, jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32))


def test_auxiliary_head_without_classes_is_refused():
    with pytest.raises(InputError, match="aux: .*num_classes is 0"):
        create_model("inception_v3", aux=True, num_classes=0)
