"""Measures of what a network predicts, as sums that add up across devices and batches."""

from jaxnets.metrics import text
from jaxnets.metrics.classification import confusion_matrix, in_top_k
from jaxnets.metrics.sums import Mean, Metrics, Sum, add, compute, reduce

__all__ = ["Mean", "Metrics", "Sum", "add", "compute", "confusion_matrix", "in_top_k", "reduce", "text"]
