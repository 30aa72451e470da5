"""What it takes to start: compile times of every architecture, and its first 20 steps.

Command: python benchmarks/compile_time.py [NAME ...]
Prints the table that is kept in benchmarks/compile_time.md. Each model has a process of its own, no
compilation cache, and digits of the smallest size it takes (32 at least; compile time hardly depends
on it), eight a batch. For float32 and for bfloat16 it makes the train step (AdamW at the command line's
default learning rate, from the first step on), compiles it and takes 20 steps.

Seconds are of processor time, tracing included, over all cores: they hold on a machine that has other
work too.
"""

import argparse
import json
import math
import subprocess
import sys
import time

from heading import print_heading

STEPS, BATCH_SIZE = 20, 8
WITH_FLAX = ("resnet50", "densenet201", "nasnet_mobile")  # whose initialization by Flax is timed too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.names)))
        return
    from jaxnets import list_models

    print_heading(
        "Compile time and first steps of every architecture",
        "`python benchmarks/compile_time.py`, measured in seconds of processor time",
    )
    print()
    print("| model | parameters | side | init | step | bf16 | loss 1 | loss 20 | 1, bf16 | 20, bf16 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    by_flax, failed = {}, []
    for name in arguments.names or list_models(task="classification"):
        command = [sys.executable, __file__, "--one", name]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        cells = [f"`{name}`", f"{found['parameters']:,}", found["side"], f"{found['init']:.1f}"]
        losses = found["float32"]["losses"] + found["bfloat16"]["losses"]
        cells += [f"{found[precision]['step']:.1f}" for precision in ("float32", "bfloat16")]
        cells += [f"{loss:.3g}" for loss in losses]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if not all(map(math.isfinite, losses)):
            failed.append(name)
        if "init_by_flax" in found:
            by_flax[name] = (found["init_by_flax"], found["init"])
    print(f"\nNot finite after {STEPS} steps: {', '.join(failed) or 'none'}.")
    if by_flax:
        print("\nInitialization, all of it in one compiled program:\n")
        print("| model | Flax's own | ours | ratio |")
        print("|---|---|---|---|")
        for name, (flax, ours) in by_flax.items():
            print(f"| `{name}` | {flax:.1f} | {ours:.1f} | {flax / ours:.1f} |")
    sys.exit(bool(failed))


def measure(name: str) -> dict:
    """Compile times and losses of one model."""
    import jax
    from flax import linen as nn

    import jaxnets
    from jaxnets.training import create_optimizer, create_state, make_train_step

    side = max(32, jaxnets.create_model(name).min_size)
    data = jaxnets.data.load("digits", size=side)
    model = jaxnets.create_model(name, num_classes=data.num_classes)
    task = jaxnets.Classification(model)
    optimizer = create_optimizer("adamw", 1e-3, weight_decay=0.05)
    batches = [
        {
            "image": data.train.images[first : first + BATCH_SIZE],
            "label": data.train.labels[first : first + BATCH_SIZE],
        }
        for first in range(0, STEPS * BATCH_SIZE, BATCH_SIZE)
    ]
    jax.random.key(0).block_until_ready()  # JAX has started
    found = {"side": side}
    for precision in ("float32", "bfloat16"):
        start = time.process_time()
        state = jax.block_until_ready(create_state(task, optimizer, jax.random.key(0), batches[0]))
        found.setdefault("init", time.process_time() - start)
        start = time.process_time()
        step = jax.jit(make_train_step(task, optimizer, precision=precision), donate_argnums=0)
        compiled = step.lower(state, batches[0]).compile()
        seconds = time.process_time() - start
        found["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        losses = []
        for batch in batches:
            state, sums = compiled(state, batch)
            losses.append(float(sums["loss"].total / sums["loss"].weight))
        finite = all(map(math.isfinite, losses))
        found[precision] = {"step": seconds, "losses": [losses[0], losses[-1] if finite else math.nan]}
    if name in WITH_FLAX:
        images = jax.numpy.zeros((1, side, side, 1))
        start = time.process_time()
        jax.block_until_ready(jax.jit(lambda key: nn.Module.init(model, key, images))(jax.random.key(0)))
        found["init_by_flax"] = time.process_time() - start
    return found


if __name__ == "__main__":
    main()
