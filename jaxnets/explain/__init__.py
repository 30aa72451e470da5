"""Pictures of what networks do."""

from jaxnets.explain.attention import plot_attention
from jaxnets.explain.curves import plot_curves
from jaxnets.explain.search_picture import plot_search

__all__ = ["plot_attention", "plot_curves", "plot_search"]
