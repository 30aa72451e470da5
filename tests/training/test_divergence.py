"""A run stops when its loss is far above its start, and not when it varies as good ones do."""

import json

import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.training import DivergenceError
from jaxnets.training.divergence import refuse_divergence
from jaxnets.training.loop import Schedule


def stopped_at(losses, log_every=1, stop_above=3.0):
    """The step at which a run with these losses stops; None if it does not."""
    records = []
    for step in range(log_every, len(losses) + 1, log_every):
        loss = float(np.mean(losses[step - log_every : step]))
        record = {"step": step, "loss": loss, "images": 4 * log_every}
        records.append(json.loads(json.dumps(record)))  # as a resumed run reads it
        try:
            refuse_divergence(records, 4, stop_above, None)
        except DivergenceError:
            return step
    return None


@pytest.mark.parametrize("log_every", [1, 10])
def test_a_loss_that_starts_near_zero_may_rise_a_little(log_every):
    assert stopped_at([0.043] * 20 + [0.142] * 20, log_every) is None
    assert stopped_at([0.0] * 20 + [1.9] * 20, log_every) is None


@pytest.mark.parametrize("log_every", [1, 10])
@pytest.mark.parametrize("start", [-0.01, -2.0, -500.0])
def test_a_negative_loss_may_vary_and_is_stopped_when_it_explodes(start, log_every):
    wave = start * (1 + 0.5 * np.sin(np.arange(100.0)))
    assert stopped_at([*wave], log_every) is None
    assert stopped_at([*wave, *[abs(start) * 10 + 100] * 20], log_every) in range(101, 121)


def test_a_single_batch_is_no_divergence():
    for seed in range(10):  # batches of one example, of which a tenth are hard
        losses = np.where(np.random.default_rng(seed).random(200) < 0.1, 3.0, 0.1)
        assert stopped_at(losses) is None
    assert stopped_at([0.5] * 50 + [8.0] + [0.5] * 50) is None
    assert stopped_at([0.01, 8.0, 0.01, 0.01]) is None


@pytest.mark.parametrize("log_every", [1, 10])
def test_a_loss_that_climbs_is_stopped(log_every):
    assert stopped_at([2.3] * 30 + [7.5] * 20, log_every) in range(31, 51)
    assert stopped_at([2.3] * 30 + [6.5] * 20, log_every) is None
    assert stopped_at([2.3] * 30 + [1e3] * 20, log_every) in (31, 40)


def test_a_loss_that_explodes_in_the_first_steps_is_stopped_at_once():
    assert stopped_at([2.3, 2.3, 1e3, 1e3]) == 3
    assert stopped_at([2.3, 2.3, *[30.0] * 8]) in range(4, 10)


def test_the_message_names_the_setting_that_turns_the_limit_off():
    records = [{"step": step, "loss": 10.0 ** (step // 20), "images": 8} for step in range(10, 50, 10)]
    with pytest.raises(DivergenceError, match="10, more than 3 times .*, 1.*stop_above=None") as error:
        refuse_divergence(records[:2], 0.8, 3.0, None)
    assert "--stop-above None" in str(error.value)
    refuse_divergence(records, 0.8, None, None)


@pytest.mark.parametrize("bad", [{"loss": np.nan}, {"loss": np.inf}, {"loss": 1.0, "grad_norm": np.inf}])
def test_what_is_not_finite_stops_at_once_without_a_limit_too(bad):
    with pytest.raises(DivergenceError, match="not finite"):
        refuse_divergence([{"step": 1, "images": 4, **bad}], 4, None, None)


@pytest.mark.parametrize("stop_above", [1.0, 0.5, 0, -3, float("nan")])
def test_a_limit_that_a_steady_loss_exceeds_is_refused(stop_above):
    with pytest.raises(InputError, match="stop_above is .*; it must be above 1, or None"):
        Schedule(epochs=1, steps_per_epoch=1, batch_size=1, stop_above=stop_above)
