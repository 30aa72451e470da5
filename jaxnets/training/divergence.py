"""When a run has diverged: its loss is not finite, or far above its start."""

import math
from typing import Any

import numpy as np

from jaxnets.errors import InputError
from jaxnets.training.checkpoint import Checkpointer

WINDOW = 10  # steps over which losses are averaged, because that of a single small batch says little


class DivergenceError(InputError):
    """The loss is not finite, or far above its initial value."""


def refuse_low_limit(stop_above: float | None) -> None:
    if stop_above is not None and not stop_above > 1:
        raise InputError(f"stop_above is {stop_above}; it must be above 1, or None for no limit")


def loss_limit(start: Any, stop_above: float) -> Any:
    """The mean loss at which a run has diverged, from that of its first steps.

    It is stop_above times the start, if that is at least 1. Otherwise it is higher: a loss that starts
    near zero, as with good weights, or below it, has room to vary.
    """
    return start + (stop_above - 1) * abs(start).clip(min=1)


def refuse_divergence(
    records: list[dict], batch_size: int, stop_above: float | None, checkpointer: Checkpointer | None
) -> None:
    """Raises a `DivergenceError` where the latest record shows divergence.

    The mean loss of the last `WINDOW` steps is compared with that of the first, as `loss_limit` says.

    Args:
        records: of the steps from the first on.
        batch_size: examples per step.
        stop_above: see `loop.Schedule`.
        checkpointer: its latest checkpoint is named in the message.
    """
    latest = records[-1]
    loss = latest["loss"]
    advice = "Try a lower learning rate, a warmup or clip_norm"
    if not math.isfinite(loss):
        what = "is not finite"
    elif not math.isfinite(latest.get("grad_norm", 0.0)):
        what = "has a gradient that is not finite"
    elif stop_above is None:
        return
    else:
        start, recent = (_mean_loss(ordered, batch_size) for ordered in (records, records[::-1]))
        limit = float(loss_limit(np.float64(start), stop_above))
        if not recent > limit:
            return
        what = f"rose from {start:.4g} to {recent:.4g}, above the limit of stop_above={stop_above:g}"
        advice += ", or turn the limit off: stop_above=None, --stop-above None"
    kept = ""
    if checkpointer is not None:
        checkpointer.wait()
        if checkpointer.latest_step is not None:
            kept = f" The checkpoint of step {checkpointer.latest_step} is kept."
    raise DivergenceError(f"stopped at step {latest['step']}: the loss {what}. {advice}.{kept}")


def _mean_loss(records: list[dict], batch_size: int) -> float:
    """The mean loss of the first records that cover a window."""
    steps = np.cumsum([record["images"] for record in records[:WINDOW]]) / batch_size
    count = 1 + int(np.searchsorted(steps, WINDOW))
    losses, images = zip(*((r["loss"], r["images"]) for r in records[:count]), strict=True)
    return float(np.average(losses, weights=images))
