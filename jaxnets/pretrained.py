"""Pretrained models: from a name to a model with its weights, and what is measured with them."""

from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets import runs, weights
from jaxnets.config import CONFIG_FILE
from jaxnets.models import Classifier
from jaxnets.training.fit import CHECKPOINTS
from jaxnets.weights import Preprocessing, Pretrained


def load_pretrained(
    name_or_path: str | PathLike,
    source: str | PathLike | None = None,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    dtype: Any = jnp.float32,
    key: jax.Array | None = None,
    **overrides: Any,
) -> tuple[Classifier, dict[str, Any]]:
    """A model and its weights, fetched where they are not here yet.

    Args:
        name_or_path: one of `jaxnets.list_models(pretrained=True)`, for its best public weights; or a
            source that says itself which model it is: "hf:timm/..." of the Hugging Face hub, a
            `.safetensors` file that `jaxnets convert` or `jaxnets.weights.save` wrote, or the directory
            of a run.
        source: weights for the model of that name: a `.safetensors` or `.pth` file (the latter with
            `pip install 'jaxnets[torch]'`), a folder with `model.safetensors`, "hf:OWNER/NAME", a
            published file such as "torchvision:resnet50-0676ba61.pth", or the directory of a run.
        num_classes: None for those of the weights. With another number the layer that scores classes
            is drawn anew and all else is loaded; with 0 there is none.
        in_channels: of the images; None for those of the weights. For 1 the first kernel is summed
            over its channels, for more than before they are repeated in order and scaled by old / new.
        dtype: of the variables; None for that of the file.
        key: for what is drawn anew; `jax.random.key(0)` where None.
        **overrides: settings of the model, as for `jaxnets.create_model`, for instance `drop_path=0.2`.

    Returns:
        The model, and its variables as NumPy arrays: `model.apply(variables, images)`.

    Raises:
        InputError: there are no such weights, they cannot be fetched (the text says which file to put
            where), are damaged, or are of another architecture (the text says which they look like).
    """
    loaded = load(
        name_or_path,
        source,
        num_classes,
        in_channels=in_channels,
        dtype=dtype,
        key=key,
        **overrides,
    )
    return loaded.model, loaded.variables


def load(
    name_or_path: str | PathLike,
    source: str | PathLike | None = None,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    dtype: Any = jnp.float32,
    key: jax.Array | None = None,
    **overrides: Any,
) -> Pretrained:
    """As `load_pretrained`, with what belongs to the weights: preprocessing, names of classes."""
    directory = Path(name_or_path if source is None else source)
    options = {"in_channels": in_channels, "key": key, **overrides}
    if not is_run(directory):
        return weights.load(name_or_path, source, num_classes, dtype=dtype, **options)
    run = runs.load_run(directory)
    if source is not None and run.config.model != str(name_or_path):
        raise weights.wrong_model(directory, run.config.model, name_or_path)
    side, _, channels = run.image_shape
    loaded = Pretrained(
        model=weights.with_channels(run.task.model, channels),
        variables=jax.tree.map(lambda leaf: np.asarray(leaf, dtype), run.variables),
        # As `jaxnets.data` cuts the images of a folder.
        preprocessing=Preprocessing(side, side, "bilinear", *_constants(run.task, channels)),
        class_names=run.class_names,
        settings=runs.parse_settings(run.config.settings),
        origin=str(directory),
    )
    return loaded.adapted(num_classes, **options)


def is_run(directory: str | PathLike) -> bool:
    """Whether a path is the directory of a run."""
    path = Path(directory)
    return (path / CONFIG_FILE).is_file() and (path / CHECKPOINTS).is_dir()


def _constants(task: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel."""
    mean, std = (np.broadcast_to(values, channels).tolist() for values in (task.mean, task.std))
    return tuple(mean), tuple(std)
