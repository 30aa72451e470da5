"""Do the architectures learn that no reference program vouches for? Each trains on 32 x 32 digits.

Command: python benchmarks/unreferenced.py [NAME ...]
Prints the table that is kept in benchmarks/unreferenced.md. Every row is one short run from scratch, a
process each, seed 0: AdamW with one epoch of warm-up and a cosine, gradients clipped at norm 1, no
augmentation. Wanted: 95 % of the 360 held-out digits.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any, NamedTuple

WANTED = 0.95


class Row(NamedTuple):
    """How a model is trained.

    The nets of ImageNet shrink 32 x 32 pixels 32-fold, most of them, to one position, unless they have
    a stem for small images. Those without normalization want smaller steps.
    """

    epochs: int
    learning_rate: float
    settings: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    size: int = 32
    batch_size: int = 32


SMALL = {"small_input": True}
ROWS = {
    "zfnet": Row(12, 1e-4, size=48),  # 47 is the smallest it takes
    "nin": Row(12, 1e-3, SMALL),
    "vgg11_lrn": Row(8, 1e-4),
    "vgg16_c": Row(10, 1e-4),
    "vgg16_gap": Row(10, 1e-4),
    "googlenet_paper": Row(12, 5e-4),
    "wrn_16_8": Row(2, 1e-3),
    "wrn_28_10": Row(1, 1e-3, batch_size=16),
    "densenet190_k40": Row(1, 1e-3, batch_size=16),
    "fractalnet": Row(4, 1e-3),
    "highway": Row(6, 1e-3),
    "pnasnet5_mobile": Row(12, 1e-3),
    "resnetv2_200": Row(12, 1e-3),
    "resnext50_1x64d": Row(12, 1e-3),
    "resnext50_2x40d": Row(12, 1e-3),
    "resnext50_4x24d": Row(12, 1e-3),
    "resnext50_8x14d": Row(12, 1e-3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ROWS), metavar="NAME")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(train(*arguments.names)))
        return
    packages = " ".join(f"{name} {version(name)}" for name in ("jax", "flax", "optax"))
    print("# Architectures without a reference, on 32 x 32 digits\n")
    print("`python benchmarks/unreferenced.py`, measured\n")
    print(f"- {os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}")
    print(f"- {packages}\n")
    print(
        "| model | settings | learning rate | epochs | batch | test accuracy | seconds, compiling too |"
    )
    print("|---|---|---|---|---|---|---|")
    missed = []
    for name in arguments.names:
        row = ROWS[name]
        command = [sys.executable, __file__, "--one", name]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        settings = [f"{key}={value}" for key, value in row.settings.items()]
        if row.size != 32:
            settings.append(f"{row.size} x {row.size} pixels")
        cells = (
            f"`{name}`", ", ".join(settings), f"{row.learning_rate:g}", row.epochs, row.batch_size,
            f"{found['accuracy']:.2%}", f"{found['seconds']:.0f}",
        )  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if found["accuracy"] < WANTED:
            missed.append(name)
    print(f"\nBelow {WANTED:.0%}: {', '.join(missed) or 'none'}.")
    sys.exit(bool(missed))


def train(name: str) -> dict[str, float]:
    """One run: its accuracy on the held-out digits, and its seconds."""
    import optax

    import jaxnets

    row = ROWS[name]
    start = time.perf_counter()
    data = jaxnets.data.load("digits", size=row.size)
    model = jaxnets.create_model(name, num_classes=data.num_classes, **row.settings)
    task = jaxnets.Classification(model)
    steps = len(data.train) // row.batch_size
    schedule = optax.warmup_cosine_decay_schedule(0, row.learning_rate, steps, (row.epochs + 1) * steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    _, history = jaxnets.training.fit(
        task,
        data.train,
        test=data.test,
        optimizer=optimizer,
        epochs=row.epochs,
        batch_size=row.batch_size,
        progress=False,
    )
    last = history.epochs[-1]
    return {"accuracy": last["test_top1"], "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
