"""Do the architectures learn that no reference program vouches for? Each trains on 32 x 32 digits.

Command: python benchmarks/unreferenced.py [NAME ...]
Prints the table that is kept in benchmarks/unreferenced.md. Every row is one short run from scratch, a
process each, seed 0: Adam at a constant learning rate after 22 steps of warm-up, gradients clipped at
norm 1, no augmentation. Every 704 images (half an epoch) the 360 held-out digits are classified; the
run ends when 95 % of them are right, and fails after 20 epochs.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any, NamedTuple

from heading import print_heading

WANTED = 0.95
IMAGES, ROUNDS = 704, 40
WARM_UP = 22  # steps


class Row(NamedTuple):
    """How a model is trained.

    The nets of ImageNet shrink 32 x 32 pixels 32-fold, most of them to one position, unless they have
    a stem for small images. Those without normalization want smaller steps; those of many operations
    want fewer images a step, for they need about as many steps.
    """

    learning_rate: float
    settings: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    size: int = 32
    batch_size: int = 32


ROWS = {
    "zfnet": Row(1e-4, size=48),  # 47 is the smallest it takes
    "nin": Row(1e-4, {"small_input": True}),
    "vgg11_lrn": Row(1e-4),
    "vgg16_c": Row(1e-4),
    "vgg16_gap": Row(1e-4),
    "googlenet_paper": Row(3e-4),
    "wrn_16_8": Row(1e-3),
    "wrn_28_10": Row(5e-4, batch_size=8),
    "densenet190_k40": Row(5e-4, batch_size=8),
    # Its drop-path and dropout, made for 400 epochs, keep 40 layers in a row from learning in a few.
    "fractalnet": Row(1e-3, {"drop_path": 0.0, "dropout": 0.0}),
    "highway": Row(5e-4),
    "pnasnet5_mobile": Row(1e-3),
    "resnetv2_200": Row(3e-4),
    "resnext50_1x64d": Row(1e-3),
    "resnext50_2x40d": Row(1e-3),
    "resnext50_4x24d": Row(1e-3),
    "resnext50_8x14d": Row(1e-3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ROWS), metavar="NAME")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(train(*arguments.names)))
        return
    print_heading(
        "Architectures without a reference, on 32 x 32 digits",
        "`python benchmarks/unreferenced.py`, measured",
    )
    print()
    print("| model | settings | learning rate | batch | steps | accuracy | minutes of processor time |")
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
            f"`{name}`", ", ".join(settings), f"{row.learning_rate:g}", row.batch_size, found["steps"],
            f"{found['accuracy']:.1%}", f"{found['seconds'] / 60:.1f}",
        )  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if found["accuracy"] < WANTED:
            missed.append(name)
    print(f"\nBelow {WANTED:.0%}: {', '.join(missed) or 'none'}.")
    sys.exit(bool(missed))


def train(name: str) -> dict[str, float]:
    """One run: its steps, its accuracy on the held-out digits, and its seconds of processor time."""
    import jax
    import numpy as np
    import optax

    import jaxnets
    from jaxnets.training import create_state, make_train_step

    row = ROWS[name]
    data = jaxnets.data.load("digits", size=row.size)
    images, labels = data.train.images, data.train.labels
    model = jaxnets.create_model(name, num_classes=data.num_classes, **row.settings)
    task = jaxnets.Classification(model)
    schedule = optax.linear_schedule(0, row.learning_rate, WARM_UP)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    state = create_state(task, optimizer, jax.random.key(0), {"image": images[:1], "label": labels[:1]})
    step = jax.jit(make_train_step(task, optimizer), donate_argnums=0)
    predict = jax.jit(task.predict)
    order = np.concatenate([np.random.default_rng(i).permutation(len(images)) for i in range(ROUNDS)])
    steps = IMAGES // row.batch_size  # of a round
    for done in range(1, ROUNDS * steps + 1):
        chosen = order[(done - 1) * row.batch_size : done * row.batch_size]
        state, sums = step(state, {"image": images[chosen], "label": labels[chosen]})
        if done % steps:
            continue
        parts = np.split(data.test.images, range(60, len(data.test.images), 60))
        scores = np.concatenate([predict(state.variables, {"image": part}) for part in parts])
        accuracy = float(np.mean(scores.argmax(-1) == data.test.labels))
        loss = float(sums["loss"].total / sums["loss"].weight)
        print(f"{name}: step {done}, loss {loss:.3f}, test accuracy {accuracy:.1%}", file=sys.stderr)
        if accuracy >= WANTED:
            break
    return {"steps": done, "accuracy": accuracy, "seconds": time.process_time()}


if __name__ == "__main__":
    main()
