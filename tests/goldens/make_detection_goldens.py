"""Makes data/detection_ops.npz: what torchvision's operators answer, with ties, borders and empty boxes.

Run with torch 2.14.1 and torchvision 0.29.1 (`pip install torch==2.14.1 torchvision==0.29.1`).
"""

from pathlib import Path

import numpy as np
import torch
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import MultiScaleRoIAlign, box_iou, generalized_box_iou, nms, roi_align, roi_pool

MATCHERS = ((0.3, 0.7, True), (0.5, 0.5, False), (0.4, 0.5, True))
THRESHOLDS = (0.1, 0.3, 0.45, 0.5, 0.6, 0.7, 0.9, 1 / 3)
SCALES = (1 / 4, 1 / 8, 0.5, 1.0)
PADDED = 40  # boxes of a case of suppression


def boxes(rng, count, low, high, longest, whole):
    draw = rng.integers if whole else rng.uniform
    corner, sides = draw(low, high, (count, 2)), draw(0, longest, (count, 2))
    return np.concatenate([corner, corner + sides], 1).astype(np.float32)


def suppression(rng, cases=240):
    found = {"boxes": [], "scores": [], "count": [], "threshold": [], "kept": []}
    for k in range(cases):
        count = int(rng.integers(1, PADDED + 1))
        own = boxes(rng, PADDED, 0, 30, 20, whole=k % 2).astype(np.float16).astype(np.float32)
        scores = (rng.integers(0, 20, PADDED) / 20 if k % 3 else rng.random(PADDED)).astype(np.float32)
        threshold = THRESHOLDS[k % len(THRESHOLDS)]
        kept = np.full(PADDED, -1, np.int8)
        order = nms(torch.tensor(own[:count]), torch.tensor(scores[:count]), threshold).numpy()
        kept[: len(order)] = order
        for name, value in zip(found, (own, scores, count, threshold, kept), strict=True):
            found[name].append(value)
    found["boxes"] = np.array(found["boxes"], np.float16)
    return {f"nms_{name}": np.array(values) for name, values in found.items()}


def matching(rng, cases=60):
    found = {"truths": [], "candidates": [], "count": [], "matched": []}
    for k in range(cases):
        truths, candidates = boxes(rng, 6, 0, 30, 20, True), boxes(rng, 30, 0, 30, 20, True)
        truths[:, 2:] += 1
        candidates[:, 2:] += 1
        count = int(rng.integers(1, 6))
        if k % 7 == 0:
            truths[0] = (100, 100, 110, 110)  # meets no candidate
        low, high, keep_best = MATCHERS[k % 3]
        overlaps = box_iou(torch.tensor(truths[:count]), torch.tensor(candidates))
        matched = Matcher(high, low, keep_best)(overlaps).numpy().astype(np.int8)
        for name, value in zip(found, (truths, candidates, count, matched), strict=True):
            found[name].append(value)
    return {f"match_{name}": np.array(values) for name, values in found.items()}


def regions(rng):
    found = {}
    for k, scale in enumerate(SCALES):
        height, width = (int(side) for side in rng.integers(9, 30, 2))
        features = rng.normal(size=(height, width, 2)).astype(np.float16).astype(np.float32)
        far = min(height, width) / scale
        own = boxes(rng, 16, -8, 1.1 * far, 0.9 * far, whole=False)
        own[:3] = np.round(own[:3])
        own[3] = (0, 0, width / scale, height / scale)
        own[4] = (3, 3, 3, 3)
        own[5] = (-width / scale, -3, 2 * width / scale, height / scale)
        found |= {f"region_features{k}": features, f"region_boxes{k}": own}
        maps = torch.tensor(features).permute(2, 0, 1)[None]
        rois = torch.cat([torch.zeros(len(own), 1), torch.tensor(own)], 1)
        for aligned in (False, True):
            for ratio in (0, 1, 2, 3):
                answer = roi_align(maps, rois, 3, scale, ratio or -1, aligned)
                found[f"align{k}_{int(aligned)}_{ratio}"] = answer.permute(0, 2, 3, 1).numpy()
        for size in (3, 7):
            found[f"pool{k}_{size}"] = roi_pool(maps, rois, size, scale).permute(0, 2, 3, 1).numpy()
    return found


def pyramid(rng):
    maps = [
        rng.normal(size=(side, side, 2)).astype(np.float16).astype(np.float32)
        for side in (64, 32, 16, 8)
    ]
    own = boxes(rng, 24, 0, 200, 250, whole=False).clip(0, 256)
    own[0] = (5, 5, 5, 5)
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 3, 2)
    inputs = {str(k): torch.tensor(own_map).permute(2, 0, 1)[None] for k, own_map in enumerate(maps)}
    answer = pool(inputs, [torch.tensor(own)], [(256, 256)]).permute(0, 2, 3, 1).numpy()
    return {f"pyramid_map{k}": own_map for k, own_map in enumerate(maps)} | {
        "pyramid_boxes": own,
        "pyramid_answer": answer,
    }


def coding(rng):
    truths, candidates = (boxes(rng, 20, 0, 30, 20, whole=False) for _ in range(2))
    for own in (truths, candidates):
        own[:, 2:] += 1
    deltas = (3 * rng.normal(size=(20, 4))).astype(np.float32)
    deltas[0] = 100
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    t, c = torch.tensor(truths), torch.tensor(candidates)
    return {
        "code_truths": truths,
        "code_candidates": candidates,
        "code_deltas": deltas,
        "code_encoded": coder.encode_single(t, c).numpy(),
        "code_decoded": coder.decode_single(torch.tensor(deltas), c).numpy(),
        "code_giou": generalized_box_iou(t, c).numpy(),
    }


def main():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 14, 14)).astype(np.float16).astype(np.float32)
    pasted = boxes(rng, 6, -5, 40, 30, whole=False)
    pasted[0] = (10, 10, 10, 10)
    paste = paste_masks_in_image(torch.tensor(masks)[:, None], torch.tensor(pasted), (40, 50))[
        :, 0
    ].numpy()
    generator = AnchorGenerator(((32,), (40, 50, 64)), ((0.5, 1.0, 2.0),) * 2)
    maps = [torch.zeros(1, 1, 5, 7), torch.zeros(1, 1, 3, 4)]
    anchors = generator(ImageList(torch.zeros(1, 3, 40, 56), [(40, 56)]), maps)[0].numpy()
    answers = {
        **suppression(rng), **matching(rng), **regions(rng), **pyramid(rng), **coding(rng),
        "anchors": anchors, "masks": masks, "mask_boxes": pasted, "pasted": paste,
    }  # fmt: skip
    np.savez_compressed(Path(__file__).parent / "data" / "detection_ops.npz", **answers)


if __name__ == "__main__":
    main()
