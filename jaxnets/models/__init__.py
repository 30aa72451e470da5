"""Models of every task by their names; image classifiers, and the backbones of everything else."""

from jaxnets.models.classifier import Classifier
from jaxnets.models.registry import (
    create_classifier,
    create_model,
    list_models,
    model_info,
    published_weights,
    register,
)
from jaxnets.models.strides import feature_info

__all__ = [
    "Classifier",
    "create_classifier",
    "create_model",
    "feature_info",
    "list_models",
    "model_info",
    "published_weights",
    "register",
]
