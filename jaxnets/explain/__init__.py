"""Pictures of what networks do."""

from jaxnets.explain.attention import plot_attention
from jaxnets.explain.curves import plot_curves
from jaxnets.explain.modules import ReceptiveField, Row
from jaxnets.explain.summary import Summary, summary

__all__ = ["ReceptiveField", "Row", "Summary", "plot_attention", "plot_curves", "summary"]
