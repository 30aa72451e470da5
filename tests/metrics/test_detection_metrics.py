"""Average precision equals pycocotools' and the VOC development kit's, on random sets and edge cases."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxnets.errors import InputError
from jaxnets.metrics import detection

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SIDE = 160


def by_pycocotools(predictions, truths, kind="box"):
    """The twelve numbers of the reference, from the same arrays."""

    def entry(image, k, which):
        box = np.asarray(which["boxes"], float)[k]
        found = {"image_id": image, "category_id": int(which["labels"][k])}
        if kind == "box":
            found["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            area = (box[2] - box[0]) * (box[3] - box[1])
        else:
            found["segmentation"] = rle.encode(np.asfortranarray(which["masks"][k].astype(np.uint8)))
            area = int(which["masks"][k].sum())
        return found, area

    annotations, results = [], []
    for image, (own, true) in enumerate(zip(predictions, truths, strict=True)):
        for k in range(len(true["labels"])):
            found, area = entry(image, k, true)
            area = true["area"][k] if "area" in true else area
            crowd = int(true["crowd"][k]) if "crowd" in true else 0
            annotations.append({**found, "area": area, "iscrowd": crowd, "id": len(annotations) + 1})
        for k in range(len(own["labels"])):
            results.append({**entry(image, k, own)[0], "score": float(own["scores"][k])})
    labels = sorted({a["category_id"] for a in [*annotations, *results]})
    truth = COCO()
    truth.dataset = {
        "images": [{"id": k, "width": SIDE, "height": SIDE} for k in range(len(truths))],
        "annotations": annotations,
        "categories": [{"id": label} for label in labels],
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(results)
        measured = COCOeval(truth, found, "bbox" if kind == "box" else "segm")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return dict(zip(NAMES, measured.stats, strict=True))


def random_set(seed, kind="box", images=6):
    """Truths and detections near them, with ties, duplicates, crowds and odd areas."""
    rng = np.random.default_rng(seed)
    predictions, truths = [], []
    for _ in range(images):
        count, classes = rng.integers(0, 6), int(rng.integers(1, 5))
        corner = rng.integers(0, 90, (count, 2))
        sides = rng.choice([0, 4, 12, 32, 33], (count, 2))
        boxes = np.concatenate([corner, corner + sides], 1).astype(float)
        truth = {"boxes": boxes, "labels": rng.integers(1, 1 + classes, count)}
        if rng.random() < 0.6:
            truth["crowd"] = rng.random(count) < 0.3
        if kind == "box" and rng.random() < 0.5:
            truth["area"] = rng.choice([0.0, 500.0, 1024.0, 5000.0, 9216.0, 20000.0], count)
        near = boxes[rng.integers(0, count, 2 * count)] if count else np.zeros((0, 4))
        moved = near + rng.choice([0, 0, 1, 2, 8], near.shape)
        strange = rng.integers(0, 100, (int(rng.integers(0, 4)), 4)).astype(float)
        strange[:, 2:] = strange[:, :2] + strange[:, 2:] / 3
        found = np.concatenate([moved, strange])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
        predictions.append(
            {
                "boxes": found,
                "scores": rng.integers(1, 6, len(found)) / 5,  # many are equal
                "labels": rng.integers(1, 2 + classes, len(found)),
            }
        )
        truths.append(truth)
    if not any(len(image["labels"]) for image in predictions):  # which pycocotools does not take
        return random_set(seed + 10_000, kind, images)
    if kind == "mask":
        for image in (*predictions, *truths):
            image["masks"] = painted(image["boxes"], rng)
    return predictions, truths


def painted(boxes, rng):
    masks = np.zeros((len(boxes), SIDE, SIDE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = rng.random((y2 - y1, x2 - x1)) < 0.9
    return masks


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_coco_equals_pycocotools_on_random_sets(seed, kind):
    predictions, truths = random_set(seed, kind, images=6 if kind == "box" else 3)
    found, wanted = detection.coco(predictions, truths, kind), by_pycocotools(predictions, truths, kind)
    assert found == pytest.approx(wanted, abs=1e-9)


def one(boxes, labels=None, **more):
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    return {"boxes": boxes, "labels": np.ones(len(boxes), int) if labels is None else labels, **more}


BOX, HALF = (10, 10, 30, 30), (10, 10, 30, 20)
THREE = {"scores": [0.9, 0.8, 0.7]}
EDGES = {
    "absent_in_truths": ([one([BOX], [2], scores=[1.0])], [one([BOX])]),
    "absent_in_results": ([one([BOX], scores=[1.0])], [one([BOX, HALF], [1, 2])]),
    "duplicate": ([one([BOX] * 3, **THREE)], [one([BOX])]),
    "two_truths_alike": ([one([BOX, BOX], scores=[0.5, 0.5])], [one([BOX, BOX], crowd=[True, False])]),
    "equal_scores": ([one([BOX], scores=[0.5]), one([HALF], scores=[0.5])], [one([BOX])] * 2),
    "iou_of_a_half": ([one([HALF], scores=[1.0])], [one([BOX])]),
    "iou_of_95_percent": ([one([(0, 0, 95, 100)], scores=[1.0])], [one([(0, 0, 100, 100)])]),
    "crowd_hit_thrice": ([one([BOX] * 3, **THREE)], [one([(0, 0, 99, 99)], crowd=[True])]),
    "crowd_and_truth": (
        [one([BOX, HALF], scores=[0.9, 0.8])],
        [one([(0, 0, 99, 99), BOX], crowd=[True, False])],
    ),
    "area_on_the_limits": ([one([BOX] * 2, scores=[1, 0.9])], [one([BOX, HALF], area=[1024.0, 9216.0])]),
    "no_area": ([one([(5, 5, 5, 5), BOX], scores=[1, 0.5])], [one([(5, 5, 5, 5), BOX])]),
    "outside": ([one([(-50, -9, -10, -1), BOX], scores=[1, 0.5])], [one([BOX])]),
    "more_than_a_hundred": (
        [one([(200, 200, 210, 210)] * 100 + [BOX], scores=np.linspace(1, 0.1, 101))],
        [one([BOX])],
    ),
    "no_truths_in_one_of_two": ([one([BOX], scores=[1.0])] * 2, [one([]), one([BOX])]),
    "label_zero": ([one([BOX], [0], scores=[1.0])], [one([BOX], [0])]),
}  # fmt: skip


@pytest.mark.parametrize("case", EDGES)
def test_coco_equals_pycocotools_at_the_edges(case):
    predictions, truths = EDGES[case]
    found = detection.coco(predictions, truths)
    assert found == pytest.approx(by_pycocotools(predictions, truths), abs=1e-9)


def test_coco_without_any_detection_is_zero_and_without_any_truth_unknown():
    nothing = one([], scores=[])
    assert set(detection.coco([nothing], [one([BOX])]).values()) == {0.0, -1.0}
    assert detection.coco([nothing], [one([BOX])])["AP"] == 0
    for predictions in (nothing, one([BOX], scores=[1.0])):
        assert set(detection.coco([predictions], [one([])]).values()) == {-1.0}
    assert set(detection.coco([], []).values()) == {-1.0}


def test_a_class_has_numbers_of_its_own():
    predictions = [one([BOX, BOX], [1, 5], scores=[0.9, 0.8])]
    table = detection.coco_table(predictions, [one([BOX, (50, 50, 60, 60)], [1, 5])])
    numbers = table.of_classes()
    assert {label: own["AP"] for label, own in numbers.items()} == pytest.approx({1: 1.0, 5: 0.0})
    assert table.summary()["AP"] == pytest.approx(0.5)


def by_the_kit(predictions, truths, label, iou, eleven):
    """One class, in the development kit's own order of steps (VOCevaldet.m)."""
    rows = sorted(
        (
            (-own["scores"][k], image, own["boxes"][k])
            for image, own in enumerate(predictions)
            for k in range(len(own["labels"]))
            if own["labels"][k] == label
        ),
        key=lambda row: row[0],
    )
    gt = [
        [
            {"box": true["boxes"][k], "difficult": bool(true["difficult"][k]), "detected": False}
            for k in range(len(true["labels"]))
            if true["labels"][k] == label
        ]
        for true in truths
    ]
    npos = sum(not g["difficult"] for own in gt for g in own)
    if npos == 0:
        return np.nan
    tp, fp = [], []
    for _, image, bb in rows:
        ovmax, jmax = -np.inf, None
        for g in gt[image]:
            bi = (*np.maximum(bb[:2], g["box"][:2]), *np.minimum(bb[2:], g["box"][2:]))
            iw, ih = bi[2] - bi[0] + 1, bi[3] - bi[1] + 1
            if iw > 0 and ih > 0:
                ua = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                ua += (g["box"][2] - g["box"][0] + 1) * (g["box"][3] - g["box"][1] + 1) - iw * ih
                if iw * ih / ua > ovmax:
                    ovmax, jmax = iw * ih / ua, g
        right = wrong = 0
        if ovmax >= iou:
            if not jmax["difficult"]:
                right, wrong = (1, 0) if not jmax["detected"] else (0, 1)
                jmax["detected"] = True
        else:
            wrong = 1
        tp.append(right)
        fp.append(wrong)
    fp, tp = np.cumsum(fp), np.cumsum(tp)
    rec, prec = tp / npos, tp / np.maximum(tp + fp, 1)
    if eleven:
        return sum(max(prec[rec >= t], default=0.0) for t in np.arange(0, 1.1, 0.1)) / 11
    mrec, mpre = np.array([0, *rec, 1]), np.array([0, *prec, 0])
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))


