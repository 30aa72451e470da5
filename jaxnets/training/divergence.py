"""When a run has diverged: its loss is not finite, or far above its start."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.errors import InputError
from jaxnets.metrics import Metric
from jaxnets.training.checkpoint import Checkpointer

WINDOW = 10  # steps over which the first and the latest losses are averaged


class DivergenceError(InputError):
    """The loss is not finite, or far above its initial value."""


def refuse_low_limit(stop_above: float | None) -> None:
    """Raises an `InputError` for a limit that a steady loss would exceed."""
    if stop_above is not None and not stop_above > 1:
        raise InputError(f"stop_above is {stop_above}; it must be above 1, or None for no limit")


def far_above(recent: Any, start: Any, steps: Any, stop_above: float) -> Any:
    """Whether the mean loss of the latest steps is far above that of the first, as arrays.

    The limit is stop_above times the start, if that is at least 1. A loss that starts near zero, as with
    good weights, or below it, may rise by stop_above - 1. If the means are of fewer steps than a window,
    of which a single small batch may be an outlier, the loss may rise by as much more.

    Args:
        recent, start: the means.
        steps: how many steps each is of.
        stop_above: the limit.
    """
    return recent > start + (stop_above - 1) * abs(start).clip(min=1) * (WINDOW / steps).clip(min=1)


def refuse_divergence(
    records: list[dict],
    batch_size: int,
    stop_above: float | None,
    checkpointer: Checkpointer | None,
    *,
    opening: Sequence[Metric] = (),
) -> None:
    """Raises a `DivergenceError` where the latest record shows divergence.

    Args:
        records: of the steps, from the first on.
        batch_size: examples per step.
        stop_above: see `loop.Schedule`.
        checkpointer: its latest checkpoint is named in the message.
        opening: where the latest record is the first one, the loss of each of its steps.
    """
    latest = records[-1]
    single = []
    for loss in opening if math.isfinite(latest["loss"]) else ():
        value = float(loss.compute())
        if math.isfinite(value):  # not so of a step without examples that count
            single.append({"step": latest["step"], "loss": value, "images": batch_size})
            refuse_divergence(single, batch_size, stop_above, checkpointer)
    advice = "Try a lower learning rate, a warmup or clip_norm"
    if not math.isfinite(latest["loss"]):
        what = "is not finite"
    elif not math.isfinite(latest.get("grad_norm", 0.0)):
        what = "has a gradient that is not finite"
    elif stop_above is None:
        return
    else:
        steps = sum(record["images"] for record in records[: 2 * WINDOW]) / batch_size
        half = min(WINDOW, steps // 2)
        start, of_start = _mean_loss(records[:WINDOW], half * batch_size)
        recent, of_recent = _mean_loss(records[: -WINDOW - 1 : -1], half * batch_size)
        steps = np.float64(min(of_start, of_recent) / batch_size)
        if not far_above(recent, start, steps, stop_above):
            return
        what = f"is {recent:.4g}, more than {stop_above:g} times its initial value, {start:.4g}"
        advice += ", or turn this limit off: stop_above=None (--stop-above None)"
    kept = ""
    if checkpointer is not None:
        checkpointer.wait()
        if checkpointer.latest_step is not None:
            kept = f" The checkpoint of step {checkpointer.latest_step} is kept."
    raise DivergenceError(f"stopped at step {latest['step']}: the loss {what}. {advice}.{kept}")


def _mean_loss(records: list[dict], images: float) -> tuple[np.float64, float]:
    """The mean loss of the first records that have so many images, and how many they have."""
    total = seen = 0.0
    for record in records:
        total += record["loss"] * record["images"]
        seen += record["images"]
        if seen >= images:
            break
    return np.float64(total / seen), seen
