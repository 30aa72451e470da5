"""Schedules against their formulas, and PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.training.schedules import SCHEDULES, create_schedule


def test_the_constant_schedule_is_constant():
    schedule = create_schedule("constant", 0.3, 5)
    assert [float(schedule(step)) for step in range(6)] == pytest.approx([0.3] * 6)


def test_the_cosine_falls_from_the_peak_to_zero_at_the_end_of_the_run():
    schedule = create_schedule("cosine", 0.4, 8)
    wanted = [0.4 * (1 + np.cos(np.pi * step / 8)) / 2 for step in range(9)]
    values = [float(schedule(step)) for step in range(9)]
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-7)
    assert values[0] == pytest.approx(0.4)
    assert values[8] == pytest.approx(0, abs=1e-7)
    assert np.all(np.diff(values) < 0)


@pytest.mark.parametrize("name", sorted({*SCHEDULES} - {"one_cycle"}))
def test_the_warm_up_rises_in_a_line_from_zero_to_the_peak(name):
    schedule = create_schedule(name, 0.5, 100, warmup_steps=10)
    rising = [float(schedule(step)) for step in range(11)]
    np.testing.assert_allclose(rising, np.linspace(0, 0.5, 11), rtol=1e-5, atol=1e-7)
    assert max(float(schedule(step)) for step in range(10, 101)) == pytest.approx(0.5)


def test_the_cosine_after_a_warm_up_still_ends_with_the_run():
    schedule = create_schedule("cosine", 0.5, 100, warmup_steps=10)
    assert float(schedule(55)) == pytest.approx(0.25, rel=1e-5)  # half way down
    assert float(schedule(100)) == pytest.approx(0, abs=1e-7)


def test_the_step_schedule_drops_at_half_and_at_three_quarters():
    schedule = create_schedule("step", 1.0, 8)
    values = [float(schedule(step)) for step in range(8)]
    assert values == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("total", "warmup", "boundaries"),
    [
        (20, 0, (5, 10, 15)),
        (20, 3, (19, 7)),  # in any order
        (20, 4, (4, 20)),  # as the warm-up ends, and as the run ends
        (20, 0, (0, 0, 8, 8)),  # two on one step
        (20, 12, (3, 6, 16)),  # two before the warm-up has ended
        (3, 1, (2, 2)),  # a short run rounds boundaries together
    ],
)
def test_every_boundary_that_was_passed_counts_once(total, warmup, boundaries):
    schedule = create_schedule(
        "step",
        0.8,
        total,
        warmup_steps=warmup,
        boundaries=tuple(step / total for step in boundaries),
        factor=0.5,
    )
    values = np.broadcast_to(jax.jit(schedule)(jnp.arange(25)), 25)
    passed = [sum(boundary <= step for boundary in boundaries) for step in range(25)]
    wanted = 0.8 * 0.5 ** np.array(passed)
    np.testing.assert_allclose(values[warmup:], wanted[warmup:], rtol=1e-5)


def test_schedules_follow_a_traced_step():
    for name in SCHEDULES:
        schedule = create_schedule(name, 0.5, 12, warmup_steps=0 if name == "one_cycle" else 3)
        traced = jax.jit(jax.vmap(schedule))(jnp.arange(12))
        np.testing.assert_allclose(traced, [schedule(step) for step in range(12)], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cosin", {}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ("cosine", {"learning_rate": -1.0}, "learning_rate is -1.0"),
        ("cosine", {"warmup_steps": 10}, "warmup_steps is 10 of 10"),
        ("step", {"warmup_steps": -1}, "warmup_steps is -1"),
        ("constant", {"total_steps": 0}, "0 of 0 steps"),
        ("constant", {"end": 0.1}, "constant has no setting 'end'; it has none"),
        ("polynomial", {"pow": 2}, "polynomial has no setting 'pow'; it has power, end"),
        ("polynomial", {"power": "two"}, "power is 'two'; it must be at least 0"),
        ("exponential", {"end": 0}, "end is 0; it must be above 0 and at most 1"),
        ("restarts", {"cycles": 11}, "cycles is 11; .* from 1 to the 10 steps"),
        ("restarts", {"cycles": 6}, "cycles is 6 with growth 2.0; 10 steps are too few"),
        ("one_cycle", {"warmup_steps": 2}, "one_cycle rises by itself"),
        ("step", {"boundaries": (0.5, 2)}, "boundaries is 2; .*at most 1"),
        ("step", {"boundaries": 0.5}, "boundaries is 0.5; wanted a list of fractions"),
    ],
)
def test_a_wrong_name_or_number_of_a_schedule_is_refused(name, options, words):
    with pytest.raises(InputError, match=words):
        create_schedule(name, **{"learning_rate": 0.1, "total_steps": 10, **options})


def test_polynomial_is_deeplabs_poly():
    schedule = create_schedule("polynomial", 0.2, 10)
    wanted = 0.2 * (1 - np.arange(11) / 10) ** 0.9
    np.testing.assert_allclose([schedule(step) for step in range(11)], wanted, rtol=1e-5, atol=1e-7)


def test_exponential_falls_by_one_factor_to_its_end():
    values = np.array([create_schedule("exponential", 0.2, 10, end=0.1)(step) for step in range(11)])
    np.testing.assert_allclose(values[1:] / values[:-1], np.full(10, 0.1**0.1), rtol=1e-5)
    assert values[-1] == pytest.approx(0.02)


def test_restarts_double_their_cycles():
    values = [create_schedule("restarts", 0.4, 14)(step) for step in range(14)]
    lengths = (2, 4, 8)
    wanted = [0.2 * (1 + np.cos(np.pi * step / length)) for length in lengths for step in range(length)]
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-7)


def test_one_cycle_is_pytorchs():
    wanted = [0.02, 0.2111705569, 0.4801307124, 0.4898732839, 0.4422378624, 0.3630435246]
    wanted += [0.2652913540, 0.1650290145, 0.0787162564, 0.0205227716, 0.000002]
    # That is of torch 2.14's OneCycleLR(max_lr=0.5, total_steps=11).
    found = [create_schedule("one_cycle", 0.5, 11)(step) for step in range(11)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
