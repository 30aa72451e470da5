"""A range test of the learning rate."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from jaxnets import data, metrics
from jaxnets.data.dataset import check_source, read_batch
from jaxnets.errors import InputError
from jaxnets.training.divergence import DivergenceError
from jaxnets.training.loop import refuse_below_one
from jaxnets.training.parallel import DataParallel
from jaxnets.training.state import create_state
from jaxnets.training.step import UpdateRule, usual_rule
from jaxnets.training.task import Task, Variables

TOO_HIGH = 4  # times the lowest loss
SMOOTHING = 0.9  # share of the losses before, in the mean of a step


@dataclass(frozen=True)
class RateFinding:
    """What a range test found.

    Attributes:
        rates: learning rate of each step, rising by one factor.
        losses: the loss of each step.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def smoothed(self) -> np.ndarray:
        """f64[steps], the exponential moving average of the losses, without a bias to the first."""
        mean, means = 0.0, []
        for step, loss in enumerate(self.losses, start=1):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            means.append(mean / (1 - SMOOTHING**step))
        return np.array(means)

    @property
    def suggestion(self) -> float:
        """A tenth of the learning rate with the lowest smoothed loss."""
        return self.rates[int(np.argmin(self.smoothed))] / 10

    def to_dict(self) -> dict[str, Any]:
        """As plain values: `rates`, `losses`, `smoothed` and `suggestion`."""
        own = {"rates": list(self.rates), "losses": list(self.losses)}
        return {**own, "smoothed": self.smoothed.tolist(), "suggestion": self.suggestion}


def find_learning_rate(
    task: Task,
    train: data.Source,
    *,
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation],
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 64,
    seed: int = 0,
    precision: str = "float32",
    workers: int = 0,
    parallel: DataParallel | None = None,
    variables: Variables | None = None,
    make_rule: Callable[..., UpdateRule] = usual_rule,
    advance: Callable[[], None] = lambda: None,
) -> RateFinding:
    """Trains for a few steps with a learning rate that rises from `low` to `high`, and records the loss
    (Smith 2015, arXiv:1506.01186, section 3.3; with a geometric and not a linear rise).

    It ends early where the smoothed loss is four times its lowest, or a loss is not finite.

    Args:
        task: the task to learn.
        train: its training examples.
        optimizer: from a schedule of the learning rate to the optimizer.
        low, high: first and last learning rate.
        steps: number of steps.
        batch_size, seed, precision, workers, parallel, variables: as for `fit`.
        make_rule: `(task, optimizer, precision=...) -> UpdateRule`, for a custom step.
        advance: called after each step.

    Raises:
        InputError: for learning rates that do not rise, fewer than 10 steps, or what `fit` refuses.
        DivergenceError: if the first loss is not finite.
    """
    if not 0 < low < high < math.inf:
        raise InputError(f"low is {low} and high is {high}; wanted 0 < low < high")
    if steps < 10:
        raise InputError(f"steps is {steps}; it must be at least 10")
    refuse_below_one("batch_size", batch_size)
    check_source("train", train)
    rates = np.geomspace(low, high, steps)
    parallel = parallel or DataParallel.create()
    size = parallel.local_batch_size(batch_size)
    schedule = optax.exponential_decay(low, steps - 1, high / low)
    rule = make_rule(task, optimizer(schedule), precision=precision)
    example = read_batch(train, np.zeros(1, int))
    check = getattr(task, "check", lambda batch: None)
    check(example)
    state = create_state(task, rule, jax.random.key(seed), example, variables=variables)
    step, state = parallel.compile_train_step(rule.step), parallel.replicate(state)
    shard = {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
    source = data.train_batches(train, size, seed=seed, workers=workers, **shard)

    def place(batch: Any) -> Any:
        check(batch)
        return parallel.put(batch)

    losses = []
    with closing(data.prefetch(source, place)) as batches:
        for _ in range(steps):
            state, sums = step(state, next(batches))
            losses.append(float(metrics.scalars(sums)["loss"]))
            advance()
            if not math.isfinite(losses[-1]):
                losses.pop()
                break
            smoothed = RateFinding((), tuple(losses)).smoothed
            if smoothed[-1] > TOO_HIGH * smoothed.min():
                break
    if not losses:
        raise DivergenceError("the loss of the first step is not finite; look at the data")
    return RateFinding(tuple(map(float, rates[: len(losses)])), tuple(losses))
