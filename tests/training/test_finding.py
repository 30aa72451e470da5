"""A range test trains as `fit` does, stops where the loss goes up, and suggests a tenth of the best."""

import math

import numpy as np
import optax
import pytest

from jaxnets.errors import InputError
from jaxnets.training import RateFinding, find_learning_rate, fit


def find(task, source, one_device, **options):
    options = {"optimizer": optax.sgd, "batch_size": 32, "parallel": one_device, **options}
    return find_learning_rate(task, source, **options)


@pytest.mark.slow
def test_losses_are_those_of_fit_with_a_rising_rate(task, source, one_device):
    found = find(task, source, one_device, low=1e-3, high=0.1, steps=12, seed=3)
    np.testing.assert_allclose(found.rates, 1e-3 * 100 ** (np.arange(12) / 11), rtol=1e-6)
    _, history = fit(
        task,
        source,
        optimizer=optax.sgd(lambda step: 1e-3 * 100 ** (step / 11)),
        epochs=3,
        batch_size=32,
        seed=3,
        log_every=1,
        parallel=one_device,
        progress=False,
    )
    np.testing.assert_allclose(found.losses, [record["loss"] for record in history.steps], rtol=1e-4)


def test_it_ends_where_the_loss_has_left(task, source, one_device):
    found = find(task, source, one_device, low=1e-2, high=1e6, steps=60)
    assert len(found.rates) == len(found.losses) < 60
    assert all(map(math.isfinite, found.losses))


def test_a_tenth_of_the_rate_of_the_least_average_is_suggested():
    losses = (4.0, 4.0, 2.0, 1.0, 9.0, 20.0)
    found = RateFinding((1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0), losses)
    weights = 0.9 ** np.arange(6)
    means = [
        np.average(losses[: step + 1], weights=weights[: step + 1][::-1]) for step in range(len(losses))
    ]
    np.testing.assert_allclose(found.smoothed, means, rtol=1e-12)
    assert found.suggestion == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 0.0}, "low is 0.0 and high is 10.0; wanted 0 < low < high"),
        ({"low": 1.0, "high": 0.5}, "low is 1.0 and high is 0.5"),
        ({"steps": 9}, "steps is 9; it must be at least 10"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_is_refused(options, words, task, source, one_device):
    with pytest.raises(InputError, match=words):
        find(task, source, one_device, **options)
