"""The one training loop. It runs any `step(state, batch) -> (state, metric sums)`."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxnets import metrics
from jaxnets.errors import InputError
from jaxnets.metrics import Metric, Metrics
from jaxnets.training import judging
from jaxnets.training.checkpoint import Checkpointer
from jaxnets.training.divergence import refuse_divergence, refuse_low_limit
from jaxnets.training.logs import History, Recorder
from jaxnets.training.progress import Reporter
from jaxnets.training.state import TrainState
from jaxnets.training.step import TrainStep
from jaxnets.training.task import LOSS, Headline


@dataclass(frozen=True)
class Schedule:
    """When to log, checkpoint and stop.

    Attributes:
        epochs: total number of epochs.
        steps_per_epoch: number of steps in an epoch.
        batch_size: examples per step, over all devices; used for the images per second.
        log_every: steps between records; the last record of an epoch includes the remaining steps.
        checkpoint_every: steps between checkpoints, in addition to those at the end of each epoch;
            None for no others.
        headline: the metric by which the run is judged.
        monitor: the key of an epoch's record that decides which checkpoint is best. None for the
            headline on the test examples or, if there is none, `test_loss` or else `train_loss`. The
            metric itself defines whether lower is better.
        patience: stop after this many consecutive epochs without improvement of `monitor`; None to
            never stop early.
        stop_above: stop when the loss exceeds this many times its initial value, both averaged over 10
            steps, or by this less 1 if that is more; None to stop only when the loss or its gradient is
            not finite. See `divergence.far_above`.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    log_every: int = 10
    checkpoint_every: int | None = None
    headline: Headline = LOSS
    monitor: str | None = None
    patience: int | None = None
    stop_above: float | None = 3.0

    def __post_init__(self):
        for name in ("epochs", "log_every", "checkpoint_every", "patience"):
            refuse_below_one(name, getattr(self, name))
        refuse_low_limit(self.stop_above)

    @property
    def end(self) -> dict[str, Any]:
        """What decides when the run ends; saved with each checkpoint, as JSON."""
        return {"epochs": self.epochs, "monitor": self.monitor, "patience": self.patience}


def refuse_below_one(name: str, count: int | None) -> None:
    """Raises an `InputError` for a count that is not a whole number of 1 or more, or None."""
    if count is not None and (count < 1 or count % 1 != 0):
        raise InputError(f"{name} is {count}; it must be 1 or more, and whole")


