"""How well small detectors, trained from scratch, find digits in held-out scenes.

Command: python benchmarks/detection_scenes.py [--kinds faster_rcnn mask_rcnn] [--seeds 0 1 2]
Prints the table that is kept in benchmarks/detection_scenes.md. Each detector is trained on scenes of
one to four digits and measured by COCO's average precision on 1,000 held-out ones, whose handwriting
and photographs training does not have. Minutes are of the whole: compilation, training and measuring.
"""

import argparse
import time
from typing import NamedTuple

import jax
import optax
from heading import print_heading

from jaxnets import training
from jaxnets.data.scenes import SceneSource
from jaxnets.detection import Detection, create_detector

OBJECTS, HELD_OUT = 4, 1000
BACKBONE = {
    "block": "basic",
    "depths": (1, 1, 1, 1),
    "widths": (32, 64, 128, 128),
    "stem_width": 32,
}
REGIONS = {"hidden": 256, "proposals": 64, "train_proposals": 64}


class Trial(NamedTuple):
    """How a kind is trained: pixels of a side, scenes of a step, steps, settings of the detector."""

    size: int
    batch: int
    steps: int
    settings: dict


TRIALS = {
    "faster_rcnn": Trial(64, 16, 1000, {**REGIONS, "anchor_size": 8, "samples": 64}),
    # Masks of thin digits need pixels. A quarter of the regions have masks to learn.
    "mask_rcnn": Trial(128, 8, 1000, {**REGIONS, "anchor_size": 16, "samples": 32}),
    "retinanet": Trial(64, 16, 2000, {"anchor_size": 12}),
    "fcos": Trial(64, 16, 2000, {"stride": 8}),
}
MEASURES = ("AP", "AP50", "AP75", "mask_AP")


def train(kind: str, seed: int) -> tuple[dict[str, float], float, int]:
    """Trains a detector; returns its measures, the minutes that it took and its parameters."""
    start, (size, batch, steps, settings) = time.perf_counter(), TRIALS[kind]
    scenes = {"size": size, "objects": OBJECTS, "boxes": OBJECTS, "masks": kind == "mask_rcnn"}
    model = create_detector(
        kind,
        backbone="resnetv2_50",
        num_classes=10,
        backbone_settings=BACKBONE,
        width=64,
        min_size=size,
        max_size=size,
        **settings,
    )
    task = Detection(model)
    rate = optax.warmup_cosine_decay_schedule(0, 2e-3, steps // 20, steps)
    optimizer = training.create_optimizer("adamw", rate, weight_decay=0.05, clip_norm=5.0)
    state, _ = training.fit(
        task,
        SceneSource("train", count=steps * batch, **scenes),
        optimizer=optimizer,
        epochs=1,
        batch_size=batch,
        seed=seed,
        progress=False,
    )
    held_out = SceneSource("test", count=HELD_OUT, **scenes)
    found = training.evaluate(task, state.variables, held_out, batch_size=50)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return found, (time.perf_counter() - start) / 60, parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", default=["faster_rcnn", "mask_rcnn", "retinanet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    print_heading("detection on scenes", "Trained from scratch.")
    print(
        "\n| detector | parameters | pixels | steps | seed | box AP | AP50 | AP75 | mask AP | minutes |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind in arguments.kinds:
        for seed in arguments.seeds:
            found, minutes, parameters = train(kind, seed)
            values = [f"{found[name]:.3f}" if name in found else "" for name in MEASURES]
            size, batch, steps, _ = TRIALS[kind]
            row = [kind, f"{parameters:,}", size, f"{steps} of {batch}", seed, *values, f"{minutes:.1f}"]
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
