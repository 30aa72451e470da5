"""Segmentation: label maps of pictures, and models that make them on any backbone."""

from jaxnets.segmentation.creating import create_segmenter
from jaxnets.segmentation.drawing import draw
from jaxnets.segmentation.labels import write_labels
from jaxnets.segmentation.segmenter import Segmenter
from jaxnets.segmentation.segmenting import segment
from jaxnets.segmentation.task import Segmentation

__all__ = ["Segmentation", "Segmenter", "create_segmenter", "draw", "segment", "write_labels"]
