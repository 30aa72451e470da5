"""Casting of trees, and of nothing in them that is no float."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.training.precision import cast, compute_dtype


def test_the_two_precisions_are_known_by_name():
    assert compute_dtype("float32") == jnp.float32
    assert compute_dtype("bfloat16") == jnp.bfloat16


def test_another_precision_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown precision 'float16'; did you mean .*'bfloat16'"):
        compute_dtype("float16")


def test_casting_rounds_floats_and_keeps_structure_and_everything_else():
    tree = {
        "kernel": jnp.array([1.0, 1 + 2**-9, 3.0e38]),
        "nested": (jnp.ones((2, 2), jnp.float16), np.float32(2.5)),
        "count": jnp.int32(2**24 + 1),
        "flag": jnp.array([True]),
        "key": jax.random.key(0),
    }
    out = cast(tree, jnp.bfloat16)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    assert out["kernel"].dtype == out["nested"][0].dtype == out["nested"][1].dtype == jnp.bfloat16
    # 8 bits of mantissa, and the range of float32.
    np.testing.assert_array_equal(out["kernel"].astype(jnp.float32)[:2], [1, 1])
    assert jnp.isfinite(out["kernel"][2])
    assert out["count"].dtype == jnp.int32
    assert int(out["count"]) == 2**24 + 1
    assert out["flag"].dtype == bool
    assert out["key"].dtype == tree["key"].dtype


def test_the_gradient_through_a_cast_is_in_the_dtype_of_the_parameters():
    params = {"w": jnp.array([1 + 2**-9, -2.0])}

    def loss(params):
        w = cast(params, jnp.bfloat16)["w"]
        assert w.dtype == jnp.bfloat16
        return jnp.sum(w.astype(jnp.float32) ** 2)

    gradient = jax.grad(loss)(params)["w"]
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, [2, -4])  # of the rounded weight


def test_the_same_dtype_changes_no_bit():
    values = jnp.asarray(np.random.default_rng(0).normal(size=100), jnp.float32)
    np.testing.assert_array_equal(cast({"w": values}, jnp.float32)["w"], values)
