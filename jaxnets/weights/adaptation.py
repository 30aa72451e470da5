"""Weights of a model in another one that differs in its classes or in the channels of its images.

The layers that differ are found by comparing the shapes of two models, so no family has to state which
of its layers are first and last.
"""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.errors import InputError
from jaxnets.weights.conversion import Variables, abstract_leaves

Path = tuple[str, ...]


def with_channels(model: nn.Module, channels: int) -> nn.Module:
    """The model for images of another number of channels, which its `input_size` then states."""
    height, width, _ = model.input_size
    return model.clone(input_size=(height, width, channels))


def adapted(
    variables: Mapping[str, Any], model: nn.Module, key: jax.Array, anew: Collection[Path] = ()
) -> Variables:
    """The variables of a model, taken from one with other classes, channels or auxiliary heads.

    What the variables lack of a head is drawn anew, as what does not fit it; what the model lacks is
    dropped. For 1 channel the first kernel is summed over
    its channels, so that a gray image gives the output that it gave as three equal channels. For more,
    its channels are repeated in order and scaled by old / new, which keeps the scale of the activations.

    Args:
        variables: nested dicts of arrays.
        model: of `jaxnets.create_model`, perhaps `with_channels`.
        key: for the parameters that are drawn.
        anew: the paths of variables that are drawn, whatever came.

    Raises:
        InputError: they differ in other layers.
    """
    found = flatten_dict(variables)
    result, drawn = {}, []
    for path, shape in abstract_leaves(model):
        value = found.get(path)
        if path in anew:
            drawn.append(path)
        elif value is not None and value.shape == shape:
            result[path] = value
        elif value is not None and _differ_in_channels(value.shape, shape) and path in _readers(model):
            result[path] = _of_channels(np.asarray(value), shape[2])
        elif path[1] == "head" or path[1].startswith("auxiliary_"):
            drawn.append(path)
        else:
            came = "nothing" if value is None else value.shape
            raise InputError(
                f"weights: {'/'.join(path)} is {shape} in {model.model_name}, and {came} came; give the "
                "model, and its settings, that the weights were made for"
            )
    if drawn:
        dtype = next(iter(result.values())).dtype
        values = jax.jit(functools.partial(_drawn, model, drawn))(key)
        result |= {
            path: np.asarray(value).astype(dtype) for path, value in zip(drawn, values, strict=True)
        }
    return unflatten_dict({path: result[path] for path, _ in abstract_leaves(model)})


def class_leaves(model: nn.Module, other: nn.Module) -> list[Path]:
    """The paths of the variables whose shapes are not those of a model with other classes."""
    shapes = dict(abstract_leaves(other))
    return [path for path, shape in abstract_leaves(model) if shapes.get(path) != shape]


def first_kernel(model: nn.Module) -> Path | None:
    """The path of the kernel that reads the image's channels; None where it reads each by itself."""
    paths = _readers(model)
    return paths[0] if len(paths) == 1 else None


def _readers(model: nn.Module) -> list[Path]:
    """The paths of the variables whose shapes depend on the image's channels."""
    return class_leaves(model, with_channels(model, model.input_size[2] + 1))


def _differ_in_channels(came: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(came) == len(wanted) == 4 and (*came[:2], came[3]) == (*wanted[:2], wanted[3])


def _of_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    before = kernel.shape[2]
    if channels == 1:
        return kernel.astype(np.float32).sum(axis=2, keepdims=True).astype(kernel.dtype)
    repeated = kernel[:, :, np.arange(channels) % before].astype(np.float32)
    return (repeated * (before / channels)).astype(kernel.dtype)


def _drawn(model: nn.Module, paths: list[Path], key: jax.Array) -> list[jax.Array]:
    # Under jit what is not returned, such as the forward pass, is not computed.
    variables = flatten_dict(model.init(key, jnp.zeros((1, *model.input_size))))
    return [variables[path] for path in paths]
