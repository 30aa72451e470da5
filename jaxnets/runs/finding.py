"""A range test of the learning rate as a whole: from a configuration to a directory with its picture."""

import json
from pathlib import Path

from rich.progress import Progress

from jaxnets import atomic, training
from jaxnets.config import RunConfig
from jaxnets.console import status
from jaxnets.layout import CONFIG_FILE
from jaxnets.runs.directories import new_directory, refuse_inside, refuse_taken
from jaxnets.runs.fitting import create_configured
from jaxnets.runs.recipe import Recipe, dataset_of, located, prepared, refuse_growing, with_batch_size
from jaxnets.runs.searching import refuse_what_has_no_use, train_command
from jaxnets.training import DataParallel, RateFinding

RESULT_FILE = "finder.json"

_TAKEN_BY = {RESULT_FILE: RESULT_FILE, CONFIG_FILE: "a run"}


def find_rate(
    recipe: Recipe,
    config: RunConfig,
    *,
    steps: int = 100,
    script: str | None = None,
    progress: bool = True,
) -> tuple[Path, RateFinding]:
    """Finds a learning rate by `training.find_learning_rate`, from a thousandth to a thousand
    times the usual one; leaves what it finds in a directory.

    Args:
        recipe: what to learn.
        config: how to train, a `recipe.Config`.
        steps: number of steps.
        script: that registered the recipe, for the command that trains with what was found.
        progress: show a bar.

    Returns:
        The directory and what was found. In it: `finder.json` and `finder.png`, a picture.

    Raises:
        InputError: for anything that does not fit.
        DivergenceError: if the first loss is not finite.
    """
    refuse_what_has_no_use(config)
    config = located(config.completed())
    config.check()
    refuse_taken(config.run_dir, _TAKEN_BY)
    refuse_inside(config.run_dir, config.dataset)
    parallel = DataParallel.create(config.strategy)
    with status(f"reading {config.dataset}", progress):
        dataset = dataset_of(recipe, config, None)
    config = with_batch_size(config, len(dataset.train), parallel.replicas)
    with status("measuring the images and preparing the model", progress):
        run = prepared(recipe, config, dataset, None)
    refuse_growing(run)
    usual = training.usual_settings(config.optimizer).learning_rate
    making = new_directory(
        config.run_dir,
        f"finder_{run.name}",
        config.dataset,
        taken_by=_TAKEN_BY,
        begun=lambda directory: (directory / RESULT_FILE).exists(),
    )
    with making as directory, Progress(disable=not progress, transient=True) as bar:
        line = bar.add_task("finding the learning rate", total=steps)
        found = training.find_learning_rate(
            run.task,
            run.train,
            optimizer=lambda schedule: run.transform(create_configured(config, schedule)),
            low=usual * 1e-3,
            high=usual * 1e3,
            steps=steps,
            batch_size=config.batch_size,
            seed=config.seed,
            precision=config.precision,
            workers=config.workers,
            parallel=parallel,
            variables=run.variables,
            make_rule=recipe.make_rule,
            advance=lambda: bar.advance(line),
        )
        values = {"learning_rate": float(f"{found.suggestion:.2g}")}
        result = found.to_dict() | {"command": train_command(recipe, config, values, script)}
        atomic.write_text(directory / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    from jaxnets.explain.finder_picture import plot_finding

    plot_finding(result, directory / "finder.png")
    return directory, found
