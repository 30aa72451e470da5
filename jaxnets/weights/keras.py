"""Weights of Keras's applications.

A family's `RENAMES["keras"]` has Keras's names of layers; the parameters within a layer are named as in
torch.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnets.errors import InputError
from jaxnets.weights.conversion import Variables, from_torch
from jaxnets.weights.layout import rearrange

_LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
    "bias": "bias",
    "depthwise_kernel": "depthwise.weight",
    "pointwise_kernel": "pointwise.weight",
}
_UNNAMED = re.compile(r"(?P<kind>conv2d|batch_normalization)(_(?P<number>\d+))?")


def from_keras(name: str, weights: Mapping[str, Any], **overrides: Any) -> Variables:
    """The variables of a model, from the weights of a Keras application.

    Args:
        name: one of `jaxnets.list_models()`.
        weights: arrays by their paths: `{w.path: w.numpy() for w in keras_model.weights}`.
        **overrides: the settings the model is made with, as for `jaxnets.create_model`. Keras's
            nets want `tf_padding=True` and `epsilon=1e-3`, which are no part of the weights.

    Returns:
        `params` and, where there are any, `batch_stats`, as from `from_torch`.

    Raises:
        InputError: the model or a setting is unknown, Keras has no such model, or the weights do
            not fit.
    """
    state_dict = {}
    numbers = _numbers(weights)
    for path, value in weights.items():
        layer, _, leaf = path.rpartition("/")
        if leaf not in _LEAVES:
            raise InputError(
                f"weights: wanted paths such as 'conv1/kernel', got {path!r}; give "
                "{w.path: w.numpy() for w in keras_model.weights}"
            )
        key = f"{numbers.get(layer, layer)}.{_LEAVES[leaf]}"
        state_dict[key] = _in_torchs_layout(np.asarray(value), leaf)
    return from_torch(name, state_dict, "keras", **overrides)


def _in_torchs_layout(value: np.ndarray, leaf: str) -> np.ndarray:
    if value.ndim == 2:
        return rearrange(value, "i o -> o i")
    if value.ndim != 4:
        return value
    # A depthwise convolution has a kernel [h, w, channels, 1], in Keras 3 by the plain name too.
    if leaf == "depthwise_kernel" or value.shape[3] == 1:
        return rearrange(value, "h w c m -> c m h w")
    return rearrange(value, "h w i o -> o i h w")


def _numbers(weights: Mapping[str, Any]) -> dict[str, str]:
    """Names of the layers that the application did not name.

    Keras numbers these per process; here they are numbered per model. The first has no number.
    """
    unnamed: dict[str, list[tuple[int, str]]] = {}
    for layer in {path.rpartition("/")[0] for path in weights}:
        if match := _UNNAMED.fullmatch(layer):
            unnamed.setdefault(match["kind"], []).append((int(match["number"] or 0), layer))
    return {
        layer: f"{kind}_{position}" if position else kind
        for kind, layers in unnamed.items()
        for position, (_, layer) in enumerate(sorted(layers))
    }
