"""How fast a whole train step is, beside plain Flax, Keras on JAX, and torchvision.

Command: python benchmarks/train_step.py [NETWORK ...] [--peer-python PYTHON]
Prints the table that is kept in benchmarks/README.md. Every contender is a process that holds one
network; they take their steps in turn, so that what else the machine does falls on all alike. On a busy
machine read the processor's seconds, of all cores together. PYTHON is an interpreter that has Keras,
torch and torchvision; without it they do not contend.

With --inference (benchmarks/inference.py) the forward pass alone; with --precision bfloat16
--batch-size 256 what one would run on a GPU, where torch is compiled.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from contenders import NETWORKS

HERE = Path(__file__).parent


class Contender:
    """A process that takes a step when asked to."""

    def __init__(self, python: str, name: str, network: str, options: list[str]):
        self.answers: list[dict] = []
        self.process = subprocess.Popen(
            [python, HERE / "contenders.py", name, network, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def step(self) -> dict | None:
        """One more step: `seconds`, `work` (processor seconds), `peak` memory; None if it has died."""
        try:
            print(file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return None
        answer = self.process.stdout.readline()
        return json.loads(answer) if answer else None

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(network: str, pythons: dict[str, str], options: list[str], rounds: int) -> dict[str, dict]:
    """Steps of all contenders in turn. By name: medians, peak memory, and the first step's seconds."""
    names = [
        name
        for name in pythons
        if name in ("ours", "flax") or NETWORKS[network][("keras", "torch").index(name)]
    ]
    contenders, found = {}, {}
    for name in names:
        contender = Contender(pythons[name], name, network, options)
        first = contender.step()
        if first is None:
            print(f"{name} could not run {network}", file=sys.stderr)
            continue
        contenders[name], found[name] = contender, {"first": first["seconds"]}
    for _ in range(rounds):
        for contender in contenders.values():
            contender.answers.append(contender.step())
    for name, contender in contenders.items():
        for what in ("seconds", "work", "peak"):
            found[name][what] = statistics.median(answer[what] for answer in contender.answers)
        contender.end()
    return found


def main(inference: bool = False) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--peer-python", help="an interpreter that has Keras, torch and torchvision")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--inference", action="store_true", default=inference)
    arguments = parser.parse_args()
    pythons = {"ours": sys.executable, "flax": sys.executable}
    if arguments.peer_python:
        pythons |= {"keras": arguments.peer_python, "torch": arguments.peer_python}
    options = ["--batch-size", str(arguments.batch_size), "--size", str(arguments.size)]
    options += ["--precision", arguments.precision, *["--inference"] * arguments.inference]

    what, side = "Forward pass" if arguments.inference else "Train step", arguments.size
    print(f"{what}, batch of {arguments.batch_size}, {side} x {side}, {arguments.precision}, ", end="")
    print(f"medians of {arguments.rounds}\n")
    print(f"- {hardware()}")
    for python in dict.fromkeys(pythons.values()):
        print(f"- {versions(python)}")
    columns = ("network", "contender", "first step, s", "step, s", "ours is faster by")
    columns += ("step, processor s", "ours takes less by", "peak memory, GiB")
    print(f"\n| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for network in arguments.networks or NETWORKS:
        found = compare(network, pythons, options, arguments.rounds)
        for name, row in found.items():
            ours = found["ours"]
            cells = [network, name, f"{row['first']:.1f}"]
            for what in ("seconds", "work"):
                cells += [f"{row[what]:.3f}", f"{row[what] / ours[what]:.2f}"]
            print(f"| {' | '.join(cells)} | {row['peak'] / 2**30:.2f} |", flush=True)


def hardware() -> str:
    """What the machine computes on, and how busy it is with other things."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((l.split(": ")[1] for l in lines if l.startswith("model name")), model)
    load = os.getloadavg()[0]
    devices = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.devices()[0].device_kind)"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    return f"{os.cpu_count()} cores ({model}), load {load:.1f} before the start; JAX on {devices}"


def versions(python: str) -> str:
    """Python's version and those of the packages that contend under it."""
    program = """
import platform
from importlib.metadata import PackageNotFoundError, version
found = [f"Python {platform.python_version()}"]
for name in ("jax", "flax", "keras", "torch", "torchvision"):
    try:
        found.append(f"{name} {version(name)}")
    except PackageNotFoundError:
        pass
print(", ".join(found))
"""
    return subprocess.run([python, "-c", program], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
