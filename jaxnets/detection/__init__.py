"""Detection: the parts of detectors as pure functions of fixed shapes, and detectors made of them.

A set of boxes is an array f[N, 4] and, where fewer are there, `valid` bool[N]. Every part can be
compiled and vmapped.
"""

from jaxnets.detection.anchoring import anchors
from jaxnets.detection.boxes import area, clip, convert, decode, encode, giou, iou
from jaxnets.detection.creating import create_detector
from jaxnets.detection.detecting import Detections, detect
from jaxnets.detection.detector import Detector, Found, Truths
from jaxnets.detection.drawing import draw
from jaxnets.detection.fpn import FPN
from jaxnets.detection.matching import match, sample
from jaxnets.detection.regions import paste_masks, pyramid_roi_align, roi_align, roi_pool
from jaxnets.detection.suppression import nms, soft_nms
from jaxnets.detection.task import Detection
from jaxnets.models.resizing import Resizing

__all__ = [
    "FPN",
    "Detection",
    "Detections",
    "Detector",
    "Found",
    "Resizing",
    "Truths",
    "anchors",
    "area",
    "clip",
    "convert",
    "create_detector",
    "decode",
    "detect",
    "draw",
    "encode",
    "giou",
    "iou",
    "match",
    "nms",
    "paste_masks",
    "pyramid_roi_align",
    "roi_align",
    "roi_pool",
    "sample",
    "soft_nms",
]
