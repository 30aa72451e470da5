"""A cross-validation as a whole: a run for each part of the training examples that is held out."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxnets import atomic, data
from jaxnets.config import RunConfig, is_run
from jaxnets.console import PlainConsole
from jaxnets.errors import InputError
from jaxnets.layout import CONFIG_FILE
from jaxnets.runs.directories import new_directory, refuse_inside, refuse_taken
from jaxnets.runs.fitting import train
from jaxnets.runs.recipe import Recipe, dataset_of, located

RESULT_FILE = "folds.json"

_TAKEN_BY = {CONFIG_FILE: "a run"}


@dataclass(frozen=True)
class CrossValidation:
    """What the runs of a cross-validation measured on what was held out.

    Attributes:
        folds: the metrics of the last epoch of each run, by name.
    """

    folds: tuple[dict[str, float], ...]

    @property
    def mean(self) -> dict[str, float]:
        return {name: float(np.mean([fold[name] for fold in self.folds])) for name in self.folds[0]}

    @property
    def deviation(self) -> dict[str, float]:
        """The standard deviation among the runs, with one degree of freedom less."""
        return {name: float(np.std([f[name] for f in self.folds], ddof=1)) for name in self.folds[0]}

    @property
    def table(self) -> list[dict[str, str]]:
        """A row a fold, the mean and the standard deviation, formatted."""
        rows = {str(i): fold for i, fold in enumerate(self.folds, start=1)}
        rows |= {"mean": self.mean, "deviation": self.deviation}
        return [
            {"fold": name} | {key.removeprefix("test_"): f"{value:.4g}" for key, value in row.items()}
            for name, row in rows.items()
        ]


def cross_validate(
    recipe: Recipe, config: RunConfig, folds: int, *, script: str | None = None, progress: bool = True
) -> tuple[Path, CrossValidation]:
    """Trains as configured once for each part of the training examples, which is held out to measure by.
    The test examples are not touched.

    Args:
        recipe: what to learn.
        config: how, a `recipe.Config`. Runs that are in its `run_dir` already go on.
        folds: number of parts; see `data.folds`.
        script: that registered the recipe.
        progress: show a bar and a row for each epoch of each run.

    Returns:
        The directory and what was measured. In it: `fold_1/`, `fold_2/` ..., each a run that
        `jaxnets predict` and `eval` take, together too, and `folds.json`.

    Raises:
        InputError: for anything that does not fit.
    """
    given, config = config, located(config.completed())
    config.check()
    if config.resume:
        raise InputError(
            "resume: leave it out; in the same run_dir, a cross-validation goes on by itself"
        )
    refuse_taken(config.run_dir, _TAKEN_BY)
    refuse_inside(config.run_dir, config.dataset)
    dataset = dataset_of(recipe, config, None)
    parts = data.folds(dataset.train, folds, config.seed)
    making = new_directory(
        config.run_dir,
        f"folds_{config.model or recipe.name}",
        config.dataset,
        taken_by=_TAKEN_BY,
        begun=lambda directory: any(directory.iterdir()),
    )
    found = []
    with making as directory:
        for i, (rest, held) in enumerate(parts, start=1):
            part = dataclasses.replace(dataset, train=rest, test=held)
            run_dir = directory / f"fold_{i}"
            own = dataclasses.replace(given, run_dir=run_dir, resume=is_run(run_dir))
            of_part = recipe._replace(load=lambda config, about, part=part: part)
            if progress:
                PlainConsole().print(f"fold {i} of {folds}")
            try:
                _, history = train(of_part, own, progress, script=script)
            except KeyboardInterrupt as error:  # its note is of resuming a run of the whole set
                error.__notes__ = [f"the same command goes on, with --run-dir {directory}"]
                raise
            last = history.epochs[-1]
            found.append({name: last[name] for name in last if name.startswith("test_")})
        result = CrossValidation(tuple(found))
        said = {"folds": found, "mean": result.mean, "deviation": result.deviation}
        atomic.write_text(directory / RESULT_FILE, json.dumps(said, indent=1) + "\n")
    return directory, result
