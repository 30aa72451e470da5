"""Optax's optimizers by name."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxnets.errors import InputError, unknown_name
from jaxnets.ranges import fits
from jaxnets.training.settings import is_known, refuse_negative, refuse_unknown


class Usual(NamedTuple):
    """Settings of an optimizer to start from if nothing better is known."""

    learning_rate: float
    weight_decay: float


def sam(
    learning_rate: optax.ScalarOrSchedule, momentum: float = 0.9, rho: float = 0.05
) -> optax.GradientTransformation:
    """Sharpness-aware minimization over SGD with momentum (Foret et al. 2020, arXiv:2010.01412).

    Every second step descends, by the gradient at the point of distance `rho` to which the step before
    ascended. Departs from the paper, which takes both gradients from the same batch.
    """

    def ascend(gradient, params):
        return optax.tree.scale(-rho / (optax.tree.norm(gradient) + 1e-12), gradient)

    return contrib.sam(optax.sgd(learning_rate, momentum), optax.stateless(ascend), sync_period=2)


OPTIMIZERS = {
    "sgd": Usual(0.1, 1e-4),
    "momentum": Usual(0.05, 1e-4),
    "nesterov": Usual(0.05, 1e-4),
    "adagrad": Usual(0.01, 0.0),
    "rmsprop": Usual(0.001, 1e-5),
    "adam": Usual(0.001, 0.0),
    "adamw": Usual(0.001, 0.05),
    "lars": Usual(1.0, 1e-4),
    "sam": Usual(0.05, 1e-4),
    "lion": Usual(1e-4, 0.5),
    "lamb": Usual(0.005, 0.02),
    "adafactor": Usual(0.01, 0.0),
    "adadelta": Usual(1.0, 0.0),
    "contrib.muon": Usual(0.02, 0.01),
    "contrib.madgrad": Usual(0.01, 0.0),
    "fromage": Usual(0.01, 0.0),
    "optimistic_gradient_descent": Usual(0.05, 0.0),
}
"""Optimizers whose usual settings are known here; `list_optimizers` gives the names of all."""

WITH_MOMENTUM = ("momentum", "nesterov", "rmsprop", "lars", "sam")
"""Those that `momentum` is for."""

_MAKERS = {"momentum": optax.sgd, "nesterov": optax.sgd, "sam": sam}  # of names that Optax lacks
_FIXED = {
    "nesterov": {"nesterov": True},
    "rmsprop": {"decay": 0.9},
    "contrib.muon": {"muon_weight_dimension_numbers": lambda params: jax.tree.map(_as_matrix, params)},
}
_MASKS = ("mask", "weight_decay_mask", "trust_ratio_mask")
_LEFT_OUT = {
    "lbfgs": "needs the loss as a function",
    "noisy_sgd": "draws random numbers by a key of its own",
    "contrib.acprop": "divides by nearly nothing in its first step",
    "contrib.dpsgd": "needs the gradient of each example",
    "contrib.galore": "has empty arrays in its state, which checkpoints do not take",
    "contrib.momo": "needs the loss",
    "contrib.momo_adam": "needs the loss",
    "contrib.schedule_free": "needs another optimizer; contrib.schedule_free_adamw has one",
    "contrib.sophia": "needs the loss as a function",
}


def _as_matrix(leaf: jax.Array) -> Any:
    """How Muon takes a kernel for a matrix: its last axis by all others. None leaves it to Adam."""
    if leaf.ndim < 2:
        return None
    return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)


def _is_function(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, functools.partial)  # as `optax.nadam` is


@functools.cache
def _makers() -> Mapping[str, Callable]:
    """Every optimizer that needs no more than a learning rate and gradients."""
    found = {}
    for prefix, module in (("", optax), ("contrib.", contrib)):
        for name, make in inspect.getmembers(module, _is_function):
            if name.startswith(("_", "scale_by_")):
                continue
            if "learning_rate" in inspect.signature(make).parameters:
                found[prefix + name] = make
    return {name: make for name, make in found.items() if name not in _LEFT_OUT} | _MAKERS


def list_optimizers() -> list[str]:
    """The names that `create_optimizer` takes: "momentum", "nesterov", "sam", and Optax's own, with
    "contrib." before those of `optax.contrib`."""
    return sorted(_makers())


def usual_settings(name: str) -> Usual:
    """The learning rate and weight decay to start from: Optax's, where nothing better is known.

    Raises:
        InputError: for an unknown name.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    default = inspect.signature(_maker(name)).parameters["learning_rate"].default
    return Usual(default if isinstance(default, float) else 0.001, 0.0)


