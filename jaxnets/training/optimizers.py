"""Optimizers and learning-rate schedules by name, all of them Optax's."""

from typing import Any, NamedTuple

import jax
import optax

from jaxnets.errors import InputError, unknown_name


class Usual(NamedTuple):
    """Settings to start from, where nothing better is known."""

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
    """An Optax optimizer with the usual settings of image classification.

    Weight decay spares biases and the scales and shifts of normalizations. "adamw" and "lars" decay
    in their own ways; with the others the decay is L2, added to the gradient as in PyTorch.

    Args:
        name: "sgd", "momentum" and "nesterov" (SGD with either), "adagrad", "rmsprop", "adam", "adamw",
            or "lars" (You et al. 2017, for very large batches).
        learning_rate: a number or a schedule. It can be read (a number also overwritten) in the
            state's `hyperparams["learning_rate"]`. This and the numbers below may be traced, so that
            optimizers of several settings run under one `vmap` (`training.search`).
        weight_decay: 0 for none.
        momentum: of "momentum", "nesterov", "rmsprop" and "lars".
        clip_norm: scales gradients down to this global norm; None for never.

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
    """True for the leaves that weight decay applies to: kernels, not biases, scales and shifts."""
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
    """A learning rate over the steps of a run, after a linear warm-up from 0.

    Args:
        name: "constant"; "cosine", down to 0 at the end (Loshchilov and Hutter 2016); "step",
            times `factor` at each boundary (He et al. 2015).
        learning_rate: the peak, reached after the warm-up; it may be traced.
        total_steps: of the run, the warm-up included.
        warmup_steps: 0 for none.
        boundaries: of "step", as parts of `total_steps`.
        factor: of "step".

    Raises:
        InputError: for an unknown name, or a warm-up as long as the run.
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    _refuse_negative("learning_rate", learning_rate)
    if not 0 <= warmup_steps < total_steps:
        raise InputError(
            f"warmup_steps is {warmup_steps} of {total_steps} steps in all; "
            "it must be 0 or more, and fewer than the whole run"
        )
    rest = total_steps - warmup_steps
    if name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    elif name == "cosine":
        schedule = optax.cosine_decay_schedule(learning_rate, rest)
    else:
        steps = [max(0, round(total_steps * part) - warmup_steps) for part in boundaries]
        # Boundaries that fall on one step, in a short run or before the end of the warm-up, all count.
        drops = {step: factor ** steps.count(step) for step in steps}
        schedule = optax.piecewise_constant_schedule(learning_rate, drops)
    if not warmup_steps:
        return schedule
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, schedule], [warmup_steps])


def _is_known(value: Any) -> bool:
    """Whether a number is known now, and not only when the compiled program runs."""
    return not isinstance(value, jax.core.Tracer)


def _refuse_negative(argument: str, value: Any) -> None:
    if _is_known(value) and value < 0:
        raise InputError(f"{argument} is {value}; it must be 0 or more")
