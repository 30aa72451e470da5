"""Optax optimizers and learning rate schedules by name."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnets.errors import InputError, unknown_name


class Usual(NamedTuple):
    """Default settings of an optimizer, to start from if nothing better is known."""

    learning_rate: float
    weight_decay: float


OPTIMIZERS = {
    "sgd": Usual(0.1, 1e-4),
    "momentum": Usual(0.05, 1e-4),
    "nesterov": Usual(0.05, 1e-4),
    "adagrad": Usual(0.01, 0.0),
    "rmsprop": Usual(0.001, 1e-5),
    "adam": Usual(0.001, 0.0),
    "adamw": Usual(0.001, 0.05),
    "lars": Usual(1.0, 1e-4),
}
SCHEDULES = ("constant", "cosine", "step")


def create_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """An Optax optimizer with the usual settings for image classification.

    Weight decay is not applied to biases or to the scales and shifts of normalization layers. "adamw"
    and "lars" apply it in their own ways; for the others it is an L2 penalty, added to the gradient as
    in PyTorch.

    Args:
        name: "sgd", "momentum" or "nesterov" (SGD with classical or Nesterov momentum), "adagrad",
            "rmsprop", "adam", "adamw", or "lars" (You et al. 2017, for very large batches).
        learning_rate: a number or a schedule. It can be read (and a number overwritten) in the state's
            `hyperparams["learning_rate"]`. This and the numbers below may be traced, so that optimizers
            with different settings can run under one `vmap` (`training.search`).
        weight_decay: strength of the weight decay; 0 for none.
        momentum: momentum of "momentum", "nesterov", "rmsprop" and "lars".
        clip_norm: maximum global norm of the gradient; None for no clipping.

    Raises:
        InputError: for an unknown name or a negative number.
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    if not callable(learning_rate):
        _refuse_negative("learning_rate", learning_rate)
    _refuse_negative("weight_decay", weight_decay)
    _refuse_negative("momentum", momentum)
    if clip_norm is not None and _is_known(clip_norm) and clip_norm <= 0:
        raise InputError(f"clip_norm is {clip_norm}; it must be above 0, or None for no clipping")

    def build(learning_rate: Any) -> optax.GradientTransformation:
        if name == "adamw":
            return optax.adamw(learning_rate, weight_decay=weight_decay, mask=decay_mask)
        if name == "lars":
            return optax.lars(
                learning_rate,
                weight_decay=weight_decay,
                weight_decay_mask=decay_mask,
                trust_ratio_mask=decay_mask,
                momentum=momentum,
            )
        rule = {
            "sgd": lambda: optax.sgd(learning_rate),
            "momentum": lambda: optax.sgd(learning_rate, momentum=momentum),
            "nesterov": lambda: optax.sgd(learning_rate, momentum=momentum, nesterov=True),
            "adagrad": lambda: optax.adagrad(learning_rate),
            "rmsprop": lambda: optax.rmsprop(learning_rate, decay=0.9, momentum=momentum),
            "adam": lambda: optax.adam(learning_rate),
        }[name]()
        if not _is_known(weight_decay) or weight_decay:
            return optax.chain(optax.add_decayed_weights(weight_decay, decay_mask), rule)
        return rule

    optimizer = optax.inject_hyperparams(build)(learning_rate=learning_rate)
    if clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)


def decay_mask(params: Any) -> Any:
    """True for the leaves that weight decay applies to: kernels, but not biases, scales or shifts."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def create_schedule(
    name: str,
    learning_rate: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    boundaries: tuple[float, ...] = (0.5, 0.75),
    factor: float = 0.1,
) -> optax.Schedule:
    """A learning rate schedule with a linear warmup from 0.

    Args:
        name: "constant"; "cosine", which decays to 0 at the end (Loshchilov and Hutter 2016); or
            "step", which multiplies by `factor` at each boundary (He et al. 2015).
        learning_rate: peak learning rate, reached after the warmup; may be traced.
        total_steps: number of steps of the run, including the warmup.
        warmup_steps: number of warmup steps; 0 for no warmup.
        boundaries: boundaries of "step", as fractions of `total_steps`.
        factor: decay factor of "step".

    Raises:
        InputError: for an unknown name, or a warmup as long as the run.
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    _refuse_negative("learning_rate", learning_rate)
    if not 0 <= warmup_steps < total_steps:
        raise InputError(
            f"warmup_steps is {warmup_steps} of {total_steps} steps in total; "
            "it must be 0 or more, and fewer than the whole run"
        )
    rest = total_steps - warmup_steps
    if name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    elif name == "cosine":
        schedule = optax.cosine_decay_schedule(learning_rate, rest)
    else:
        steps = [max(0, round(total_steps * part) - warmup_steps) for part in boundaries]
        # Boundaries that fall on the same step, in a short run or during the warmup, all count.
        drops = {step: factor ** steps.count(step) for step in steps}
        schedule = optax.piecewise_constant_schedule(learning_rate, drops)
    if warmup_steps:
        warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        schedule = optax.join_schedules([warmup, schedule], [warmup_steps])
    # Optax multiplies the count by floats, which strict type promotion takes for no count of integers.
    return lambda count: schedule(jnp.asarray(count, jnp.float32))


def _is_known(value: Any) -> bool:
    """Whether a number is concrete, and not traced."""
    return not isinstance(value, jax.core.Tracer)


def _refuse_negative(argument: str, value: Any) -> None:
    if _is_known(value) and value < 0:
        raise InputError(f"{argument} is {value}; it must be 0 or more")