@pytest.mark.parametrize("eleven", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_voc_equals_the_development_kit(seed, eleven):
    predictions, truths = random_set(seed, images=8)
    rng = np.random.default_rng(seed)
    for true in truths:
        true["difficult"] = rng.random(len(true["labels"])) < 0.3
    found = detection.voc(predictions, truths, 0.5, eleven)
    wanted = [by_the_kit(predictions, truths, k, 0.5, eleven) for k in range(len(found["AP"]))]
    np.testing.assert_allclose(found["AP"], wanted, atol=1e-9)
    assert found["mAP"] == pytest.approx(np.nanmean(wanted), abs=1e-9)


def test_a_recall_of_three_tenths_misses_the_fourth_point():
    truths = [one([(20 * k, 0, 20 * k + 9, 9) for k in range(10)], np.zeros(10, int))]
    predictions = [
        one([(20 * k, 0, 20 * k + 9, 9) for k in range(3)], np.zeros(3, int), scores=[1.0] * 3)
    ]
    assert detection.voc(predictions, truths, eleven_points=True)["mAP"] == pytest.approx(3 / 11)


def test_half_open_boxes_have_no_extra_pixel():
    predictions, truths = [one([(0, 0, 10, 5)], [0], scores=[1.0])], [one([(0, 0, 10, 10)], [0])]
    assert detection.voc(predictions, truths, inclusive=False)["mAP"] == 1
    assert detection.voc(predictions, truths, 0.53)["mAP"] == 1  # 11 * 6 of 11 * 11
    assert detection.voc(predictions, truths, 0.53, inclusive=False)["mAP"] == 0


def test_proposals_take_the_best_pairs_first():
    truths = [one([(0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)], crowd=[False, False, True])]
    proposals = [one([(0, 0, 10, 10), (0, 0, 10, 5)], scores=[0.9, 0.1])]
    found = detection.proposal_recall(proposals, truths)
    # The first truth has IoU 1; the second is left with the other proposal, 50 of 90.
    assert found["recall"].tolist() == [1, 1] + [0.5] * 8
    assert found["AR"] == pytest.approx(0.6)
    assert found["AR_hosang"] == pytest.approx(0.5 + 5 / 90)
    assert detection.proposal_recall(proposals, truths, limit=1)["AR"] == pytest.approx(0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_images_and_of_unequal_scores_does_not_matter(seed):
    predictions, truths = random_set(seed)
    rng = np.random.default_rng(seed)
    for own in predictions:
        own["scores"] = rng.random(len(own["labels"]))
    order = rng.permutation(len(truths))
    mixed = detection.coco([predictions[k] for k in order], [truths[k] for k in order])
    assert mixed == pytest.approx(detection.coco(predictions, truths))


@pytest.mark.parametrize(
    ("predictions", "truths", "words"),
    [
        ([], [one([])], "predictions has 0 images and truths 1"),
        ([one([BOX])], [one([BOX])], r"predictions\[0\] has no scores"),
        (
            [one([BOX], scores=[np.nan])],
            [one([BOX])],
            r"predictions\[0\] has a score that is not finite",
        ),
        ([one([BOX], scores=[1.0, 2.0])], [one([BOX])], "1 boxes, 1 labels, 2 scores"),
        ([one([BOX], scores=[1.0])], [one([BOX], crowd=[False, True])], "crowd of shape"),
    ],
)
def test_sets_that_cannot_be_measured_are_named(predictions, truths, words):
    with pytest.raises(InputError, match=words):
        detection.coco(predictions, truths)
