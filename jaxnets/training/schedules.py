"""Learning rate schedules by name."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax

from jaxnets.errors import InputError, unknown_name
from jaxnets.ranges import Range, fits
from jaxnets.training.settings import refuse_negative, refuse_unknown


def create_schedule(
    name: str, learning_rate: float, total_steps: int, *, warmup_steps: int = 0, **settings: Any
) -> optax.Schedule:
    """A learning rate schedule with a linear warmup from 0.

    Args:
        name: one of `SCHEDULES`: "constant", "cosine", "step", "polynomial", "exponential", "restarts"
            or "one_cycle".
        learning_rate: peak learning rate, reached after the warmup; may be traced.
        total_steps: number of steps of the run, including the warmup.
        warmup_steps: number of warmup steps; 0 for no warmup. "one_cycle" has its own.
        **settings: of the schedule; see the function of that name in this module.

    Raises:
        InputError: for an unknown name or setting, a value that a setting cannot have, or a warmup as
            long as the run.
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    make = SCHEDULES[name]
    known = list(inspect.signature(make).parameters)[3:]
    refuse_unknown("schedule_settings", name, settings, known)
    refuse_negative("learning_rate", learning_rate)
    if not 0 <= warmup_steps < total_steps:
        raise InputError(
            f"warmup_steps is {warmup_steps} of {total_steps} steps in total; "
            "it must be 0 or more, and fewer than the whole run"
        )
    if warmup_steps and name in RISING:
        raise InputError(f"warmup_steps: {name} rises by itself; give its setting rise, and no warmup")
    schedule = make(learning_rate, total_steps, warmup_steps, **settings)
    if warmup_steps:
        warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        schedule = optax.join_schedules([warmup, schedule], [warmup_steps])
    # Optax multiplies the count by floats, which strict type promotion takes for no count of integers.
    return lambda count: schedule(jnp.asarray(count, jnp.float32))


def constant(learning_rate: float, total_steps: int, warmup_steps: int) -> optax.Schedule:
    """The peak learning rate to the end."""
    return optax.constant_schedule(learning_rate)


def cosine(
    learning_rate: float, total_steps: int, warmup_steps: int, end: float = 0.0
) -> optax.Schedule:
    """Half a cosine down to `end` times the peak (Loshchilov and Hutter 2016, arXiv:1608.03983)."""
    _refuse_outside("end", end, Range(0, 1))
    return optax.cosine_decay_schedule(learning_rate, total_steps - warmup_steps, end)


def step(
    learning_rate: float,
    total_steps: int,
    warmup_steps: int,
    boundaries: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
) -> optax.Schedule:
    """Multiplies by `factor` at each of the boundaries, which are fractions of the whole run (He et al.
    2015, arXiv:1512.03385)."""
    if not isinstance(boundaries, list | tuple):
        raise InputError(
            f"schedule_settings: boundaries is {boundaries!r}; wanted a list of fractions, such as [0.5]"
        )
    for boundary in boundaries:
        _refuse_outside("boundaries", boundary, Range(0, 1))
    _refuse_outside("factor", factor, Range(0, 1))
    steps = [max(0, round(total_steps * part) - warmup_steps) for part in boundaries]
    # Boundaries that fall on the same step, in a short run or during the warmup, all count.
    drops = {step: factor ** steps.count(step) for step in steps}
    return optax.piecewise_constant_schedule(learning_rate, drops)


def polynomial(
    learning_rate: float, total_steps: int, warmup_steps: int, power: float = 0.9, end: float = 0.0
) -> optax.Schedule:
    """A power of what is left of the run, down to `end` times the peak; a line where the power is 1.

    DeepLab's "poly" has a power of 0.9 (Chen et al. 2017, arXiv:1606.00915, section 4.1).
    """
    _refuse_outside("power", power, Range(0))
    _refuse_outside("end", end, Range(0, 1))
    return optax.polynomial_schedule(
        learning_rate, learning_rate * end, power, total_steps - warmup_steps
    )


def exponential(
    learning_rate: float, total_steps: int, warmup_steps: int, end: float = 0.01
) -> optax.Schedule:
    """The same factor in every step, such that the last has `end` times the peak."""
    _refuse_outside("end", end, Range(0, 1, above=True))
    return optax.exponential_decay(learning_rate, total_steps - warmup_steps, end)


def restarts(
    learning_rate: float, total_steps: int, warmup_steps: int, cycles: int = 3, growth: float = 2.0
) -> optax.Schedule:
    """Half cosines down to 0, each of which begins at the peak again and is `growth` times as long as
    the one before: SGDR (Loshchilov and Hutter 2016, arXiv:1608.03983, section 3).

    Raises:
        InputError: also where the run is too short for so many cycles.
    """
    _refuse_outside("growth", growth, Range(0, above=True))
    steps = total_steps - warmup_steps
    if not isinstance(cycles, int) or not 1 <= cycles <= steps:
        raise InputError(f"cycles is {cycles!r}; it must be a whole number from 1 to the {steps} steps")
    shares = [growth**cycle for cycle in range(cycles)]
    ends = [round(steps * sum(shares[: i + 1]) / sum(shares)) for i in range(cycles)]
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    if min(lengths) < 1:
        raise InputError(
            f"cycles is {cycles} with growth {growth}; {steps} steps are too few: give fewer cycles"
        )
    parts = [optax.cosine_decay_schedule(learning_rate, length) for length in lengths]
    return optax.join_schedules(parts, ends[:-1])


def one_cycle(
    learning_rate: float,
    total_steps: int,
    warmup_steps: int,
    rise: float = 0.3,
    start: float = 0.04,
    end: float = 4e-6,
) -> optax.Schedule:
    """Half cosines from `start` times the peak up to it, in a fraction `rise` of the steps, and down to
    `end` times the peak (Smith and Topin 2017, arXiv:1708.07120; the numbers are PyTorch's)."""
    _refuse_outside("rise", rise, Range(0, 1, above=True))
    _refuse_outside("start", start, Range(0, 1, above=True))
    _refuse_outside("end", end, Range(0, 1))
    last = max(total_steps - 1, 1)
    top = min(max(rise * total_steps - 1, 0.5), last - 0.5)  # where the peak is, as PyTorch has it

    def rate(count):
        rising, falling = jnp.clip(count / top, 0, 1), jnp.clip((count - top) / (last - top), 0, 1)
        up, down = ((1 - jnp.cos(jnp.pi * share)) / 2 for share in (rising, falling))
        return learning_rate * (start + (1 - start) * up + (end - 1) * down)

    return rate


SCHEDULES = {
    make.__name__: make
    for make in (constant, cosine, step, polynomial, exponential, restarts, one_cycle)
}
"""The schedules by name."""


RISING = ("one_cycle",)
"""Those that rise by themselves, and take no warmup."""


def _refuse_outside(setting: str, value: Any, wanted: Range) -> None:
    if not fits(value, float) or value not in wanted:
        raise InputError(f"schedule_settings: {setting} is {value!r}; it must be {wanted}")
