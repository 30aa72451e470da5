"""Reference checkpoints in, and our checkpoints out."""

from jaxnets.models.registry import settings_of_library
from jaxnets.weights.adaptation import with_channels
from jaxnets.weights.conversion import from_torch
from jaxnets.weights.exporting import to_torch
from jaxnets.weights.images import Preprocessing
from jaxnets.weights.keras import from_keras
from jaxnets.weights.loading import find_preprocessing as preprocessing
from jaxnets.weights.loading import load, model_named_by, refuse_other_model
from jaxnets.weights.matching import DRAWN, DROPPED, KEPT
from jaxnets.weights.pretrained import (
    ACTIVATIONS,
    Pretrained,
    UnknownImagesError,
    in_rgb,
    inside,
    preprocessing_of,
)
from jaxnets.weights.recurrent import recurrent_from_torch, recurrent_to_torch
from jaxnets.weights.renames import libraries
from jaxnets.weights.saving import check_path, save, usual_library
from jaxnets.weights.transfer import freeze_mask, layerwise_decay

__all__ = [
    "ACTIVATIONS",
    "DRAWN",
    "DROPPED",
    "KEPT",
    "Preprocessing",
    "Pretrained",
    "UnknownImagesError",
    "check_path",
    "freeze_mask",
    "from_keras",
    "from_torch",
    "in_rgb",
    "inside",
    "layerwise_decay",
    "libraries",
    "load",
    "model_named_by",
    "preprocessing",
    "preprocessing_of",
    "recurrent_from_torch",
    "recurrent_to_torch",
    "refuse_other_model",
    "save",
    "settings_of_library",
    "to_torch",
    "usual_library",
    "with_channels",
]
