"""Tensors under the names and in the layouts of Flax and other programs, spelled as torch's.

Programs in Flax have the same layers as programs in torch, but call a weight `kernel` or `scale` and
have its axes in another order. Spelled as torch's, their tensors find their place by the same tables as
all others.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnets.errors import InputError
from jaxnets.layers.normalization import CONSTANTS
from jaxnets.models.registry import family_of
from jaxnets.weights.layout import KERNEL_LAYOUTS, rearrange

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
"""Torch's names of the parameters of a layer, by Flax's."""

_COLLECTIONS = {"params", "batch_stats", CONSTANTS}
_OLD_OPTIMIZER = re.compile(r"^(opt|optimizer)\.target\.")  # Flax's own, which held the parameters
_FROM_HEADS = "h d o -> o (h d)"  # the last layer of Flax's attention, whose heads have an axis
_TO_HEADS = "i h d -> (h d) i"  # and its others


def spelled(tensors: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The tensors of any program for a model of this name, as far as it is known, by the names of
    torch's libraries; those that are torch's are left as they are.

    Args:
        tensors: by names with dots or slashes.
        name: one of `jaxnets.list_models()`.

    Raises:
        InputError: two tensors have the same name.
    """
    if any(re.split(r"[./]", key)[-1] == "kernel" for key in tensors):
        tensors = _from_flax(tensors)
    respelled = getattr(family_of(name), "respelled", None)
    return respelled(tensors) if respelled else tensors


def _from_flax(tensors: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in tensors.items():
        *modules, leaf = path.replace("/", ".").split(".")
        collections = [i for i, part in enumerate(modules) if part in _COLLECTIONS]
        if collections:  # torch has statistics beside the parameters
            modules[collections[-1]] = "params"
        module = _OLD_OPTIMIZER.sub("", ".".join([*modules, ""]))
        key = module + LEAVES.get(leaf, leaf)
        if key in found:
            raise InputError(f"state_dict: it holds {key} twice, once as {path}; keep one of them")
        found[key] = _in_torchs_layout(module, leaf, value)
    return found


def _in_torchs_layout(module: str, leaf: str, value: Any) -> Any:
    axes = np.ndim(value)
    if leaf == "kernel" and axes == 3:
        of_last = module.endswith(".out.")
        return rearrange(np.asarray(value), _FROM_HEADS if of_last else _TO_HEADS)
    if leaf == "kernel" and axes in KERNEL_LAYOUTS:
        return rearrange(np.asarray(value), KERNEL_LAYOUTS[axes])
    if leaf == "bias" and axes == 2:  # of the same attention
        return np.asarray(value).reshape(-1)
    return value
