"""Metrics, as sums that are accumulated over devices and batches."""

from jaxnets.metrics import detection, segmentation, text
from jaxnets.metrics.classification import (
    average_precision,
    confusion_matrix,
    in_top_k,
    precision_recall,
)
from jaxnets.metrics.sums import (
    Mean,
    Metric,
    Metrics,
    Ratio,
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
    "Ratio",
    "Score",
    "Share",
    "Sum",
    "add",
    "as_text",
    "average_precision",
    "compute",
    "confusion_matrix",
    "detection",
    "in_top_k",
    "precision_recall",
    "reduce",
    "scalars",
    "segmentation",
    "text",
]
