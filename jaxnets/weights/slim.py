"""Weights of TF-Slim, as its checkpoints have them.

A family's `RENAMES["slim"]` has the scopes of slim's variables; the parameters within a scope are named
as in torch. Slots of optimizers and averages are variables below the weight that they belong to.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnets.weights.layout import KERNEL_LAYOUTS, LaidOut

LIBRARY = "slim"
AVERAGE = "ExponentialMovingAverage"

_LEAVES = {
    "weights": "weight",
    "biases": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "depthwise_weights": "depthwise.weight",
    "pointwise_weights": "pointwise.weight",
}
_DEPTHWISE = "h w c m -> (c m) 1 h w"


def state_dict(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a checkpoint by their scopes, with dots for slashes, and torch's names and
    layouts.

    Where there are moving averages, all variables are there once more below `ExponentialMovingAverage`,
    by their average where they have one. Slots of optimizers are below `optimizer`. Scales of
    normalizations that slim left out are ones.

    Args:
        variables: arrays, or objects that NumPy can read, by the names in the checkpoint.
    """
    raw, averages, slots = {}, {}, {}
    for name, value in variables.items():
        parent, _, leaf = name.rpartition("/")
        if parent not in variables:
            raw[name] = value
        elif leaf == AVERAGE:
            averages[parent] = value
        else:
            slots[name] = value
    tensors = _renamed(raw)
    if averages:
        averaged = _renamed(raw | averages).items()
        tensors |= {f"{AVERAGE}.{key}": value for key, value in averaged}
    return tensors | {f"optimizer.{name.replace('/', '.')}": value for name, value in slots.items()}


def _renamed(variables: Mapping[str, Any]) -> dict[str, Any]:
    tensors = {}
    for name, value in variables.items():
        scope, _, leaf = name.rpartition("/")
        if leaf == "biases" and f"{scope}/pointwise_weights" in variables:
            scope = f"{scope}/pointwise"
        key = ".".join(filter(None, (*scope.split("/"), _LEAVES.get(leaf, leaf))))
        layout = _DEPTHWISE if leaf == "depthwise_weights" else KERNEL_LAYOUTS.get(len(value.shape))
        tensors[key] = LaidOut(value, layout) if layout and leaf in _LEAVES else value
        if leaf == "moving_variance" and f"{scope}/gamma" not in variables:
            tensors[f"{scope.replace('/', '.')}.weight"] = np.ones(value.shape, np.float32)
    return tensors
