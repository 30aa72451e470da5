"""How long the policies of augmentation take for a batch of 128, beside torchvision's.

Command: python benchmarks/augmentation.py [--peer-python PYTHON]
PYTHON is an interpreter with torch and torchvision; without it ours stands alone. Ours is what a train
step does with a batch of uint8, compiled: to floats, and a policy with a key for each image; once as it
is, and once with every operation for every image, as a plain `jax.vmap` would have it. torchvision's
policies take one tensor of uint8 after the other with one thread, as a worker of its DataLoader does.
Processor seconds are of all threads.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
from contenders import import_torchvision
from heading import print_heading

BATCH_SIZE, SIDES, ROUNDS = 128, (32, 224), 5
POLICIES = {"randaugment": "RandAugment", "trivialaugment": "TrivialAugmentWide", "augmix": "AugMix"}
CONTENDERS = ("ours", "ours, all operations", "torchvision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        contender, policy, side = arguments.measure
        print(json.dumps(measure(contender, policy, int(side))))
        return
    print_heading(
        "How long policies of augmentation take",
        f"`python benchmarks/augmentation.py`, a batch of {BATCH_SIZE}, medians of {ROUNDS}",
        (sys.executable, arguments.peer_python),
    )
    print("\n| policy | side | by | batch, s | processor s | ours takes less by | first, processor s |")
    print("|---|---|---|---|---|---|---|")
    for side in SIDES:
        for policy in POLICIES:
            print_rows(policy, side, arguments.peer_python)


def print_rows(policy: str, side: int, peer_python: str) -> None:
    """A row for each contender, of a process of its own."""
    least = None
    for contender in CONTENDERS:
        python = peer_python if contender == "torchvision" else sys.executable
        command = [python, __file__, "--measure", contender, policy, str(side)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode and "ModuleNotFoundError" not in done.stderr:
            raise SystemExit(done.stderr)
        if done.returncode == 0:
            first, wall, processor = json.loads(done.stdout.splitlines()[-1])
            least = least or processor
            numbers = f"{wall:.3f}", f"{processor:.3f}", f"{processor / least:.2f}", f"{first:.1f}"
            print("| " + " | ".join(map(str, (policy, side, contender, *numbers))) + " |", flush=True)


def measure(contender: str, policy: str, side: int) -> tuple[float, float, float]:
    """Processor seconds of the first batch; medians of seconds and processor seconds of those after."""
    shape = (BATCH_SIZE, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    start = time.process_time()
    run = torchvisions(policy, images) if contender == "torchvision" else ours(contender, policy, images)
    run(0)
    first, walls, processors = time.process_time() - start, [], []
    for k in range(1, ROUNDS + 1):
        wall, processor = time.perf_counter(), time.process_time()
        run(k)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return first, statistics.median(walls), statistics.median(processors)


def ours(contender: str, policy: str, images: np.ndarray) -> Callable[[int], None]:
    import jax

    from jaxnets.data import augmentation, inputs, policies

    def step(seed, images):
        augment = augmentation.by_name([policy])
        return inputs.augmented(jax.random.key(seed), {"image": images}, augment)["image"]

    at_once = mock.patch.object(policies, "one_by_one", lambda function: function)
    if contender == "ours":
        compiled = jax.jit(step).lower(0, images).compile()
    else:
        with at_once:
            compiled = jax.jit(step).lower(0, images).compile()
    held = jax.device_put(images)
    return lambda seed: jax.block_until_ready(compiled(seed, held))


def torchvisions(policy: str, images: np.ndarray) -> Callable[[int], None]:
    import torch

    import_torchvision()
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    augment = getattr(v2, POLICIES[policy])()
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def run(seed: int) -> None:
        torch.manual_seed(seed)
        torch.stack([augment(image) for image in tensors])

    return run


if __name__ == "__main__":
    main()
