"""Weights of one net in another that differs in its classes or in the channels of its images.

What differs is found by comparing the shapes of two models, so no family needs to say which of its
layers come first and last.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.errors import InputError
from jaxnets.models import Classifier
from jaxnets.weights.conversion import Variables, abstract_leaves

Path = tuple[str, ...]


def with_channels(model: Classifier, channels: int) -> Classifier:
    """The model for images of so many channels: `model.init` with `model.input_size` makes it so."""
    height, width, _ = model.input_size
    return model.clone(input_size=(height, width, channels))


def adapted(variables: Mapping[str, Any], model: Classifier, key: jax.Array) -> Variables:
    """The variables of a model, taken from a net that has other classes, channels or auxiliary heads.

    A layer that scores other classes is drawn anew, and so is an auxiliary head that was not there;
    one that the model lacks is dropped. The first convolution of a net for other images becomes their
    sum for 1 channel, so that a gray image gives what it gave in three equal channels. For more, the
    channels are repeated in order and scaled by old / new, so that activations keep their size.

    Args:
        variables: nested dicts of arrays.
        model: of `jaxnets.create_model`, perhaps `with_channels`.
        key: for what is drawn.

    Raises:
        InputError: they differ elsewhere.
    """
    found = flatten_dict(variables)
    result, drawn = {}, []
    for path, shape in abstract_leaves(model):
        value = found.get(path)
        if value is not None and value.shape == shape:
            result[path] = value
        elif value is not None and _differ_in_channels(value.shape, shape):
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


def class_leaves(model: Classifier, wider: Classifier) -> list[Path]:
    """The paths of the variables whose shapes are not those of a model with one more class."""
    shapes = dict(abstract_leaves(wider))
    return [path for path, shape in abstract_leaves(model) if shapes[path] != shape]


def first_kernel(model: Classifier) -> Path:
    """The path of the kernel that reads the image's channels."""
    channels = model.input_size[2]
    (path,) = class_leaves(model, with_channels(model, channels + 1))
    return path


def _differ_in_channels(came: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(came) == len(wanted) == 4 and (*came[:2], came[3]) == (*wanted[:2], wanted[3])


def _of_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    before = kernel.shape[2]
    if channels == 1:
        return kernel.astype(np.float32).sum(axis=2, keepdims=True).astype(kernel.dtype)
    repeated = kernel[:, :, np.arange(channels) % before].astype(np.float32)
    return (repeated * (before / channels)).astype(kernel.dtype)


def _drawn(model: Classifier, paths: list[Path], key: jax.Array) -> list[jax.Array]:
    # Under jit all that is not asked for, the net's whole pass among it, is left out.
    variables = flatten_dict(model.init(key, jnp.zeros((1, *model.input_size))))
    return [variables[path] for path in paths]
