"""Fine-tuning: a run that begins with the weights of another classifier, and their images."""

import jax
import optax

from jaxnets import weights
from jaxnets.config import ImageConfig, is_run, parse_settings
from jaxnets.data import Dataset
from jaxnets.errors import InputError
from jaxnets.models import Classifier
from jaxnets.paths import name_and_source
from jaxnets.weights import Preprocessing, Pretrained


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


def read(name: str, source: str | None, of_run, **options) -> Pretrained:
    """The weights of a run, as they are, or of another source, as `weights.load` with these options.

    Args:
        name: of a model, for its best public weights; or the source, where there is no other.
        source: a run, or as for `weights.load`, which must be of that model.
        of_run: from the directory of a run to its `Pretrained`.
        **options: of `weights.load`.
    """
    directory = source or name
    if not is_run(directory):
        return weights.load(name, source, **options)
    loaded = of_run(directory)
    wanted = None if source is None else name
    weights.refuse_other_model(loaded.origin, loaded.model.model_name, wanted)
    return loaded


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
    loaded = read(*_told_apart(config), of_run, head=weights.DRAWN, **settings)
    if not isinstance(loaded.model, Classifier):
        raise InputError(f"pretrained: {loaded.model.model_name} is no classifier; give one")
    class_names = tuple(dataset.class_names)
    kept = class_names == loaded.class_names and not loaded.headless
    old = "" if loaded.headless else f" in place of {len(loaded.class_names)}"
    loaded = weights.in_rgb(loaded).adapted(
        class_names=class_names,
        in_channels=dataset.image_shape[2],
        key=jax.random.key(config.seed),
        **settings,
    )
    same = "the classes of the weights" if kept else f"{len(class_names)} classes{old}"
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
    name, source = name_and_source(config.pretrained)
    if source is not None:
        return name, source
    if config.model not in (None, config.pretrained):
        return config.model, config.pretrained
    return config.pretrained, None
