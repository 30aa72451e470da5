"""Datasets, batches and augmentation. Imports nothing from jaxnets except its errors."""

from jaxnets.data import augmentation
from jaxnets.data.dataset import ArraySource, Dataset, Source
from jaxnets.data.pipeline import eval_batches, steps_per_epoch, train_batches
from jaxnets.data.prefetching import prefetch
from jaxnets.data.sampling import class_balanced, class_weights, folds, hold_out, repeated
from jaxnets.data.sheet import contact_sheet
from jaxnets.data.sources import load, register
from jaxnets.data.whitening import (
    Whitening,
    channel_statistics,
    fit_whitening,
    normalize,
    to_float,
    whiten,
)

__all__ = [
    "ArraySource",
    "Dataset",
    "Source",
    "Whitening",
    "augmentation",
    "channel_statistics",
    "class_balanced",
    "class_weights",
    "contact_sheet",
    "eval_batches",
    "fit_whitening",
    "folds",
    "hold_out",
    "load",
    "normalize",
    "prefetch",
    "register",
    "repeated",
    "steps_per_epoch",
    "to_float",
    "train_batches",
    "whiten",
]
