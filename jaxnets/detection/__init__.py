"""The parts of detectors, as pure functions of fixed shapes: boxes, anchors, matching and regions.

A set of boxes is an array f[N, 4] and, where fewer are there, `valid` bool[N]. Every function can be
compiled and vmapped.
"""

from jaxnets.detection.anchoring import anchors
from jaxnets.detection.boxes import area, clip, convert, decode, encode, giou, iou
from jaxnets.detection.matching import match, sample
from jaxnets.detection.regions import paste_masks, pyramid_roi_align, roi_align, roi_pool
from jaxnets.detection.suppression import nms, soft_nms

__all__ = [
    "anchors",
    "area",
    "clip",
    "convert",
    "decode",
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