def run(
    step: TrainStep,
    state: TrainState,
    batches: Iterator,
    schedule: Schedule,
    *,
    recorder: Recorder,
    reporter: Reporter,
    evaluate: Callable[[TrainState], Metrics] | None = None,
    checkpointer: Checkpointer | None = None,
    kinds: Mapping[str, Metric] | None = None,
    epochs_before: int | None = None,
    stop: Callable[[int], bool] = lambda step: False,
) -> tuple[TrainState, History]:
    """Trains from the current position of `state` and `batches` to the end of the last epoch.

    A history that is `stopped` already is not trained on.

    Args:
        step: a compiled step; its state is donated.
        state: the state to start from; `state.step` is the number of steps already taken.
        batches: endless batches on the devices, with `get_state()`: the position after the last batch
            it returned.
        schedule: when to log, checkpoint and stop.
        recorder: writes the records, and holds those of the run so far.
        reporter: displays the records.
        evaluate: evaluates a state at the end of each epoch.
        checkpointer: saves the state; None for no checkpoints.
        kinds: the metrics of an epoch's record that are known before it; they define how it is printed
            and compared.
        epochs_before: how many epochs the state was trained for, if it is now trained for others: the
            change of the learning rate is told.
        stop: `stop(step)` is called after each step; where it is true, the run saves a checkpoint and
            ends, to be resumed.

    Returns:
        The final state and the history.

    Raises:
        DivergenceError: as soon as a record shows divergence; the last good checkpoint is kept.
        InputError: for a headline or monitor that is not among the metrics.
        CheckpointError: if a checkpoint cannot be written.
    """
    history = recorder.history
    began = taken = int(state.step)
    total = schedule.epochs * schedule.steps_per_epoch
    stretch: list[Metrics] = []
    kinds = dict(kinds or {})
    since, waited = time.perf_counter(), 0.0

    def record_stretch() -> None:
        """Records the steps since the last record; waits for the devices to finish them.

        Steps whose images could not be read have no loss and wait for the next record.
        """
        nonlocal since, waited
        images = len(stretch) * schedule.batch_size
        sums = metrics.add(stretch)
        if not float(sums["loss"].weight):
            if taken % schedule.steps_per_epoch == 0 and not _of_epoch(history, schedule, taken):
                raise InputError(
                    f"train: no example up to step {taken} has weight; are its images readable?"
                )
            return
        # A loss that explodes within the first record would be taken for its initial value.
        opening = [one["loss"] for one in stretch] if not history.steps else []
        kinds.update({judging.key_of(name): metric for name, metric in sums.items()})
        stretch.clear()
        now = time.perf_counter()
        elapsed, since = now - since, now
        record = {
            "step": taken,
            "epoch": math.ceil(taken / schedule.steps_per_epoch),
            **metrics.scalars(sums),
            "images": images,
            "images_per_second": images / elapsed,
            "data_wait": waited / elapsed,
        }
        waited = 0.0
        recorder.add_steps(record)
        reporter.steps(record, kinds)
        refuse_divergence(
            history.steps, schedule.batch_size, schedule.stop_above, checkpointer, opening=opening
        )

    def save(score: float | None = None) -> None:
        if checkpointer is not None:
            position = {"data": batches.get_state(), "end": schedule.end, "stopped": history.stopped}
            checkpointer.save(state, position, score)

    while taken < total and not history.stopped:
        asking = time.perf_counter()
        batch = next(batches)
        if not stretch or _is_done(stretch[-1]):  # otherwise the devices were busy the whole time
            waited += time.perf_counter() - asking
        state, sums = step(state, batch)
        stretch.append(sums)
        taken += 1
        in_epoch = taken % schedule.steps_per_epoch
        epoch_ends = in_epoch == 0
        saves = schedule.checkpoint_every and taken % schedule.checkpoint_every == 0
        logs = (
            in_epoch % schedule.log_every == 0
            and schedule.steps_per_epoch - in_epoch >= schedule.log_every
        )
        asked = stop(taken)
        if epoch_ends or saves or logs or asked:
            record_stretch()
            if epochs_before is not None:
                reporter.say(_rate_change(history.steps, began, epochs_before, schedule))
                epochs_before = None
        if epoch_ends:
            sums = {} if evaluate is None else evaluate(state)
            kinds.update({f"test_{name}": metric for name, metric in sums.items()})
            record = _epoch_record(history, schedule, taken, sums)
            recorder.add_epoch(record)
            reporter.epoch(record, kinds)
            if sums:  # a run without tests may be of a task whose headline is a measure of a whole set
                judging.refuse_unknown(schedule, kinds, tested=True)
            history.stopped = judging.plateau(history.epochs, schedule, kinds)
            history.headline = judging.headline(record, schedule, kinds)
            save(score=judging.score(record, schedule, kinds))
            since = time.perf_counter()  # evaluation is not training
        elif saves or asked:
            save()
        if asked and taken < total and not history.stopped:
            history.stopped = f"stopped at step {taken} of {total}, to be resumed"
    if checkpointer is not None:
        checkpointer.wait()
    if history.epochs and not history.headline:  # all of them were trained before
        history.headline = judging.headline(history.epochs[-1], schedule, kinds)
    if taken == began:
        ended = history.stopped or f"all {schedule.epochs} epochs are trained"
        other = "more epochs or another patience" if history.stopped else "more epochs"
        reporter.say(f"nothing is left to train: {ended}; give {other} to go on")
    elif history.stopped:
        reporter.say(history.stopped)
    return state, history


def _rate_change(steps: list[dict], began: int, epochs_before: int, schedule: Schedule) -> str:
    """What other epochs than before change, in words, after the first record of a resumed run."""
    said = f"epochs {epochs_before} -> {schedule.epochs}"
    before = [record for record in steps if record["step"] <= began]
    if not before or "learning_rate" not in before[-1] or "learning_rate" not in steps[-1]:
        return f"{said}: the optimizer does not tell whether they change its learning rate"
    was, now = (f"{record['learning_rate']:.2g}" for record in (before[-1], steps[-1]))
    if was == now:
        return f"{said}: the learning rate stays at {now}"
    return f"{said} change the schedule: the learning rate was {was} up to step {began} and is now {now}"


def _of_epoch(history: History, schedule: Schedule, taken: int) -> list[dict]:
    """The records of the steps of an epoch, at its end."""
    epoch = taken // schedule.steps_per_epoch
    return [record for record in history.steps if record["epoch"] == epoch]


def _epoch_record(history: History, schedule: Schedule, taken: int, sums: Metrics) -> dict:
    """Averages an epoch's records of steps, weighted by their examples, and adds the test metrics."""
    epoch = taken // schedule.steps_per_epoch
    parts = _of_epoch(history, schedule, taken)
    images = sum(part["images"] for part in parts)

    def mean(name: str) -> float:
        known = [part for part in parts if name in part]  # a resumed run may record more than before
        return sum(part[name] * part["images"] for part in known) / sum(p["images"] for p in known)

    record = {"epoch": epoch, "step": taken}
    for name in parts[-1].keys() - {"step", "epoch", "images", "images_per_second", "data_wait"}:
        record[judging.key_of(name)] = mean(name)
    each = [part["images"] / part["images_per_second"] for part in parts]
    seconds = sum(each)
    waited = sum(part["data_wait"] * own for part, own in zip(parts, each, strict=True))
    record |= {
        "seconds": seconds,
        "images_per_second": images / seconds,
        "data_wait": waited / seconds,
    }
    return record | {f"test_{name}": value for name, value in metrics.scalars(sums).items()}


def _is_done(sums: Metrics) -> bool:
    """Whether the devices have finished the step that computes these sums."""
    return all(leaf.is_ready() for leaf in jax.tree.leaves(sums))