def create_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    clip_norm: float | None = None,
    **settings: Any,
) -> optax.GradientTransformation:
    """An Optax optimizer with the usual settings for image classification.

    Weight decay is not applied to biases or to the scales and shifts of normalization layers. Where
    Optax's optimizer has a weight decay with a mask, as "adamw", "lars", "lamb" and "lion" have, it is
    applied in its own way; for the others it is an L2 penalty, added to the gradient as in PyTorch.

    Args:
        name: one of `list_optimizers()`: "sgd", "momentum" or "nesterov" (SGD with classical or Nesterov
            momentum), "sam", or any of Optax's, such as "adamw", "lamb" or "contrib.muon".
        learning_rate: a number or a schedule. It can be read (and a number overwritten) in the state's
            `hyperparams["learning_rate"]`. This and the numbers below may be traced, so that optimizers
            with different settings can run under one `vmap` (`training.search`).
        weight_decay: strength of the weight decay; 0 for none.
        momentum: momentum of "momentum", "nesterov", "rmsprop", "lars" and "sam".
        clip_norm: maximum global norm of the gradient; None for no clipping.
        **settings: other arguments of Optax's function, such as `b2=0.95`, if they are numbers or the
            like.

    Raises:
        InputError: for an unknown name or setting, or a negative number.
    """
    make = _maker(name)
    if not callable(learning_rate):
        refuse_negative("learning_rate", learning_rate)
    refuse_negative("weight_decay", weight_decay)
    refuse_negative("momentum", momentum)
    if clip_norm is not None and is_known(clip_norm) and clip_norm <= 0:
        raise InputError(f"clip_norm is {clip_norm}; it must be above 0, or None for no clipping")
    parameters = inspect.signature(make).parameters
    given = dict(_FIXED.get(name, {}))
    if name in WITH_MOMENTUM:
        given["momentum"] = momentum
    masks = [key for key in _MASKS if key in parameters]
    masked = bool(masks) and "weight_decay" in parameters
    if masked:
        given |= dict.fromkeys(masks, decay_mask) | {"weight_decay": weight_decay}
    taken = {"learning_rate", "weight_decay", *given, *_MASKS}
    known = {key: value for key, value in parameters.items() if key not in taken}
    _check_settings(name, settings, known)
    given |= settings

    def build(learning_rate: Any) -> optax.GradientTransformation:
        rule = make(learning_rate, **given)
        if not masked and (not is_known(weight_decay) or weight_decay):
            return optax.chain(optax.add_decayed_weights(weight_decay, decay_mask), rule)
        return rule

    optimizer = optax.inject_hyperparams(build)(learning_rate=learning_rate)
    if settings:
        _try_settings(name, settings, optimizer)
    if clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)


def decay_mask(params: Any) -> Any:
    """True for the leaves that weight decay applies to: kernels, but not biases, scales or shifts."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def moves_averages(name: str) -> bool:
    """Whether an optimizer is evaluated at other parameters than it takes gradients at; its updates
    cannot be scaled afterwards."""
    return name == "sam" or name.startswith("contrib.schedule_free")


def evaluation_params(params: Any, opt_state: Any) -> Any:
    """The parameters to evaluate, where an optimizer takes gradients at others.

    Those are the average of a schedule-free optimizer (Defazio et al. 2024, arXiv:2405.15682), and for
    `sam` those that it descended to last. Any other optimizer leaves the parameters as they are.
    """
    kinds = (contrib.ScheduleFreeState, contrib.SAMState)
    for state in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(state, contrib.ScheduleFreeState):
            average = lambda z, y, state=state: contrib.schedule_free_eval_params(  # noqa: E731
                state._replace(z=z), y
            )
            return _map_trained(average, state.z, params)
        if isinstance(state, contrib.SAMState):
            ascended = state.steps_since_sync > 0
            return _map_trained(functools.partial(jnp.where, ascended), state.cache, params)
    return params


def _map_trained(function: Callable, own: Any, params: Any) -> Any:
    """Maps over a tree of an optimizer's and the parameters, but leaves as they are those that it does
    not train."""
    masked = lambda leaf: isinstance(leaf, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda a, b: b if masked(a) else function(a, b), own, params, is_leaf=masked)


def _maker(name: str) -> Callable:
    if name not in _makers():
        if name in _LEFT_OUT:
            raise InputError(f"optimizer: {name} {_LEFT_OUT[name]}; give another")
        raise unknown_name("optimizer", name, list_optimizers())
    return _makers()[name]


def _try_settings(
    name: str, settings: Mapping[str, Any], optimizer: optax.GradientTransformation
) -> None:
    """Raises InputError if Optax cannot do with settings that it alone knows the types of."""
    try:
        jax.eval_shape(optimizer.init, {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)})
    except (TypeError, ValueError) as error:
        told = ", ".join(f"{setting}={value!r}" for setting, value in settings.items())
        reason = str(error).partition("\n")[0]
        raise InputError(f"optimizer_settings: {name} does not take {told}: {reason}") from None


def _check_settings(name: str, settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    refuse_unknown("optimizer_settings", name, settings, known)
    for setting, value in settings.items():
        wanted = {bool: bool, int: float, float: float}.get(type(known[setting].default))
        if wanted is not None and not fits(value, wanted):
            what = "true or false" if wanted is bool else "a number"
            raise InputError(f"optimizer_settings: {setting} of {name} is {value!r}; it must be {what}")
