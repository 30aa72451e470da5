"""A contact sheet of all augmentations."""

import functools
import inspect
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data import augmentation
from jaxnets.data.dataset import Dataset, Source, read_batch
from jaxnets.data.example import KEYS, Example
from jaxnets.data.marking import colored, marked
from jaxnets.errors import InputError
from jaxnets.outputs import check_picture, save_figure

SAMPLES = 8


def contact_sheet(images: Dataset | Source | np.ndarray, path: str | os.PathLike, seed: int = 0) -> None:
    """Writes a PNG with a row for every augmentation: the original, then eight samples.

    Presets and augmentations of batches are included. The rows cycle through the images. Augmentations
    that are applied with a probability are always applied. Boxes, masks and label maps are drawn as
    they are moved.

    Args:
        images: a dataset (its training images), a source, or uint8[N, H, W, C] with C = 1 or 3, of
            which the first few are shown.
        path: the file to write.
        seed: seed of the samples.

    Raises:
        InputError: `images` is an array of another type or shape, or empty; a file that cannot be
            written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(path)
    examples = _first_examples(images)
    examples["image"] = originals = examples["image"] / np.float32(255)
    factories = augmentation.AUGMENTATIONS | augmentation.PRESETS
    batch_key, *keys = jax.random.split(jax.random.key(seed), 1 + len(factories))
    rows = {}
    for number, (name, factory) in enumerate(factories.items()):
        original = {entry: values[number % len(originals)] for entry, values in examples.items()}
        by_chance = "p" in inspect.signature(factory).parameters
        augment = factory(p=1) if by_chance else factory()
        samples = jax.tree.map(np.asarray, _samples(keys[number], original, augment))
        shown = ({entry: values[k] for entry, values in samples.items()} for k in range(SAMPLES))
        rows[name] = _strip(_drawn(original), [_drawn(one) for one in shown])
    for name, factory in augmentation.BATCH_AUGMENTATIONS.items():
        samples = np.asarray(_batch_samples(batch_key, originals, factory(1.0)))
        rows[name] = _strip(originals[0], samples)

    width = 2 + SAMPLES  # inches
    height, length, _ = rows[name].shape
    figure = Figure(figsize=(width, 0.88 * width * 1.05 * len(rows) * height / length), dpi=100)
    FigureCanvasAgg(figure)
    for axis, (name, row) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        axis.imshow(row, vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    figure.subplots_adjust(left=0.11, right=0.99, bottom=0.002, top=0.998, hspace=0.05)
    save_figure(figure, path, dpi=100)


def _drawn(example: dict[str, np.ndarray]) -> np.ndarray:
    """The image of an example with its objects or label map drawn into it, f32[H, W, C]."""
    if "box" not in example and "segmentation" not in example:
        return example["image"]
    height, width, _ = example["image"].shape
    image = np.broadcast_to(np.round(255 * example["image"]), (height, width, 3)).astype(np.uint8)
    if "segmentation" in example:
        image = colored(image, example["segmentation"])
    if "box" not in example:
        return image / np.float32(255)
    valid = example.get("valid", np.ones(len(example["box"]), bool))
    labels = example.get("label", np.zeros(len(valid), int))
    masks = example["mask"][valid] >= 0.5 if "mask" in example else None
    line = max(1, width // 100)
    drawn = marked(image, example["box"][valid], np.ravel(labels)[valid], masks, line=line)
    return drawn / np.float32(255)


def _strip(original: np.ndarray, samples: Sequence[np.ndarray]) -> np.ndarray:
    """Images side by side with white gaps, f32[H, W', 3]; the gap after the original is wider."""
    height, width, _ = original.shape
    gap = np.ones((height, max(width // 16, 1), 3))
    cells = [gap]
    for image in samples:
        cells += [gap, np.broadcast_to(image, (height, width, 3))]
    return np.concatenate([np.broadcast_to(original, (height, width, 3)), *cells], axis=1)


def _first_examples(images: Dataset | Source | np.ndarray) -> dict[str, np.ndarray]:
    """The first examples of a dataset or source, or images of an array, at most eight, stacked."""
    if isinstance(images, Dataset):
        images = images.train
    if isinstance(images, np.ndarray):
        examples = {"image": images[:SAMPLES]}
    else:
        batch = read_batch(images, np.arange(min(SAMPLES, len(images))))
        examples = {name: values for name, values in batch.items() if name in KEYS}
    images = examples["image"]
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or not shape[0]:
        raise InputError(
            f"images must be uint8[N, H, W, C] with C = 1 or 3, got {images.dtype}{list(shape)}"
        )
    return examples


@functools.partial(jax.jit, static_argnums=2)
def _samples(key: jax.Array, example: Example, augment: augmentation.Augmentation) -> Example:
    """Eight samples of one example, stacked."""
    examples = jax.tree.map(lambda entry: jnp.broadcast_to(entry, (SAMPLES, *entry.shape)), example)
    return augmentation.apply(key, examples, augment)


@functools.partial(jax.jit, static_argnums=2)
def _batch_samples(
    key: jax.Array, images: jax.Array, augment: augmentation.BatchAugmentation
) -> jax.Array:
    """The first image of eight augmented batches, f32[8, H, W, C]."""
    targets = jnp.eye(len(images))
    return jax.vmap(lambda own: augment(own, images, targets)[0][0])(jax.random.split(key, SAMPLES))
