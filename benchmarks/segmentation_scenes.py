"""How well small segmenters, trained from scratch, label the pixels of held-out scenes.

Command: python benchmarks/segmentation_scenes.py [--kinds fcn unet] [--seeds 0 1 2] [--picture]
Prints the table that is kept in benchmarks/segmentation_scenes.md. Each segmenter learns from scenes of
one to eight digits. It is measured by the mean intersection over union of eleven classes, background and
ten digits, on 500 held-out scenes, whose handwriting and photographs training does not have. Minutes are
of a processor, of the whole: compilation, training and measuring; two cores have 30 of them in 15. With
--picture the last seed of each kind draws benchmarks/segmentation_scenes.png.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from heading import print_heading

from jaxnets import create_segmenter, training
from jaxnets.data.marking import label_colors
from jaxnets.data.scenes import SceneSource
from jaxnets.segmentation import Segmentation, segment

DIGITS, HELD_OUT, SHOWN = 8, 500, 4
LOSS = "cross_entropy+dice"


def small(*depths: int) -> dict[str, Any]:
    """A ResNet v2 with most of its blocks at stride 4, which keeps strokes of few pixels apart."""
    widths = (64,) * len(depths)
    settings = {"block": "basic", "depths": depths, "widths": widths, "stem_width": 32}
    return {"backbone": "resnetv2_50", "backbone_settings": settings}


class Trial(NamedTuple):
    """How a kind is trained: pixels of a side, scenes of a step, steps, settings of the segmenter, and
    the highest learning rate."""

    size: int
    batch: int
    steps: int
    settings: dict[str, Any]
    rate: float = 1e-3


TRIALS = {
    "fcn": Trial(96, 8, 4500, small(4)),
    "segnet": Trial(80, 8, 4000, {"depths": (2, 4), "widths": (32, 64)}, 2e-3),
    "deeplabv3": Trial(96, 8, 4000, {**small(3), "features": 64, "rates": (2, 4, 6)}),
    "refinenet": Trial(96, 8, 3000, {**small(3, 1, 1, 1), "width": 64, "dropout": 0.0}),
    "unet": Trial(96, 8, 3200, {**small(4), "widths": (32, 12)}),
}
MEASURES = ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou")

Segmenter = tuple[Any, Any]  # a model and its variables


def train(kind: str, seed: int) -> tuple[Segmenter, dict[str, Any], float]:
    """Trains a segmenter; returns it, its measures, and the processor minutes that it took."""
    start, (size, batch, steps, settings, highest) = time.process_time(), TRIALS[kind]
    scenes = {"size": size, "objects": DIGITS, "segmentation": True}
    model = create_segmenter(kind, num_classes=11, min_size=None, **settings)
    task = Segmentation(model, loss_name=LOSS)
    rate = optax.warmup_cosine_decay_schedule(0, highest, steps // 20, steps)
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
    return (model, state.variables), found, (time.process_time() - start) / 60


def draw(segmenters: dict[str, Segmenter], path: Path) -> None:
    """Scenes, their truth, and what each kind says of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * (2 + len(segmenters)), 2 * SHOWN), layout="constrained")
    panels = figure.subplots(SHOWN, 2 + len(segmenters), squeeze=False)
    for row, own in enumerate(panels):
        largest = max(TRIALS[kind].size for kind in segmenters)
        shown = {}
        for kind, segmenter in segmenters.items():
            source = SceneSource("test", size=TRIALS[kind].size, objects=DIGITS, segmentation=True)
            scene = source[row]
            if TRIALS[kind].size == largest:
                shown |= {"scene": scene["image"], "truth": label_colors(scene["segmentation"])}
            shown[kind] = label_colors(segment(*segmenter, [scene["image"]])[0])
        for panel, name in zip(own, ("scene", "truth", *segmenters), strict=True):
            panel.imshow(shown[name], interpolation="nearest")
            panel.set_axis_off()
            panel.set_title(name, fontsize=9)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--picture", action="store_true")
    arguments = parser.parse_args()
    print_heading("segmentation of scenes", "Trained from scratch.")
    columns = ("segmenter", "parameters", "pixels", "steps", "seed", "mIoU", "lowest IoU")
    columns += ("pixel accuracy", "mean accuracy", "weighted IoU", "processor min")
    print(f"\n| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    trained = {}
    for kind in arguments.kinds:
        for seed in arguments.seeds:
            trained[kind], found, minutes = train(kind, seed)
            parameters = sum(leaf.size for leaf in jax.tree.leaves(trained[kind][1]["params"]))
            size, batch, steps, *_ = TRIALS[kind]
            row = [kind, f"{parameters:,}", size, f"{steps} of {batch}", seed, f"{found['miou']:.3f}"]
            row += [f"{np.nanmin(found['iou']):.3f}"]
            row += [f"{found[name]:.3f}" for name in MEASURES[1:]]
            print(f"| {' | '.join(map(str, [*row, f'{minutes:.1f}']))} |", flush=True)
    if arguments.picture:
        draw(trained, Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
