"""What a teacher is worth to a small classifier, and how much accuracy differs between folds: digits.

Command: python benchmarks/classifying_digits.py
Prints the tables that are kept in benchmarks/classifying_digits.md. A perceptron of eight hidden units
learns 1,437 digits with and without a teacher, the LeNet-5 of `jaxnets train`, in five seeds each. The
folds are those of `jaxnets search --folds 5` with its defaults. Takes a few minutes.
"""

import tempfile
from pathlib import Path

import numpy as np
from heading import print_heading

from jaxnets.classification.recipe import RECIPE, Config
from jaxnets.runs import train
from jaxnets.runs.folding import cross_validate

SEEDS = range(5)
STUDENT = {"model": "mlp", "settings": ("widths=[8]",), "epochs": 30}


def accuracies(directory: Path, **options) -> list[float]:
    """Test accuracy after the last epoch, of each seed."""
    found = []
    for seed in SEEDS:
        run_dir = directory / f"{len(options)}_{seed}"
        config = Config(**STUDENT, seed=seed, run_dir=run_dir, **options)
        _, history = train(RECIPE, config, progress=False)
        found.append(history.epochs[-1]["test_top1"])
    return found


def main() -> None:
    print_heading("classifying digits", "Distillation, and folds, with the defaults of `train`.")
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        teacher, history = train(RECIPE, Config(run_dir=directory / "teacher"), progress=False)
        print(f"\nTeacher: LeNet-5, test accuracy {history.epochs[-1]['test_top1']:.2%}.\n")
        print("| student | test accuracy, mean of 5 seeds | standard deviation |\n|---|---|---|")
        taught = {"teacher": str(teacher), "teacher_weight": 0.9}
        for name, options in (("alone", {}), ("with the teacher, weight 0.9", taught)):
            found = accuracies(directory, **options)
            print(f"| {name} | {np.mean(found):.2%} | {np.std(found, ddof=1):.2%} |", flush=True)
        _, result = cross_validate(RECIPE, Config(run_dir=directory / "folds"), 5, progress=False)
        print(f"\n| {' | '.join(result.table[0])} |\n{'|---' * len(result.table[0])}|")
        for row in result.table:
            print(f"| {' | '.join(row.values())} |")


if __name__ == "__main__":
    main()
