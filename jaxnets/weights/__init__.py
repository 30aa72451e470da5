"""Reference checkpoints in, and our checkpoints out."""

from jaxnets.weights.conversion import from_torch, libraries, to_torch

__all__ = ["from_torch", "libraries", "to_torch"]
