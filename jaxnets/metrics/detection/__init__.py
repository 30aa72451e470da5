"""Measures of detections over whole sets: average precision of COCO and Pascal VOC, proposal recall.

They are plain functions of NumPy arrays and take the images of a set as two sequences:

- predictions, each ``{"boxes": f[D, 4], "scores": f[D], "labels": i[D], "masks": bool[D, H, W]}``;
- truths, each ``{"boxes": f[M, 4], "labels": i[M], "crowd": bool[M], "area": f[M],
  "difficult": bool[M], "masks": bool[M, H, W]}``.

Boxes are ``(x1, y1, x2, y2)`` in pixels. Masks are needed only where masks are measured. What a truth
does not have is false, and its area that of its box or, where masks are measured, of its mask.
"""

from jaxnets.metrics.detection.coco import CocoTable, coco, coco_table
from jaxnets.metrics.detection.images import box_iou
from jaxnets.metrics.detection.proposals import proposal_recall
from jaxnets.metrics.detection.voc import voc

__all__ = ["CocoTable", "box_iou", "coco", "coco_table", "proposal_recall", "voc"]
