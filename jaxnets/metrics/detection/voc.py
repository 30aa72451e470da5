"""Pascal VOC's average precision.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.2.
"""

from typing import Any

import numpy as np

from jaxnets.metrics.detection.images import Detections, box_iou, checked, curve, only


def voc(
    predictions: Detections,
    truths: Detections,
    iou: float = 0.5,
    eleven_points: bool = False,
    *,
    inclusive: bool = True,
) -> dict[str, Any]:
    """Pascal VOC's average precision of each class, as the challenge's development kit computes it.

    A detection is compared with the truth that it overlaps most. It is right if their IoU is at least
    `iou` and no better detection took that truth before; difficult truths count neither for nor
    against.

    Args:
        predictions: what was found in each image.
        truths: what is there.
        iou: least overlap.
        eleven_points: the mean of the best precision at recalls 0, 0.1 ... 1, as up to 2009, instead of
            the area under the curve.
        inclusive: whether the last row and column belong to a box, as in VOC's files, so that a width
            is x2 - x1 + 1; False for x2 - x1.

    Returns:
        `AP`, f64[K], NaN for a class without a truth that counts, and their mean `mAP` without those.

    Raises:
        InputError: as for `coco`.
    """
    found, there = checked(predictions, truths, "box")
    labels = [image["labels"] for image in (*found, *there)]
    classes = max((int(own.max()) + 1 for own in labels if len(own)), default=0)
    average = np.full(classes, np.nan)
    for label in range(classes):
        scores, hits, counted, positives = [], [], [], 0
        for own, true in zip(
            (only(f, label) for f in found), (only(t, label) for t in there), strict=True
        ):
            positives += int(np.sum(~true["difficult"]))
            overlaps = box_iou(own["boxes"], true["boxes"], extra=float(inclusive))
            taken = np.zeros(len(true["labels"]), bool)
            for d in np.argsort(-own["scores"], kind="stable"):
                best = int(overlaps[d].argmax()) if taken.size else -1
                meets = best >= 0 and overlaps[d, best] >= iou
                scores.append(own["scores"][d])
                counted.append(not (meets and true["difficult"][best]))
                hits.append(meets and not taken[best])
                if meets:
                    taken[best] = True
        if positives == 0:
            continue
        order = np.argsort(-np.array(scores), kind="stable")
        hits = np.array(hits, bool)[order][np.array(counted, bool)[order]]
        recall, precision = curve(hits, positives)
        average[label] = _eleven_points(recall, precision) if eleven_points else _area(recall, precision)
    known = average[~np.isnan(average)]
    return {"mAP": float(known.mean()) if known.size else float("nan"), "AP": average}


def _eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    # np.arange as in the development kit, whose fourth point is a little more than 0.3.
    best = [precision[recall >= point].max(initial=0.0) for point in np.arange(0, 1.1, 0.1)]
    return float(np.sum(best) / 11)


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    recall = np.concatenate([[0.0], recall, [1.0]])
    best = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    steps = np.flatnonzero(np.diff(recall))
    return float(np.sum(np.diff(recall)[steps] * best[steps + 1]))
