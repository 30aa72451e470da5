"""Metrics, as sums that are accumulated over devices and batches."""

from jaxnets.metrics import detection, text
from jaxnets.metrics.classification import confusion_matrix, in_top_k
from jaxnets.metrics.sums import (
    Mean,
    Metric,
    Metrics,
    Score,
    Share,
    Sum,
    add,
    as_text,
    compute,
    reduce,
    scalars,
)

__all__ = [
    "Mean",
    "Metric",
    "Metrics",
    "Score",
    "Share",
    "Sum",
    "add",
    "as_text",
    "compute",
    "confusion_matrix",
    "detection",
    "in_top_k",
    "reduce",
    "scalars",
    "text",
]
