"""How well and how fast the first command trains: LeNet-5 on scikit-learn's digits.

Command: python benchmarks/digits.py
Prints the table that is kept in benchmarks/digits.md. It runs `jaxnets train` as a user does, a process
each, with an empty compilation cache:

- three seeds in float32 and in bfloat16: test accuracy, and seconds from start to end;
- 200 epochs in one process: resident memory by epoch.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from heading import print_heading

SEEDS = (0, 1, 2)
LONG = 200  # epochs


def train(directory: Path, *options: str) -> tuple[float, list[dict]]:
    """Runs the command; returns its seconds and the records of its epochs."""
    command = [sys.executable, "-m", "jaxnets", "train", "--run-dir", str(directory), *options]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    records = [json.loads(line) for line in (directory / "metrics.jsonl").open()]
    return seconds, [record for record in records if record["kind"] == "epochs"]


def memory_by_epoch(directory: Path) -> dict[int, float]:
    """Trains for long, and looks at the process's resident memory (MiB) as its epochs go by."""
    command = [
        sys.executable, "-m", "jaxnets", "train", "--run-dir", str(directory),
        "--epochs", str(LONG),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    seen = {}
    while process.poll() is None:
        time.sleep(0.05)
        try:
            epoch = (directory / "metrics.jsonl").read_text().count('"epochs"')
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        resident = re.search(r"VmRSS:\s+(\d+)", status)
        if resident:
            seen[epoch] = int(resident[1]) / 1024
    return seen


def main() -> None:
    print_heading("LeNet-5 on digits", "`python benchmarks/digits.py`, measured")
    print()
    print("| precision | seed | test accuracy | seconds, with start and compilation |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "bfloat16"):
            found = []
            for seed in SEEDS:
                directory = Path(folder) / f"{precision}{seed}"
                seconds, epochs = train(directory, "--precision", precision, "--seed", str(seed))
                found.append((epochs[-1]["test_top1"], seconds))
                print(f"| {precision} | {seed} | {found[-1][0]:.2%} | {seconds:.1f} |", flush=True)
            accuracy, seconds = (statistics.mean(column) for column in zip(*found, strict=True))
            print(f"| {precision} | mean | **{accuracy:.2%}** | {seconds:.1f} |", flush=True)
        seen = memory_by_epoch(Path(folder) / "long")
    print(f"\nResident memory of one process over {LONG} epochs:\n")
    print("| epoch | MiB |")
    print("|---|---|")
    for epoch in (5, 10, 20, 50, 100, 150, LONG):
        nearest = min(seen, key=lambda e: abs(e - epoch))
        print(f"| {nearest} | {seen[nearest]:.0f} |")


if __name__ == "__main__":
    main()
