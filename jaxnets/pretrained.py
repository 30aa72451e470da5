"""Pretrained models: from a name, a file or a run to a model with its weights."""

import dataclasses
from os import PathLike
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets import recipes, weights
from jaxnets.config import is_run
from jaxnets.errors import InputError
from jaxnets.paths import expanded, name_and_source
from jaxnets.runs import load_run
from jaxnets.weights import Pretrained


def load_pretrained(
    name_or_path: str | PathLike,
    source: str | PathLike | None = None,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    new_head: bool = False,
    dtype: Any = jnp.float32,
    key: jax.Array | None = None,
    **overrides: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """A model and its weights, fetched where they are not here yet.

    Args:
        name_or_path: one of `jaxnets.list_models(pretrained=True)`, for its best public weights; or a
            source that says itself which model it is: "hf:timm/..." of the Hugging Face hub, a
            `.safetensors` file that `jaxnets convert` or `jaxnets.weights.save` wrote, or the directory
            of a run.
        source: weights for the model of that name: a safetensors file, or one that torch saved, such as
            a `.pth` or a `.ckpt` (with `pip install 'jaxnets[torch]'`), an `.npz` archive, a `.msgpack`
            file of Flax's, a file of Keras's (with `pip install 'jaxnets[keras]'`), a checkpoint of
            TF-Slim's net (its prefix, directory or archive), a folder with `model.safetensors`,
            "hf:OWNER/NAME", a published file such as "torchvision:resnet50-0676ba61.pth", or the
            directory of a run. A training script's checkpoint will do: its prefixes are taken off, of
            raw weights and their running average the average is taken, and what is not loaded is logged
            by its names.
        num_classes: None for those of the weights. With another number the layers that score classes
            are drawn anew and all else is loaded; with 0 a classifier has none. With a number these
            layers may be missing.
        in_channels: of the images; None for those of the weights. For 1 the first kernel is summed
            over its channels, for more than before they are repeated in order and scaled by old / new.
        new_head: draw the layers that score classes anew, also for as many classes as before.
        dtype: of the variables; None for that of the file.
        key: for what is drawn anew; `jax.random.key(0)` where None.
        **overrides: settings of the model, as for `jaxnets.create_model`, for instance `drop_path=0.2`.

    Returns:
        The model, and its variables as NumPy arrays: `model.apply(variables, images)`.

    Raises:
        InputError: there are no such weights, they cannot be fetched (the text says which file to put
            where), are damaged, or are of another architecture (the text says which they look like).
    """
    head = weights.KEPT
    if num_classes == 0:
        head = weights.DROPPED
    elif num_classes is not None or new_head:
        head = weights.DRAWN
    loaded = load(name_or_path, source, dtype=dtype, key=key, head=head, **overrides)
    loaded = loaded.adapted(num_classes, in_channels=in_channels, new_head=new_head, key=key)
    return loaded.model, loaded.variables


def load(
    name_or_path: str | PathLike,
    source: str | PathLike | None = None,
    *,
    dtype: Any = jnp.float32,
    key: jax.Array | None = None,
    head: str = weights.KEPT,
    step: int | Literal["latest", "best"] = "latest",
    **settings: Any,
) -> Pretrained:
    """As `jaxnets.weights.load`, and from the directory of a run, the checkpoint of this step."""
    directory = expanded(name_or_path if source is None else source)
    if not is_run(directory):
        return weights.load(name_or_path, source, dtype=dtype, key=key, head=head, **settings)
    loaded = of_run(directory, step)
    wanted = None if source is None else name_or_path
    weights.refuse_other_model(directory, loaded.model.model_name, wanted)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), loaded.variables)
    return dataclasses.replace(loaded, variables=variables).adapted(key=key, **settings)


def named(text: str | PathLike, step: int | Literal["latest", "best"] = "latest") -> Pretrained:
    """As `load`, of NAME, NAME=SOURCE or SOURCE."""
    return load(*name_and_source(text), step=step)


def of_run(directory: str | PathLike, step: int | Literal["latest", "best"] = "latest") -> Pretrained:
    """What is inside the run of a directory, as a model with weights.

    Args:
        directory: of the run.
        step: which checkpoint, as for `jaxnets.runs.load_run`.

    Raises:
        InputError: it holds no run, or one of a task that has no such thing.
    """
    recipe = recipes.of_run(directory)
    if recipe.inside is None:
        raise InputError(f"{directory} holds a run of {recipe.name}, from which no weights can be taken")
    return recipe.inside(load_run(recipe, directory, step))
