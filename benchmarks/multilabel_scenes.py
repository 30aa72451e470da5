"""How well a small ResNet, trained from scratch, tells which digits are in a held-out scene.

Command: python benchmarks/multilabel_scenes.py [--seeds 0 1]
Prints the table that is kept in benchmarks/multilabel_scenes.md. A scene has one to four digits, and
its labels are the digits that are in it. Measured are the mean over the ten digits of average precision
and the share of all decisions that are right, at a probability of 50%, on 1,000 held-out scenes, whose
handwriting and photographs training does not have. Minutes are of a processor, of the whole:
compilation, training and measuring.
"""

import argparse
import time
from typing import Any

import jax
import numpy as np
import optax
from heading import print_heading

from jaxnets import MultiLabel, create_model, training
from jaxnets.data.scenes import SceneSource

SIZE, MOST, BATCH, STEPS, HELD_OUT = 64, 4, 32, 1500, 1000
RESNET = {"block": "basic", "depths": (1, 1, 1), "widths": (32, 64, 128), "stem_width": 32}


class DigitSets:
    """Scenes, labeled by the set of their digits."""

    def __init__(self, split: str, count: int):
        self.scenes = SceneSource(split, count=count, size=SIZE, objects=MOST)
        self.image_shape, self.class_names = self.scenes.image_shape, self.scenes.class_names

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene, label = self.scenes[index], np.zeros(10, np.uint8)
        label[scene["label"]] = 1
        return {"image": scene["image"], "label": label}


def train(seed: int) -> tuple[dict[str, Any], float, int]:
    """Trains a net; returns its measures, the share of right decisions, and its parameters."""
    task = MultiLabel(create_model("resnetv2_50", num_classes=10, **RESNET))
    rate = optax.warmup_cosine_decay_schedule(0, 2e-3, STEPS // 20, STEPS)
    state, _ = training.fit(
        task,
        DigitSets("train", STEPS * BATCH),
        optimizer=training.create_optimizer("adamw", rate, weight_decay=0.05, clip_norm=5.0),
        epochs=1,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    held_out = DigitSets("test", HELD_OUT)
    found = training.evaluate(task, state.variables, held_out, batch_size=100)
    predictions = training.predict_all(task, state.variables, held_out, batch_size=100)
    right = np.mean([(scores > 0) == batch["label"] for batch, scores in predictions])
    return found, right, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    arguments = parser.parse_args()
    how = f"Trained from scratch: {STEPS} steps of {BATCH} scenes of {SIZE} pixels."
    print_heading("digits in scenes, several labels an image", how)
    columns = ("parameters", "seed", "mAP", "lowest AP", "right decisions", "processor min")
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for seed in arguments.seeds:
        start = time.process_time()
        found, right, parameters = train(seed)
        minutes = (time.process_time() - start) / 60
        row = [f"{parameters:,}", seed, f"{found['mAP']:.3f}", f"{found['AP'].min():.3f}"]
        print(f"| {' | '.join(map(str, [*row, f'{right:.1%}', f'{minutes:.1f}']))} |", flush=True)


if __name__ == "__main__":
    main()
