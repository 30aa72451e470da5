"""How fast detectors are, beside torchvision (eager).

Command: python benchmarks/detection.py [WORK ...] [--peer-python PYTHON]
Prints the table that is kept in benchmarks/detection.md: `detect` of one picture of 800 x 1333, scaling
and normalizing it included; a train step of two, with 8 objects each, all parameters learned by SGD; and
single operators. Each contender is a process; they take their turns one after the other, with as many
threads as there are processors, on a GPU if there is one. Weights are torch's, drawn, and converted into
ours, so that both suppress the same boxes. PYTHON is an interpreter that has torch and torchvision.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from detectors import WORK
from heading import print_heading
from train_step import HERE, Contender


def compare(work: str, pythons: dict[str, str], rounds: int) -> dict[str, dict]:
    """Both in turn. By name: medians, peak memory, and the first step's seconds."""
    contenders, found = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("torch", "ours"):  # the weights are torch's
            program = HERE / "detectors.py", name, work, Path(folder) / "weights.npz"
            contenders[name] = Contender(pythons[name], *program)
            found[name] = {"first": contenders[name].turn()["seconds"]}
    for _ in range(rounds):
        for contender in contenders.values():
            contender.answers.append(contender.turn())
    for name, contender in contenders.items():
        for what in ("seconds", "work", "peak", "value"):
            found[name][what] = statistics.median(answer[what] for answer in contender.answers)
        contender.end()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", nargs="*", metavar="WORK", help=", ".join(WORK))
    parser.add_argument("--peer-python", required=True, help="an interpreter with torch and torchvision")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    chosen = arguments.work or list(WORK)
    if unknown := [work for work in chosen if work not in WORK]:
        parser.error(f"unknown work {unknown}; known are {', '.join(WORK)}")
    pythons = {"ours": sys.executable, "torch": arguments.peer_python}
    print_heading(
        "Detectors, 800 x 1333, float32",
        f"Measured, medians of {arguments.rounds}; value: boxes found or kept, or the loss",
        pythons.values(),
    )
    columns = ("work", "contender", "first step, s", "step, s", "ours is faster by")
    columns += ("step, processor s", "ours takes less by", "peak memory, GiB", "value")
    print(f"\n| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for work in chosen:
        found = compare(work, pythons, arguments.rounds)
        for name, row in found.items():
            cells = [work, name, f"{row['first']:.1f}"]
            for what in ("seconds", "work"):
                cells += [f"{row[what]:.4g}", f"{row[what] / found['ours'][what]:.2f}"]
            cells += [f"{row['peak'] / 2**30:.2f}", f"{row['value']:.4g}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
