"""Pictures of what networks do."""

from jaxnets.explain.curves import plot_curves

__all__ = ["plot_curves"]
