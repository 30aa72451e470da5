"""Pictures of what networks do."""

from jaxnets.explain.attention import plot_attention
from jaxnets.explain.curves import plot_curves
from jaxnets.explain.mistakes import Mistake, plot_confusion, plot_mistakes
from jaxnets.explain.modules import ReceptiveField, Row
from jaxnets.explain.ratios import plot_layer_ratios
from jaxnets.explain.search_picture import plot_search
from jaxnets.explain.summary import Summary, summary

__all__ = [
    "Mistake",
    "ReceptiveField",
    "Row",
    "Summary",
    "plot_attention",
    "plot_confusion",
    "plot_curves",
    "plot_layer_ratios",
    "plot_mistakes",
    "plot_search",
    "summary",
]
