"""How fast a whole train step is, beside plain Flax, Keras on JAX, and torchvision.

Command: python benchmarks/train_step.py [NETWORK ...] [--peer-python PYTHON]
Prints the table that is kept in benchmarks/README.md. Every contender is a process that holds one
network; they take their steps in turn, so that what else the machine does falls on all alike. On a busy
machine read the processor's seconds, of all cores together. PYTHON is an interpreter that has Keras,
torch and torchvision; without it they do not contend.

With --inference (benchmarks/inference.py) the forward pass alone; with --precision bfloat16
--batch-size 256 --steps 10 what one would run on a GPU, where torch is compiled and a turn is ten steps,
of which only the last is waited for.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from contenders import NETWORKS, SEGMENTERS
from heading import print_heading
from machine import ceilings_apart

HERE = Path(__file__).parent


class Contender:
    """A process that takes its turn when asked to."""

    def __init__(self, python: str, *program: str | Path):
        self.answers: list[dict] = []
        self.complaints = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (it stays open)
        self.process = subprocess.Popen(
            [python, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # they share the accelerator
        )

    def turn(self) -> dict:
        """`seconds`, `work` (of processors) a step, `peak` memory. ChildProcessError if it has died."""
        try:
            print(file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.complaints.seek(0)
            lines = self.complaints.read().split("\n")
            raise ChildProcessError("\n".join(lines[-4:])) from None

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(network: str, pythons: dict[str, str], options: list[str], rounds: int) -> dict[str, dict]:
    """All contenders in turn. By name: medians, peak memory, and the first step's seconds."""
    names = [
        name
        for name in pythons
        if name in ("ours", "flax") or (NETWORKS | SEGMENTERS)[network][("keras", "torch").index(name)]
    ]
    contenders, found = {}, {}
    for name in names:
        contender = Contender(pythons[name], HERE / "contenders.py", name, network, *options)
        try:
            first = contender.turn()
        except ChildProcessError as error:
            print(f"{name} could not run {network}: {error}", file=sys.stderr)
            continue
        contenders[name], found[name] = contender, {"first": first["seconds"]}
    for _ in range(rounds):
        for contender in contenders.values():
            contender.answers.append(contender.turn())
    for name, contender in contenders.items():
        for what in ("seconds", "work", "peak"):
            found[name][what] = statistics.median(answer[what] for answer in contender.answers)
        contender.end()
    return found


def main(inference: bool = False, default: Iterable[str] = NETWORKS, size: int = 224) -> None:
    known = NETWORKS | SEGMENTERS
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(known))
    parser.add_argument("--peer-python", help="an interpreter that has Keras, torch and torchvision")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=size)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="of a contender in each round")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--inference", action="store_true", default=inference)
    arguments = parser.parse_args()
    if unknown := [network for network in arguments.networks if network not in known]:
        parser.error(f"unknown networks {unknown}; known are {', '.join(known)}")
    pythons = {"ours": sys.executable, "flax": sys.executable}
    if arguments.peer_python:
        pythons |= {"keras": arguments.peer_python, "torch": arguments.peer_python}
    options = ["--batch-size", str(arguments.batch_size), "--size", str(arguments.size)]
    options += ["--steps", str(arguments.steps)]
    options += ["--precision", arguments.precision, *["--inference"] * arguments.inference]

    what, side = "Forward pass" if arguments.inference else "Train step", arguments.size
    print_heading(
        f"{what}, batch of {arguments.batch_size}, {side} x {side}, {arguments.precision}",
        f"Measured, medians of {arguments.rounds}",
        pythons.values(),
    )
    ceiling = ceilings_apart(arguments.precision)["flops"]
    print(f"- products of matrices: {ceiling / 1e9:.0f} GFLOP/s")
    columns = ("network", "contender", "first step, s", "step, s", "ours is faster by")
    columns += ("step, processor s", "ours takes less by")
    columns += ("of the ceiling of products", "peak memory, GiB")
    print(f"\n| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for network in arguments.networks or default:
        found = compare(network, pythons, options, arguments.rounds)
        if "ours" not in found:  # such as DeepLabV3's train step of a single image
            continue
        # Backward, each product has two gradients.
        passes = 1 if arguments.inference else 3
        flops = 2 * passes * arguments.batch_size * multiply_adds(network, side)
        for name, row in found.items():
            ours = found["ours"]
            cells = [network, name, f"{row['first']:.1f}"]
            for what in ("seconds", "work"):
                cells += [f"{row[what]:.4g}", f"{row[what] / ours[what]:.2f}"]
            cells += [f"{flops / row['seconds'] / ceiling:.0%}", f"{row['peak'] / 2**30:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def multiply_adds(network: str, side: int) -> int:
    """Products of one forward pass of one image, counted by a process that takes no accelerator."""
    program = f"import contenders; print(contenders.multiply_adds({network!r}, {side}))"
    command = [sys.executable, "-c", program]
    found = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    return int(found.stdout)


if __name__ == "__main__":
    main()
