"""Weights of Keras's applications, whole or with another head.

A family's `RENAMES["keras"]` has Keras's names of layers; the parameters within a layer are named and
laid out as in torch. What the weights want of the model besides, such as TensorFlow's padding, is in
the family's `WEIGHTS`.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from jaxnets.errors import InputError, unknown_name
from jaxnets.models import create_model
from jaxnets.models.registry import family_of, settings_of_library
from jaxnets.weights.conversion import Variables, from_torch, places_of
from jaxnets.weights.layout import KERNEL_LAYOUTS, LaidOut
from jaxnets.weights.renames import libraries

KERAS = "keras"  # the key of `RENAMES`

LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
    "bias": "bias",
    "depthwise_kernel": "depthwise.weight",
    "pointwise_kernel": "pointwise.weight",
}
_SEED = "seed_generator_state"  # which layers that draw, such as dropout, keep
_UNNAMED = re.compile(r"(?P<kind>conv2d|batch_normalization)(_(?P<number>\d+))?")
_MAXIMA = "GlobalMaxPooling2D"
_AS_CONVOLUTION = "i o -> o i 1 1"
_DEPTHWISE = "h w c m -> c m h w"

Tensors = Mapping[str, Any]


def from_keras(name: str, weights: Mapping[str, Any], **overrides: Any) -> Variables:
    """The variables of a model, from the weights of a Keras application.

    The application may be a layer of another model, with another head of the same form: the means of its
    maps, dropout and a dense layer.

    Args:
        name: one of `jaxnets.list_models()`.
        weights: arrays by their paths: `{w.path: w.numpy() for w in keras_model.weights}`.
        **overrides: the settings the model is made with, as for `jaxnets.create_model`. Those that
            Keras's nets want are taken where none are given: make the model with
            `create_model(name, **jaxnets.weights.settings_of_library(name, "keras"))`.

    Returns:
        `params` and, where there are any, `batch_stats`, as from `from_torch`.

    Raises:
        InputError: the model or a setting is unknown, Keras has no such model, or the weights do
            not fit.
    """
    found = []
    for path, value in weights.items():
        layer, _, leaf = path.rpartition("/")
        layer = layer.rpartition("/")[2]
        if leaf == _SEED:
            continue
        if leaf not in LEAVES:
            raise InputError(
                f"weights: wanted paths such as 'conv1/kernel', got {path!r}; give "
                "{w.path: w.numpy() for w in keras_model.weights}"
            )
        found.append((layer, leaf, np.asarray(value)))
    if KERAS not in libraries(name):
        raise unknown_name(f"library of {name}", KERAS, libraries(name))
    tensors = in_torchs_layout("weights", found)
    settings = {**settings_of_library(name, KERAS), **head_settings(name, tensors), **overrides}
    named = with_named_head(tensors, create_model(name, **settings))
    return from_torch(name, named, KERAS, **settings)


def in_torchs_layout(origin: str, variables: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    """The variables of layers by the names and in the layouts of torch.

    Layers that the application did not name are numbered from 0 in each file; Keras numbers them per
    process. Normalizations without scale get one of ones, without offset one of zeros.

    Args:
        origin: for the error.
        variables: of each the layer's name, its own in Keras 2 and 3 (a key of `LEAVES`, or any other
            that no model of ours has), and an array or what NumPy can read, in the order of the layers.

    Raises:
        InputError: two have the same name.
    """
    variables = list(variables)
    numbers = _numbers([layer for layer, _, _ in variables])
    separable = {layer for layer, leaf, _ in variables if leaf == "pointwise_kernel"}
    tensors: dict[str, Any] = {}
    for layer, leaf, value in variables:
        # Keras 2 calls the kernel of a depthwise convolution so too.
        alone = leaf == "depthwise_kernel" and layer not in separable
        name = "weight" if alone else LEAVES.get(leaf, leaf)
        key = f"{numbers.get(layer, layer)}.{name}"
        if key in tensors:
            raise InputError(f"{origin}: it holds {layer}/{leaf} twice; keep one application in it")
        tensors[key] = _laid_out(value, leaf)
    for key in [key for key in tensors if key.endswith(".running_var")]:
        layer, shape = key.removesuffix(".running_var"), tensors[key].shape
        tensors.setdefault(f"{layer}.weight", np.ones(shape, np.float32))
        tensors.setdefault(f"{layer}.bias", np.zeros(shape, np.float32))
    return tensors


def refuse_other_head(origin: str, config: Any) -> None:
    """Checks what the weights of a head do not show.

    Args:
        origin: for the error.
        config: of the model, or empty where its file has none.

    Raises:
        InputError: its head reads other features than the means of the maps.
    """
    if _MAXIMA in _classes(config):
        raise InputError(
            f"{origin}: its head reads the maxima of the maps ({_MAXIMA}), and here it would read their "
            "means; give num_classes for a new one"
        )


def _classes(config: Any) -> set[str]:
    """The classes of all layers in the configuration of a model."""
    parts = config.values() if isinstance(config, Mapping) else config
    if not isinstance(parts, Iterable) or isinstance(parts, str):
        return set()
    own = {config["class_name"]} if isinstance(config, Mapping) and "class_name" in config else set()
    return own.union(*map(_classes, parts))


def head_settings(name: str, tensors: Tensors) -> dict[str, Any]:
    """The settings of a model's head by the dense layers of a file, of a family that has several forms.

    Args:
        name: of the model.
        tensors: of `in_torchs_layout`.
    """
    known = getattr(family_of(name), "settings_of_head", None)
    if known is None:
        return {}
    return known([tensors[f"{layer}.weight"].shape[::-1] for layer in _dense_layers(tensors)])


def with_named_head(tensors: Tensors, model: nn.Module) -> dict[str, Any]:
    """The tensors, those of the dense layers by the names that these have in the application.

    Args:
        tensors: of `in_torchs_layout`.
        model: with as many dense layers in its head; tensors of others keep their names.
    """
    head = {p.key.rpartition(".")[0]: len(p.reference_shape) for p in _head_kernels(model)}
    layers = _dense_layers(tensors)
    names = dict(zip(layers, head, strict=True)) if len(layers) == len(head) else {}
    result = {}
    for key, value in tensors.items():
        layer, _, leaf = key.rpartition(".")
        name = names.get(layer, layer)
        if head.get(name) == 4 and len(value.shape) == 2:
            value = dataclasses.replace(value, layout=_AS_CONVOLUTION)
        result[f"{name}.{leaf}"] = value
    return result


def _head_kernels(model: nn.Module) -> Sequence[Any]:
    """The places of the kernels of a head, in the order of its layers."""
    places = [p for p in places_of(model, KERAS) if p.path[1] == "head" and p.path[-1] == "kernel"]
    return sorted(places, key=lambda place: place.path)


def _dense_layers(tensors: Tensors) -> list[str]:
    return [key.rpartition(".")[0] for key, value in tensors.items() if len(value.shape) == 2]


def _laid_out(value: Any, leaf: str) -> Any:
    layout = KERNEL_LAYOUTS.get(len(value.shape))
    # A depthwise convolution has a kernel [h, w, channels, 1], in Keras 3 by the plain name too.
    if len(value.shape) == 4 and (leaf == "depthwise_kernel" or value.shape[3] == 1):
        layout = _DEPTHWISE
    return LaidOut(value, layout) if layout else value


def _numbers(layers: Iterable[str]) -> dict[str, str]:
    """Names of the layers that the application did not name, by what they were called.

    Keras numbers these per process; here they are numbered per model. The first has no number.
    """
    unnamed: dict[str, list[tuple[int, str]]] = {}
    for layer in set(layers):
        if match := _UNNAMED.fullmatch(layer):
            unnamed.setdefault(match["kind"], []).append((int(match["number"] or 0), layer))
    return {
        layer: f"{kind}_{position}" if position else kind
        for kind, layers in unnamed.items()
        for position, (_, layer) in enumerate(sorted(layers))
    }
