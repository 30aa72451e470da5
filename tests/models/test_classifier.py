from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.models import Classifier


class Thirds(nn.Module):
    """A backbone without parameters whose shallow map sorts after its deep one."""

    @nn.compact
    def __call__(self, images, train=False):
        return {"wide": images / 3, "middle": images * 2, "deep": images[:, ::2, ::2] * 3}


class Scores(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, features, train=False):
        return nn.Dense(self.num_classes, name="fc")(features.mean((1, 2)))


def classifier(**settings):
    return Classifier(backbone=Thirds(), head=Scores(4), num_classes=4, input_size=(8, 8, 3), **settings)


def with_auxiliary():
    return classifier(auxiliary={"wide": Scores(4), "middle": Scores(4)})


IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def test_head_reads_the_last_map():
    model = classifier()
    variables = model.init(jax.random.key(0), IMAGES)
    fc = variables["params"]["head"]["fc"]
    want = (IMAGES[:, ::2, ::2] * 3).mean((1, 2)) @ fc["kernel"] + fc["bias"]
    np.testing.assert_allclose(model.apply(variables, IMAGES), want, rtol=1e-5, atol=1e-6)


def test_features_keep_their_order_under_jit():
    model = classifier()
    variables = model.init(jax.random.key(0), IMAGES)
    for apply in (model.apply, jax.jit(model.apply, static_argnames="method")):
        features = apply(variables, IMAGES, method="features")
        assert list(features) == ["wide", "middle", "deep"]
        np.testing.assert_allclose(features["middle"], IMAGES * 2)


def test_parameters_are_those_of_the_named_parts():
    model = with_auxiliary()
    for train in (False, True):
        variables = model.init(jax.random.key(0), IMAGES, train=train)
        assert set(variables) == {"params"}
        assert set(variables["params"]) == {"head", "auxiliary_wide", "auxiliary_middle"}


def test_auxiliary_logits_are_sown_in_training_by_feature_name():
    model = with_auxiliary()
    variables = model.init(jax.random.key(0), IMAGES)
    logits, sown = model.apply(variables, IMAGES, train=True, mutable=["auxiliary"])
    assert logits.shape == (2, 4)
    assert set(sown["auxiliary"]) == {"wide", "middle"}
    fc = variables["params"]["auxiliary_middle"]["fc"]
    want = (IMAGES * 2).mean((1, 2)) @ fc["kernel"] + fc["bias"]
    np.testing.assert_allclose(sown["auxiliary"]["middle"], want, rtol=1e-5, atol=1e-6)
    assert sown["auxiliary"]["middle"].dtype == jnp.float32


def test_auxiliary_heads_rest_in_evaluation():
    model = with_auxiliary()
    variables = model.init(jax.random.key(0), IMAGES)
    logits, sown = model.apply(variables, IMAGES, mutable=["auxiliary"])
    assert sown == {}
    del variables["params"]["auxiliary_wide"], variables["params"]["auxiliary_middle"]
    np.testing.assert_array_equal(model.apply(variables, IMAGES), logits)


def test_a_training_step_that_ignores_the_auxiliary_logits_still_gets_logits():
    model = with_auxiliary()
    variables = model.init(jax.random.key(0), IMAGES)
    np.testing.assert_array_equal(
        model.apply(variables, IMAGES, train=True), model.apply(variables, IMAGES)
    )


def test_bfloat16_gives_float32_logits():
    model = with_auxiliary()
    variables = jax.tree.map(jnp.bfloat16, model.init(jax.random.key(0), IMAGES))
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    logits, sown = model.apply(variables, images, train=True, mutable=["auxiliary"])
    assert {x.dtype for x in jax.tree.leaves((logits, sown))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"wanted \[N, H, W, C\].*\(8, 8, 3\).*images\[None\]"),
        (np.zeros((8, 8), np.float32), r"wanted \[N, H, W, C\].*\(8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"wanted floats, got uint8.*astype\(float32\) / 255"),
        (np.zeros((1, 8, 8, 3), bool), "wanted floats, got bool"),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "features"])
def test_images_of_another_rank_or_type_are_refused(images, message, method):
    with pytest.raises(InputError, match=message):
        jax.jit(partial(classifier().apply, method=method))({}, images)


@pytest.mark.parametrize(
    ("limits", "size", "message"),
    [
        ({"min_size": 8}, (7, 8), "net takes at least 8 x 8 pixels, got 7 x 8"),
        ({"min_size": 8}, (9, 7), "net takes at least 8 x 8 pixels, got 9 x 7"),
        ({"min_size": 8, "max_size": 8}, (8, 9), "net takes 8 x 8 pixels, got 8 x 9"),
        ({"min_size": 4, "max_size": 8}, (9, 4), "at least 4 x 4 and at most 8 x 8 pixels, got"),
    ],
)
def test_images_of_a_size_that_does_not_fit_are_refused(limits, size, message):
    model = classifier(model_name="net", **limits)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *size, 3), np.float32))


def test_images_at_the_limits_are_taken():
    model = classifier(min_size=4, max_size=8)
    for size in ((4, 4), (4, 8), (8, 8)):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *size, 3), np.float32))
