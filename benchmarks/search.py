"""Whether a search pays: LeNet-5 on digits with what `jaxnets search` finds, against the defaults.

Command: python benchmarks/search.py
Prints the table that is kept in benchmarks/search.md, and leaves the picture in benchmarks/search.png.
It runs `jaxnets search` once (seed 0; compared on a fifth of the training images), then `jaxnets train`
for its 30 epochs with the defaults and with the best that was found, three seeds each. Only these look
at the test images.
"""

import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from heading import print_heading

SEEDS = (0, 1, 2)
HERE = Path(__file__).parent


def jaxnets(*arguments: str) -> float:
    """Runs a command; returns its seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "jaxnets", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def accuracy(directory: Path) -> float:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["test_top1"]


def main() -> None:
    print_heading("Searching hyperparameters", "`python benchmarks/search.py`, measured")
    with tempfile.TemporaryDirectory() as folder:
        searched = Path(folder) / "search"
        seconds = jaxnets(
            "search", "--model", "lenet5", "--dataset", "digits", "--run-dir", str(searched)
        )
        found = json.loads((searched / "search.json").read_text())
        shutil.copy(searched / "search.png", HERE / "search.png")
        trials = found["trials"]
        epochs = sum(found["stages"][trial["stage"] - 1]["epochs"] for trial in trials)
        lost = sum(trial["stopped"] is not None for trial in trials)
        print(
            f"\n`jaxnets search --model lenet5 --dataset digits --seed 0` took {seconds:.0f} s for "
            f"{len(trials)} trainings of {epochs} epochs in all, of which {lost} were given up. "
            f"It found\n\n    {found['command']}\n"
        )
        for warning in found["warnings"]:
            print(f"and warned that {warning}.\n")
        print("Test accuracy after the 30 epochs of `jaxnets train`:\n")
        print("| settings | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean |")
        print("|---|" + "---:|" * (len(SEEDS) + 1))
        best = shlex.split(found["command"])[2:]
        for name, options in (("defaults", []), ("found", best)):
            scores = []
            for seed in SEEDS:
                directory = Path(folder) / f"{name}{seed}"
                jaxnets("train", *options, "--seed", str(seed), "--run-dir", str(directory))
                scores.append(accuracy(directory))
            cells = [f"{score:.2%}" for score in scores]
            print(f"| {name} | {' | '.join(cells)} | **{statistics.mean(scores):.2%}** |", flush=True)
        print(f"\n## What the search saw\n\n![](search.png)\n\n{(searched / 'search.md').read_text()}")


if __name__ == "__main__":
    main()
