"""The loop tells time spent on steps from time spent waiting for data, and what other epochs change."""

import itertools
import time

import jax.numpy as jnp
import pytest

from jaxnets.errors import InputError
from jaxnets.metrics import Mean, Share
from jaxnets.training import DivergenceError, Headline, loop
from jaxnets.training.logs import Recorder
from jaxnets.training.progress import Reporter
from jaxnets.training.state import TrainState


def share_of_waiting(seconds_of_reading, seconds_of_a_step):
    """What the records of a run of 2 epochs say, but for the first, in which JAX starts."""

    def batches():
        while True:
            time.sleep(seconds_of_reading)
            yield {}

    def step(state, batch):
        time.sleep(seconds_of_a_step)
        one = Mean(jnp.ones(()), jnp.ones(()))
        return state, {"loss": one, "grad_norm": one, "update_ratio": one, "learning_rate": one}

    state = TrainState(step=0, params={}, collections={}, opt_state=(), key=None, ema=None)
    schedule = loop.Schedule(epochs=2, steps_per_epoch=4, batch_size=1, log_every=2)
    _, history = loop.run(
        step, state, batches(), schedule, recorder=Recorder(None), reporter=Reporter(2, 4, enabled=False)
    )
    assert len(history.steps) == 4
    return [record["data_wait"] for record in history.steps[1:] + history.epochs[1:]]


def run_of_losses(losses, log_every=4):
    """A run of one epoch of these losses, None for no example that counts; returns its history."""

    def step(state, batch):
        loss = losses[state.step]
        total = Mean(jnp.float32(loss or 0), jnp.float32(loss is not None))
        return state.replace(step=state.step + 1), {"loss": total}

    steps = len(losses)
    state = TrainState(step=0, params={}, collections={}, opt_state=(), key=None, ema=None)
    schedule = loop.Schedule(epochs=1, steps_per_epoch=steps, batch_size=1, log_every=log_every)
    reporter = Reporter(1, steps, enabled=False)
    recorder = Recorder(None)
    return loop.run(step, state, itertools.repeat({}), schedule, recorder=recorder, reporter=reporter)[1]


def test_rows_of_epochs_fit_on_a_narrow_terminal_and_are_whole_in_a_pipe(capsys, monkeypatch):
    record = {"epoch": 1, "update_ratio": 1e-3, "images_per_second": 9e4, "data_wait": 0, "seconds": 2}
    kinds = {"train_loss": Mean(0, 1), "test_loss": Mean(0, 1)}
    kinds |= {"train_top1": Share(0, 1), "test_top1": Share(0, 1)}
    record |= dict.fromkeys(kinds, 0.5)

    def lines():
        Reporter(2, 4, Headline("top1", "accuracy")).epoch(record, kinds)
        return capsys.readouterr().out.splitlines()

    monkeypatch.setenv("COLUMNS", "80")
    assert [line.split()[-1] for line in lines()] == ["seconds", "2.0"]
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    heading, row = lines()
    assert "test accuracy  update ratio" in heading
    assert row.split()[-2:] == ["50.00%", "1.0e-03"]
    assert len(row) <= 80


def test_a_loss_that_explodes_within_the_first_record_is_stopped():
    with pytest.raises(DivergenceError, match="at step 4: .* 1e.04, more than 3 times .*, 2\\. "):
        run_of_losses([2.0, 2.0, 1e4, 1e4, 1e4, 1e4, 1e4, 1e4])
    assert len(run_of_losses([2.0, 2.5, 6.0, 2.0]).epochs) == 1


def test_steps_without_a_readable_image_are_recorded_with_the_next():
    history = run_of_losses([2.0, None, 1.0, None], log_every=1)
    assert [(record["step"], record["loss"], record["images"]) for record in history.steps] == [
        (1, 2.0, 1),
        (3, 1.0, 2),
    ]
    assert history.epochs[0]["train_loss"] == pytest.approx(4 / 3)
    with pytest.raises(InputError, match="no example up to step 2 has weight"):
        run_of_losses([None, None], log_every=1)


def said_of_other_epochs(monkeypatch, before, now):
    """What a run says that had trained for one epoch and is resumed for two, with these records."""
    lines = []
    monkeypatch.setattr(Reporter, "say", lambda self, text: lines.append(text))
    recorder = Recorder(None)
    part = {"step": 2, "epoch": 1, "loss": 1.0, "images": 2, "images_per_second": 1, "data_wait": 0}
    recorder.history.steps.append(part | before)
    one = jnp.ones(())
    sums = {name: Mean(one * value, one) for name, value in {"loss": 1.0, **now}.items()}
    state = TrainState(step=2, params={}, collections={}, opt_state=(), key=None, ema=None)
    loop.run(
        lambda state, batch: (state, sums),
        state,
        itertools.repeat({}),
        loop.Schedule(epochs=2, steps_per_epoch=2, batch_size=1, log_every=1),
        recorder=recorder,
        reporter=Reporter(2, 2, enabled=False),
        epochs_before=1,
    )
    return lines


def test_other_epochs_tell_what_becomes_of_the_learning_rate(monkeypatch):
    rate = {"learning_rate": 0.5}
    assert said_of_other_epochs(monkeypatch, rate, {"learning_rate": 0.1}) == [
        "epochs 1 -> 2 change the schedule: the learning rate was 0.5 up to step 2 and is now 0.1"
    ]
    assert said_of_other_epochs(monkeypatch, rate, rate) == [
        "epochs 1 -> 2: the learning rate stays at 0.5"
    ]
    for before, now in ((rate, {}), ({}, rate)):
        (line,) = said_of_other_epochs(monkeypatch, before, now)
        assert line.startswith("epochs 1 -> 2: the optimizer does not tell")


def test_a_slow_reader_shows_as_waiting_for_data():
    assert min(share_of_waiting(0.05, 0.002)) > 0.7


def test_a_slow_step_does_not():
    assert max(share_of_waiting(0.0, 0.05)) < 0.3


def test_the_share_is_of_the_whole_time():
    assert share_of_waiting(0.04, 0.04) == pytest.approx([0.5] * 4, abs=0.2)
