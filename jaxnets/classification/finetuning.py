"""Fine-tuning: a run that begins with the weights of another classifier, and their images."""

import dataclasses

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets import weights
from jaxnets.config import ImageConfig, is_run, parse_settings
from jaxnets.data import Dataset
from jaxnets.errors import InputError
from jaxnets.models import Classifier
from jaxnets.weights import Preprocessing, Pretrained, adaptation


def wanted_images(config: ImageConfig, images_of) -> Preprocessing | None:
    """The images that the pretrained weights want; None where nothing tells, or without weights.

    Args:
        config: with `pretrained`.
        images_of: from the directory of a run to the preprocessing of its images.
    """
    if config.pretrained is None:
        return None
    name, source = _told_apart(config)
    if is_run(source or name):
        return images_of(source or name)
    try:
        return weights.preprocessing(name, source)
    except weights.UnknownImagesError:
        return None


def read_pretrained(config: ImageConfig, of_run, dataset: Dataset) -> tuple[Pretrained, str]:
    """The weights to begin with, in a model for a dataset, and a line that says what became of their
    head: it is kept where the classes are those of the weights, and drawn anew elsewhere.

    Args:
        config: with `pretrained`, `model`, `settings` and `seed`.
        of_run: from the directory of a run to its `Pretrained`.
        dataset: what to train on.

    Raises:
        InputError: as of `jaxnets.load_pretrained`, or they are no classifier's.
    """
    settings = parse_settings(config.settings)
    name, source = _told_apart(config)
    if is_run(source or name):
        loaded = of_run(source or name)
        wanted = None if source is None else name
        weights.refuse_other_model(loaded.origin, loaded.model.model_name, wanted)
    else:
        loaded = weights.load(name, source, **settings)
        if not isinstance(loaded.model, Classifier):
            raise InputError(f"pretrained: {loaded.model.model_name} is no classifier; give one")
    class_names = tuple(dataset.class_names)
    kept = class_names == loaded.class_names
    old = len(loaded.class_names)
    loaded = _in_rgb(loaded).adapted(
        class_names=class_names,
        in_channels=dataset.image_shape[2],
        key=jax.random.key(config.seed),
        **settings,
    )
    same = "the classes of the weights" if kept else f"{len(class_names)} classes in place of {old}"
    head = "kept" if kept else "new"
    return loaded, f"weights of {loaded.origin}; head {head}, for {same}"


def transformed(
    optimizer: optax.GradientTransformation,
    model: Classifier,
    first: str | None,
    decay: float | None,
) -> optax.GradientTransformation:
    """An optimizer that changes the early parts of a model less, or not at all.

    Args:
        optimizer: any.
        model: what it trains.
        first: the first part to train, as for `weights.freeze_mask`; None for all.
        decay: as for `weights.layerwise_decay`; None for none.

    Raises:
        InputError: as of either.
    """
    if decay is not None:
        optimizer = optax.chain(optimizer, weights.layerwise_decay(model, decay))
    if first is not None:
        frozen = weights.freeze_mask(model, first)
        optimizer = optax.selective_transform(optimizer, freeze_mask=frozen)
    return optimizer


def _told_apart(config: ImageConfig) -> tuple[str, str | None]:
    """The name of a model, or a source that tells it, and the source of its weights."""
    name, equals, source = config.pretrained.partition("=")
    if equals:
        return name, source
    if config.model not in (None, config.pretrained):
        return config.model, config.pretrained
    return config.pretrained, None


def _in_rgb(loaded: Pretrained) -> Pretrained:
    """The same weights for images in RGB, as datasets have them."""
    images = loaded.preprocessing
    if images is None or images.order == "RGB":
        return loaded
    variables = flatten_dict(loaded.variables)
    path = adaptation.first_kernel(loaded.model)
    variables[path] = variables[path][:, :, ::-1]
    images = dataclasses.replace(images, order="RGB", mean=images.mean[::-1], std=images.std[::-1])
    return dataclasses.replace(loaded, variables=unflatten_dict(variables), preprocessing=images)
