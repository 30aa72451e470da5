"""Recall of proposals, without classes."""

from typing import Any

import numpy as np

from jaxnets.metrics.detection.images import THRESHOLDS, Detections, box_iou


def proposal_recall(proposals: Detections, truths: Detections, limit: int = 1000) -> dict[str, Any]:
    """Recall of class-agnostic proposals, as Detectron2 measures it.

    In each image the pair of a truth and a proposal with the largest IoU is taken, and both removed,
    until either is used up. Crowds are left out.

    Args:
        proposals: boxes and scores of each image.
        truths: boxes of each image.
        limit: proposals of an image, the best by score.

    Returns:
        `recall` f64[10], the share of truths whose proposal has an IoU of at least 0.5, 0.55 ... 0.95;
        `AR`, their mean; and `AR_hosang`, twice the integral of the recall over IoU from 0.5 to 1
        (Hosang et al. 2015, "What makes for effective detection proposals?", section 4.3).
    """
    best = []
    for own, true in zip(proposals, truths, strict=True):
        boxes, scores = _boxes(own["boxes"]), np.asarray(own["scores"], float)
        boxes = boxes[np.argsort(-scores, kind="stable")[:limit]]
        wanted = _boxes(true["boxes"])
        wanted = wanted[~np.asarray(true.get("crowd", np.zeros(len(wanted))), bool)]
        overlaps = box_iou(boxes, wanted)
        reached = np.zeros(len(wanted))
        for k in range(min(overlaps.shape)):
            d, g = np.unravel_index(overlaps.argmax(), overlaps.shape)
            reached[k] = overlaps[d, g]
            overlaps[d], overlaps[:, g] = -1, -1
        best.append(reached)
    best = np.concatenate(best) if best else np.zeros(0)
    if not best.size:
        return {
            "recall": np.full(len(THRESHOLDS), np.nan),
            "AR": float("nan"),
            "AR_hosang": float("nan"),
        }
    recall = np.array([np.mean(best >= threshold) for threshold in THRESHOLDS])
    return {
        "recall": recall,
        "AR": float(recall.mean()),
        "AR_hosang": float(2 * np.maximum(best - 0.5, 0).mean()),
    }


def _boxes(values: Any) -> np.ndarray:
    return np.asarray(values, float).reshape(-1, 4)
