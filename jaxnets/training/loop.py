"""The one training loop. It runs any `step(state, batch) -> (state, metric sums)`."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import jax

from jaxnets import metrics
from jaxnets.errors import InputError
from jaxnets.metrics import Metric, Metrics
from jaxnets.training.checkpoint import Checkpointer
from jaxnets.training.logs import History, Recorder
from jaxnets.training.progress import Reporter
from jaxnets.training.state import TrainState
from jaxnets.training.step import TrainStep
from jaxnets.training.task import LOSS, Headline


class DivergenceError(InputError):
    """The loss is not finite, or far above its initial value."""


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
        stop_above: stop when the loss exceeds this many times its initial value; None to stop only
            when the loss or its gradient is not finite.
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
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be 1 or more")


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
) -> tuple[TrainState, History]:
    """Trains from the current position of `state` and `batches` to the end of the last epoch.

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

    Returns:
        The final state and the history.

    Raises:
        DivergenceError: as soon as a record shows divergence; the last good checkpoint is kept.
        CheckpointError: if a checkpoint cannot be written.
    """
    history = recorder.history
    taken, total = int(state.step), schedule.epochs * schedule.steps_per_epoch
    stretch: list[Metrics] = []
    kinds: dict[
        str, Metric
    ] = {}  # by the keys of an epoch's record; defines how they are printed and compared
    since, waited = time.perf_counter(), 0.0

    def record_stretch() -> dict:
        """Records the steps since the last record; waits for the devices to finish them."""
        nonlocal since, waited
        images = len(stretch) * schedule.batch_size
        sums = metrics.add(stretch)
        kinds.update({_key(name): metric for name, metric in sums.items()})
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
        _refuse_divergence(record, history.steps[0]["loss"], schedule.stop_above, checkpointer)
        return record

    def save(score: float | None = None) -> None:
        if checkpointer is not None:
            checkpointer.save(state, {"data": batches.get_state()}, score)

    while taken < total and not history.stopped:
        asked = time.perf_counter()
        batch = next(batches)
        if not stretch or _is_done(stretch[-1]):  # otherwise the devices were busy the whole time
            waited += time.perf_counter() - asked
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
        if epoch_ends or saves or logs:
            record_stretch()
        if epoch_ends:
            sums = {} if evaluate is None else evaluate(state)
            kinds.update({f"test_{name}": metric for name, metric in sums.items()})
            record = _epoch_record(history, schedule, taken, sums)
            recorder.add_epoch(record)
            reporter.epoch(record, kinds)
            save(score=_score(record, schedule, kinds))
            history.stopped = _plateau(history.epochs, schedule, kinds)
            history.headline = _headline(record, schedule, kinds)
            since = time.perf_counter()  # evaluation is not training
        elif saves:
            save()
    if checkpointer is not None:
        checkpointer.wait()
    if history.epochs and not history.headline:  # all of them were trained before
        history.headline = _headline(history.epochs[-1], schedule, kinds)
    if history.stopped:
        reporter.say(history.stopped)
    return state, history


def _epoch_record(history: History, schedule: Schedule, taken: int, sums: Metrics) -> dict:
    """Averages an epoch's records of steps, weighted by their examples, and adds the test metrics."""
    epoch = taken // schedule.steps_per_epoch
    parts = [record for record in history.steps if record["epoch"] == epoch]
    images = sum(part["images"] for part in parts)

    def mean(name: str) -> float:
        known = [part for part in parts if name in part]  # a resumed run may record more than before
        return sum(part[name] * part["images"] for part in known) / sum(p["images"] for p in known)

    record = {"epoch": epoch, "step": taken}
    for name in parts[-1].keys() - {"step", "epoch", "images", "images_per_second", "data_wait"}:
        record[_key(name)] = mean(name)
    each = [part["images"] / part["images_per_second"] for part in parts]
    seconds = sum(each)
    waited = sum(part["data_wait"] * own for part, own in zip(parts, each, strict=True))
    record |= {
        "seconds": seconds,
        "images_per_second": images / seconds,
        "data_wait": waited / seconds,
    }
    return record | {f"test_{name}": value for name, value in metrics.scalars(sums).items()}


def _key(name: str) -> str:
    """The name of a metric of training steps in an epoch's record."""
    of_the_step = name.startswith(("update_ratio", "grad_norm", "learning_rate"))  # also per layer
    return name if of_the_step else f"train_{name}"


def _is_done(sums: Metrics) -> bool:
    """Whether the devices have finished the step that computes these sums."""
    return all(leaf.is_ready() for leaf in jax.tree.leaves(sums))


def _monitored(record: dict, schedule: Schedule) -> str:
    monitor = schedule.monitor
    names = (monitor,) if monitor else (f"test_{schedule.headline.metric}", "test_loss", "train_loss")
    for name in names:
        if name in record:
            return name
    raise InputError(f"monitor is {monitor!r}; an epoch records {', '.join(sorted(record))}")


def _score(record: dict, schedule: Schedule, kinds: Mapping[str, Metric]) -> float:
    """The monitored value, negated if lower is better."""
    name = _monitored(record, schedule)
    lower_is_better = name in kinds and kinds[name].lower_is_better
    return -record[name] if lower_is_better else record[name]


def _plateau(epochs: list[dict], schedule: Schedule, kinds: Mapping[str, Metric]) -> str:
    """The reason to stop if the last `patience` epochs brought no improvement; otherwise ""."""
    scores = [_score(record, schedule, kinds) for record in epochs]
    best = scores.index(max(scores))
    if schedule.patience is None or len(scores) - 1 - best < schedule.patience:
        return ""
    name = _monitored(epochs[best], schedule)
    return (
        f"stopped after epoch {len(scores)}: {name} has not improved on epoch {best + 1} "
        f"({epochs[best][name]:.4g}) for {schedule.patience} epochs"
    )


def _headline(record: dict, schedule: Schedule, kinds: Mapping[str, Metric]) -> str:
    """The result of an epoch in words, such as "test accuracy 98.61%"."""
    for part, (name, words) in itertools.product(("test", "train"), (schedule.headline, LOSS)):
        key = f"{part}_{name}"
        if key in record:
            form = kinds[key].form if key in kinds else "{:.4g}"
            return f"{part} {words} {form.format(record[key])}"
    return ""


def _refuse_divergence(
    record: dict, start: float, stop_above: float | None, checkpointer: Checkpointer | None
) -> None:
    loss = record["loss"]
    if not (math.isfinite(loss) and math.isfinite(record.get("grad_norm", 0.0))):
        what = "is not finite" if not math.isfinite(loss) else "has a gradient that is not finite"
    elif stop_above is not None and loss > stop_above * start:
        what = f"is {loss:.4g}, more than {stop_above:g} times its initial value, {start:.4g}"
    else:
        return
    kept = ""
    if checkpointer is not None:
        checkpointer.wait()
        if checkpointer.latest_step is not None:
            kept = f" The checkpoint of step {checkpointer.latest_step} is kept."
    raise DivergenceError(
        f"stopped at step {record['step']}: the loss {what}. Try a lower learning rate, a warmup or "
        f"clip_norm.{kept}"
    )
