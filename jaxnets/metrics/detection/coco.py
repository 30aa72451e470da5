"""COCO's average precision and recall, as pycocotools computes them.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv:1405.0312, and
https://cocodataset.org/#detection-eval.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from jaxnets.errors import unknown_name
from jaxnets.metrics.detection.images import (
    THRESHOLDS,
    Detections,
    area_of,
    checked,
    curve,
    intersection,
    only,
)

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision
AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])  # both ends are inside
MOST = (1, 10, 100)  # detections of an image and a class
_STRATA = ("", "s", "m", "l")


class CocoTable(NamedTuple):
    """COCO's measures of every class; -1 where a class has no truth.

    Attributes:
        classes: i[K], the labels that occur.
        precision: f64[10, 101, K, 4, 3] by IoU threshold, recall, class, area and number of detections.
        recall: f64[10, K, 4, 3], the largest that is reached.
    """

    classes: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    def summary(self) -> dict[str, float]:
        """The twelve numbers of `coco`."""
        precision, recall = self.precision[..., -1], self.recall
        found = {"AP": _mean(precision[..., 0])}
        found |= {"AP50": _mean(precision[0, ..., 0]), "AP75": _mean(precision[5, ..., 0])}
        found |= {f"AP{name}": _mean(precision[..., k]) for k, name in enumerate(_STRATA) if name}
        found |= {f"AR{most}": _mean(recall[:, :, 0, k]) for k, most in enumerate(MOST)}
        return found | {f"AR{name}": _mean(recall[..., k, -1]) for k, name in enumerate(_STRATA) if name}

    def of_classes(self) -> dict[int, dict[str, float]]:
        """`AP`, `AP50`, `AP75` and `AR100` of each class that has a truth, by its label."""
        found = {}
        for k, label in enumerate(self.classes.tolist()):
            own = CocoTable(self.classes[k : k + 1], self.precision[:, :, [k]], self.recall[:, [k]])
            numbers = own.summary()
            if numbers["AR100"] >= 0:
                found[label] = {name: numbers[name] for name in ("AP", "AP50", "AP75", "AR100")}
        return found


def coco(
    predictions: Detections, truths: Detections, kind: Literal["box", "mask"] = "box"
) -> dict[str, float]:
    """COCO's twelve measures, equal to those of pycocotools.

    Args:
        predictions: what was found in each image. Of an image and a class, the best 100 count.
        truths: what is there. A detection of a crowd counts neither for nor against.
        kind: what is compared: "box" or "mask".

    Returns:
        `AP` (averaged over IoU thresholds 0.5, 0.55 ... 0.95, recalls and classes), `AP50`, `AP75`;
        `APs`, `APm`, `APl` of areas up to 32 x 32, up to 96 x 96, and above; the average recall
        `AR1`, `AR10` and `AR100` of that many detections, and `ARs`, `ARm`, `ARl`. -1 where there is
        no truth.

    Raises:
        InputError: another number of images, arrays of different lengths, scores that are no numbers,
            or missing masks.

    Example:

        >>> box = {"boxes": [[10, 10, 60, 40]], "labels": [3]}
        >>> coco([box | {"scores": [0.9]}], [box])["AP"]
        1.0
    """
    return coco_table(predictions, truths, kind).summary()


def coco_table(
    predictions: Detections, truths: Detections, kind: Literal["box", "mask"] = "box"
) -> CocoTable:
    """COCO's measures of every class, of which `coco` takes the means. Arguments as for `coco`."""
    if kind not in ("box", "mask"):
        raise unknown_name("kind", kind, ("box", "mask"))
    found, there = checked(predictions, truths, kind)
    classes = np.unique(
        np.concatenate(
            [labels for image in (*found, *there) for labels in [image["labels"]]] or [np.zeros(0, int)]
        )
    )
    shape = (len(classes), len(AREAS), len(MOST))
    table = CocoTable(
        classes,
        np.full((len(THRESHOLDS), len(RECALLS), *shape), -1.0),
        np.full((len(THRESHOLDS), *shape), -1.0),
    )
    for k, label in enumerate(classes):
        images = [
            _of_image(only(own, label), only(true, label), kind)
            for own, true in zip(found, there, strict=True)
        ]
        for m, most in enumerate(MOST):
            scores = np.concatenate([image.scores[:most] for image in images])
            order = np.argsort(-scores, kind="stable")
            matched = np.concatenate([image.matched[..., :most] for image in images], -1)[..., order]
            ignored = np.concatenate([image.ignored[..., :most] for image in images], -1)[..., order]
            for a in range(len(AREAS)):
                positives = sum(image.positives[a] for image in images)
                if positives == 0:
                    continue
                for t in range(len(THRESHOLDS)):
                    hits = matched[a, t][~ignored[a, t]]
                    recall, precision = curve(hits, positives)
                    table.precision[t, :, k, a, m] = _at_recalls(recall, precision)
                    table.recall[t, k, a, m] = recall[-1] if len(recall) else 0
    return table


