import math
from pathlib import Path

import fcn_tail
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.layers import CONSTANTS
from jaxnets.models import create_model
from jaxnets.weights import from_torch
from jaxnets.weights.conversion import places_of

OPENCV = np.load(Path(__file__).parents[1] / "goldens/data/fcn_tail.npz")  # make_fcn_tail_goldens.py
NAMES = ("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16", "fcn8s_atonce_vgg16")
SMALL = {"num_classes": 11, "widths": (4, 5, 6, 7, 8), "hidden": 16}


@pytest.mark.parametrize("net", fcn_tail.NETS)
def test_the_tail_equals_opencvs_reading_of_the_caffe_model(net):
    channels = fcn_tail.CHANNELS
    settings = {
        "num_classes": fcn_tail.CLASSES,
        "widths": (2, 2, channels["pool3"], channels["pool4"], 2),
        "hidden": channels["fc7"],
    }
    model = create_model(f"{net}_vgg16", **settings)
    shapes = {place.key: place.reference_shape for place in places_of(model, "caffe")}
    tail = fcn_tail.state_dict(net)
    assert set(tail) <= set(shapes)
    body = {key: np.zeros(shape) for key, shape in shapes.items() if key.startswith(("conv", "fc"))}
    variables = from_torch(model.model_name, tail | body, **settings)
    names = {"pool3": "stage3", "pool4": "stage4", "fc7": "fc7"}
    maps = {names[key]: value for key, value in fcn_tail.maps().items()}
    scores = model.apply(
        variables, maps, method=lambda model, maps: model.decoder(maps, fcn_tail.SIZE, False)
    )
    assert scores.shape == (1, *fcn_tail.SIZE, fcn_tail.CLASSES)
    np.testing.assert_allclose(scores[:, ::3, ::3], OPENCV[net], atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_at_first_scores_are_zero_and_what_is_constant_is_as_the_authors_set_it(name):
    model = create_model(name, **{**SMALL, "num_classes": fcn_tail.CLASSES})
    images = jax.random.normal(jax.random.key(1), (1, 20, 33, 3))
    variables = model.init(jax.random.key(0), images)
    assert not np.any(jax.jit(model.apply)(variables, images))
    wanted = fcn_tail.state_dict(name.removesuffix("_vgg16"))
    constants = {place.path: place.key for place in places_of(model, "caffe")}
    constants = {path: key for path, key in constants.items() if path[0] == CONSTANTS}
    assert constants
    for (kind, *path, leaf), key in constants.items():
        value = variables[kind]
        for part in path:
            value = value[part]
        value = np.moveaxis(value[leaf], (2, 3), (0, 1)) if leaf == "kernel" else value[leaf]
        expected = wanted[key] if leaf == "kernel" else np.full(value.shape, wanted[key][0])
        np.testing.assert_allclose(value, expected, atol=1e-7)


def test_every_size_has_scores_all_over():
    for name in NAMES:
        model = create_model(name, **SMALL)
        for size in ((1, 1), (2, 31), (97, 120), (500, 375)):
            images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)

            def decoded(images, model=model, size=size):
                def run(model, images):
                    return model.decoder(model.backbone(images, False), size, False)

                return model.init_with_output(jax.random.key(0), images, method=run)[0]

            assert jax.eval_shape(decoded, images).shape == (1, *size, 11)


def test_parameters_and_constants_are_counted_apart():
    model = create_model("fcn8s_vgg16")
    counts = {"params": 0, CONSTANTS: 0}
    for place in places_of(model, "caffe"):
        counts[place.path[0]] += math.prod(place.shape)
    assert counts == {"params": 134_362_751, CONSTANTS: 134_489_759 - 134_362_751}


def test_in_bfloat16_and_under_strict_promotion_scores_are_float32():
    model = create_model("fcn8s_atonce_vgg16", **SMALL)
    images = jnp.ones((1, 16, 16, 3), jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), images.astype(jnp.float32))
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), variables["params"]
    )
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        logits = jax.eval_shape(model.apply, variables | {"params": params}, images)
    assert (logits.shape, logits.dtype) == ((1, 16, 16, 11), jnp.float32)


def test_pictures_are_blue_first_of_their_own_size_without_the_mean():
    resizing = create_model("fcn8s_vgg16").resizing
    assert (resizing.min_size, resizing.max_size, resizing.order) == (None, None, "BGR")
    np.testing.assert_allclose(np.multiply(resizing.mean, 255), [104.00699, 116.66877, 122.67892])
