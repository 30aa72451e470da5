"""Metrics as sums: exact however the examples were cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets import metrics
from jaxnets.metrics import Mean, Sum

COUNT = 12

examples = st.tuples(
    st.lists(st.floats(-100, 100, width=32), min_size=COUNT, max_size=COUNT),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=COUNT, max_size=COUNT),
)
cuts = st.lists(st.integers(0, COUNT), max_size=4).map(sorted)


def as_arrays(drawn):
    return (np.array(column, np.float32) for column in drawn)


@given(examples, cuts)
@settings(max_examples=30, deadline=None)
def test_a_mean_added_over_any_split_is_the_mean_of_the_whole(drawn, cuts):
    values, weights = as_arrays(drawn)
    parts = [
        {"loss": Mean.of(v, w)}
        for v, w in zip(np.split(values, cuts), np.split(weights, cuts), strict=True)
    ]
    mean = metrics.compute(metrics.add(parts))["loss"]
    if weights.sum() == 0:
        assert np.isnan(mean)
    else:
        wanted = np.average(values.astype(np.float64), weights=weights)
        assert mean == pytest.approx(wanted, rel=1e-5, abs=1e-4)


@given(examples)
@settings(max_examples=20, deadline=None)
def test_padded_examples_do_not_count_even_if_they_hold_nan(drawn):
    values, weights = as_arrays(drawn)
    padded = np.where(weights > 0, values, np.nan).astype(np.float32)
    mean = Mean.of(padded, weights)
    kept = weights > 0
    wanted = np.sum(values[kept].astype(np.float64) * weights[kept])
    assert float(mean.total) == pytest.approx(wanted, rel=1e-5, abs=1e-3)
    assert float(mean.weight) == weights.sum()


def test_a_nan_that_counts_is_not_hidden():
    mean = Mean.of(jnp.array([1.0, jnp.nan]), jnp.ones(2))
    assert np.isnan(mean.compute())


def test_booleans_are_averaged_as_zeros_and_ones():
    mean = Mean.of(jnp.array([True, False, True, True]), jnp.array([1.0, 1.0, 2.0, 0.0]))
    assert mean.compute() == 0.75


def test_low_precision_values_are_summed_in_the_float32_of_the_weights():
    mean = Mean.of(jnp.ones(1000, jnp.bfloat16), jnp.ones(1000))
    assert mean.total.dtype == jnp.float32
    assert float(mean.total) == 1000  # bfloat16 would stop at 256


def test_adding_is_exact_beyond_the_integers_of_float32():
    counts = [2.0**24, 1.0, 1.0, 1.0]
    parts = [{"right": Mean(jnp.float32(c), jnp.float32(c)), "n": Sum(jnp.float32(c))} for c in counts]
    total = metrics.add(parts)
    assert total["right"].weight == 2**24 + 3
    assert total["n"].compute() == 2**24 + 3


def test_adding_takes_any_iterable_and_nothing_at_all():
    parts = ({"n": Sum(jnp.array([1.0, k]))} for k in range(3))
    np.testing.assert_array_equal(metrics.add(parts)["n"].total, [3, 3])
    assert metrics.add([]) == {}


def test_compute_gives_floats_for_scalars_and_arrays_for_the_others():
    values = metrics.compute(
        {
            "loss": Mean(jnp.float32(3), jnp.float32(4)),
            "count": Sum(jnp.float32(7)),
            "confusion": Sum(jnp.array([[1.0, 2.0], [3.0, 4.0]])),
            "nothing": Mean(jnp.float32(0), jnp.float32(0)),
        }
    )
    assert type(values["loss"]) is float
    assert values["loss"] == 0.75
    assert type(values["count"]) is float
    assert values["count"] == 7
    np.testing.assert_array_equal(values["confusion"], [[1, 2], [3, 4]])
    assert np.isnan(values["nothing"])


def test_reducing_over_a_mapped_axis_is_adding_the_parts():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(2, 4, 6)).astype(np.float32)
    weights = np.abs(weights)
    weights[2] = 0  # a device with nothing but padding

    def measure(values, weights):
        return {"loss": Mean.of(values, weights), "each": Sum(values * weights)}

    reduced = jax.vmap(
        lambda v, w: metrics.reduce(measure(v, w), "batch"), axis_name="batch", out_axes=None
    )(values, weights)
    np.testing.assert_allclose(reduced["loss"].total, (values * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(reduced["loss"].weight, weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(reduced["each"].total, (values * weights).sum(0), rtol=1e-5)
    added = metrics.add(measure(v, w) for v, w in zip(values, weights, strict=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), dict(reduced), dict(added))