class _Image(NamedTuple):
    """The detections of one class in one image, best first.

    Attributes:
        scores: f[D].
        matched: bool[4, 10, D] by area and IoU threshold: the detection took a truth.
        ignored: bool[4, 10, D]: it counts neither for nor against.
        positives: i[4], truths that count.
    """

    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    positives: np.ndarray


def _of_image(found: dict, there: dict, kind: str) -> _Image:
    order = np.argsort(-found["scores"], kind="stable")[: MOST[-1]]
    found = {name: values[order] for name, values in found.items()}
    crowd = there["crowd"]
    if kind == "box":
        areas = area_of(found["boxes"])
        inter, own = intersection(found["boxes"], there["boxes"]), area_of(there["boxes"])
    else:
        flat, others = (_flat(image["masks"]) for image in (found, there))
        areas, own = flat.sum(1), others.sum(1)
        inter = flat @ others.T if areas.size and own.size else np.zeros((areas.size, own.size))
    union = np.where(crowd, areas[:, None], areas[:, None] + own[None] - inter)
    ious = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)

    low, high = AREAS.T[:, :, None]
    skipped = crowd | (there["area"] < low) | (there["area"] > high)
    matched, ignored = _match(ious, crowd, skipped)
    outside = (areas < low) | (areas > high)
    ignored |= ~matched & outside[:, None]
    return _Image(found["scores"], matched, ignored, np.sum(~skipped, 1))


def _match(ious: np.ndarray, crowd: np.ndarray, skipped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives each detection in turn the best truth that is left, at every threshold.

    A truth that counts goes before one that is skipped, and of equal ones the later. A crowd is never
    used up.

    Args:
        ious: f[D, G], the detections best first.
        crowd: bool[G].
        skipped: bool[A, G].

    Returns:
        Whether the detection took a truth, and whether that truth is skipped, bool[A, T, D] each.
    """
    detections, truths = ious.shape
    shape = (len(skipped), len(THRESHOLDS))
    matched, ignored = np.zeros((2, *shape, detections), bool)
    taken = np.zeros((*shape, truths), bool)
    needed = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    rows, columns = np.indices(shape)
    for d in np.flatnonzero((ious >= needed[0]).any(1)):
        row = ious[d]
        possible = (row >= needed) & (~taken | crowd)
        counting = possible & ~skipped[:, None]
        choice = np.where(counting.any(-1, keepdims=True), counting, possible)
        best = truths - 1 - np.where(choice, row, -1.0)[..., ::-1].argmax(-1)
        matched[..., d] = possible.any(-1)
        ignored[..., d] = matched[..., d] & skipped[rows, best]
        taken[rows, columns, best] |= matched[..., d]
    return matched, ignored


def _at_recalls(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """The best precision at or beyond each of `RECALLS`, 0 beyond the last."""
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return best[np.searchsorted(recall, RECALLS, side="left")]


def _mean(values: np.ndarray) -> float:
    """The mean without what is not known; -1 where nothing is."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _flat(masks: np.ndarray) -> np.ndarray:
    """Masks [N, H, W] as rows; counts of pixels are whole numbers and exact in float32 up to 2**24."""
    dtype = np.float32 if masks[:1].size < 2**24 else np.float64
    return masks.reshape(len(masks), math.prod(masks.shape[1:])).astype(dtype)
