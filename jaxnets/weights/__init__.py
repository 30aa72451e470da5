"""Reference checkpoints in, and our checkpoints out."""

from jaxnets.weights.conversion import from_torch, libraries, to_torch
from jaxnets.weights.keras import from_keras

__all__ = ["from_keras", "from_torch", "libraries", "to_torch"]
