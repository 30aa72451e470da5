"""Whether occlusion finds what a network looks at: LeNet-5 on the held-out digits.

Command: python benchmarks/occlusion.py
Prints the table that is kept in benchmarks/occlusion.md. It trains LeNet-5 as `jaxnets train` does, then
covers each of the 360 test images by `jaxnets.explain.occlusion` with squares of several sizes, one
pixel apart. A digit's stroke is its pixels brighter than the middle of the scale. For each image the
mean fall of the true class's probability over the stroke is held against that over the background.
"""

import tempfile
from pathlib import Path

import numpy as np
from heading import print_heading

from jaxnets import data, explain, runs
from jaxnets.classification.recipe import RECIPE, Config

EPOCHS = 30
SIZES = (3, 5, 7)
STROKE = 128


def main() -> None:
    print_heading("Occlusion of a digit's stroke", "`python benchmarks/occlusion.py`, measured")
    digits = data.load("digits")
    images, labels = digits.test.images, digits.test.labels
    with tempfile.TemporaryDirectory() as folder:
        config = Config(epochs=EPOCHS, run_dir=Path(folder) / "run", strategy="single")
        directory, history = runs.train(RECIPE, config, progress=False)
        run = runs.load_run(RECIPE, directory)
    inputs = data.whitening.normalize(data.whitening.to_float(images), run.task.mean, run.task.std)
    stroke = images[..., 0] >= STROKE
    black, white = ((shade - np.array(run.task.mean)) / np.array(run.task.std) for shade in (0, 1))

    accuracy = f"{history.epochs[-1]['test_top1']:.2%}"
    print(f"\nTest accuracy {accuracy}; {len(images)} images, of whose pixels the stroke has")
    print(f"{stroke.mean():.0%}. Fall of the true class's probability, mean over images:\n")
    print("| occluder | of | stroke | background | images where the stroke's is greater |")
    print("|---|---|---|---|---|")
    for size in SIZES:
        for shade, value in (("mean gray", 0.0), ("black, as the ground", black), ("white", white)):
            falls = []
            for start in range(0, len(images), 60):
                part = slice(start, start + 60)
                found = explain.occlusion(
                    run.task.model,
                    run.variables,
                    inputs[part],
                    labels[part],
                    size=size,
                    value=value,
                    probability=True,
                    batch_size=960,
                )
                falls.append(np.asarray(found))
            falls = np.concatenate(falls)
            on = (falls * stroke).sum((1, 2)) / stroke.sum((1, 2))
            off = (falls * ~stroke).sum((1, 2)) / (~stroke).sum((1, 2))
            row = (f"{size} x {size}", shade, f"{on.mean():.4f}", f"{off.mean():.4f}")
            print("|", " | ".join((*row, f"{(on > off).mean():.1%}")), "|", flush=True)
    print("\nGray and black squares hide the stroke. A white one hides little of it, but draws a new")
    print("one where there was none, so that the background is where it does harm.")


if __name__ == "__main__":
    main()
