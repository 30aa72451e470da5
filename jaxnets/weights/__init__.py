"""Reference checkpoints in, and our checkpoints out."""

from jaxnets.weights.conversion import from_torch, libraries, to_torch
from jaxnets.weights.keras import from_keras
from jaxnets.weights.recurrent import recurrent_from_torch, recurrent_to_torch

__all__ = [
    "from_keras",
    "from_torch",
    "libraries",
    "recurrent_from_torch",
    "recurrent_to_torch",
    "to_torch",
]
