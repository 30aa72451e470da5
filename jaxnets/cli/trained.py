"""`jaxnets eval | predict | plots`: what is done with a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro

from jaxnets.cli.tasks import form_of, split_models
from jaxnets.config import is_run, newest_run, part_of
from jaxnets.console import print_document
from jaxnets.errors import InputError
from jaxnets.paths import expanded, shown
from jaxnets.ranges import COUNTS, refuse_outside


@dataclass(frozen=True)
class Eval:
    """Measure a trained model, or pretrained ones, on held-out examples."""

    recipe: ClassVar[Any]  # of the task, once `of` has made its form

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """Directory of a run, or pretrained models as NAME, NAME=SOURCE or SOURCE, of which the average is
    measured; None for the newest run under runs/."""
    dataset: str | None = None
    """Another dataset; None for that of the run."""
    split: str | None = None
    """Part of the dataset: train, val or test; None for the one that epochs are measured by."""
    checkpoint: Literal["latest", "best"] | int = "latest"
    """Which of the run's checkpoints; a number is that of its step."""
    batch_size: int | None = None
    """Examples at a time, over all devices; None for what suits the task."""
    json: bool = False
    """As a document in JSON."""

    def run(self) -> None:
        from jaxnets import metrics
        from jaxnets.runs import Run

        refuse_outside("batch_size", self.batch_size, COUNTS)
        batch_size = self.batch_size or 2 * self.recipe.Config.usual_batch
        members = _members(self.recipe, self.models, self.checkpoint)
        first, options, rows = members[0], part_of(self.recipe.Evaluate, self), []
        dataset = self.dataset or (first.config.dataset if isinstance(first, Run) else "")
        part = f", split {self.split}" if self.split else ""
        if len(members) == 1 and isinstance(first, Run) and options == self.recipe.Evaluate():
            source = first.held_out(self.dataset, self.split)
            results = self.recipe.evaluate(first, source, batch_size)
            heading = f"{first.directory} on {dataset}{part}"
            rows.append(("examples", str(len(source))))
        elif self.recipe.evaluate_pretrained is None:
            raise InputError(
                f"models: {len(members)} given; {self.recipe.name} is measured a run at a time"
            )
        else:
            results = self.recipe.evaluate_pretrained(members, dataset, batch_size, options, self.split)
            heading = f"{' + '.join(self.models)} on {dataset}{part}"
        found = metrics.scalars(results)
        if self.json:
            models = self.models or (str(first.directory),)
            about = {"models": models, "dataset": dataset, "split": self.split}
            counts = {name: int(count) for name, count in rows}
            print_document({**about, **counts, "metrics": found})
            return
        print(heading)
        rows += [(name, results[name].form.format(value)) for name, value in found.items()]
        width = max(9, *(len(name) for name, _ in rows))
        for name, value in rows:
            print(f"{name:<{width}} {value}")

    @classmethod
    def of(cls, recipe: Any) -> type:
        """The command with what a task adds."""
        return form_of(cls, recipe, recipe.Evaluate)


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Say what is in pictures, with a trained model or a pretrained one."""

    recipe: ClassVar[Any]  # of the task, once `of` has made its form

    files: tyro.conf.Positional[tuple[str, ...]]
    """Picture files. Before them, perhaps, the directory of a run or a pretrained model as
    NAME, NAME=SOURCE or SOURCE, or several, whose predictions are averaged; without one it is the
    newest run under runs/."""
    checkpoint: Literal["latest", "best"] | int = "latest"
    """Which of the run's checkpoints; a number is that of its step."""
    json: bool = False
    """As a document in JSON."""

    def run(self) -> None:
        from jaxnets.runs import Told

        models, images = split_models(self.files)
        if not images:
            other = next((word for word in models if expanded(word).is_dir() and not is_run(word)), None)
            told = "none given" if other is None else f"{other or '.'} is a directory, and no run"
            raise InputError(f"images: {told}; name at least one picture file")
        if self.recipe.predict is None:
            raise InputError(f"a run of {self.recipe.name} has no way to predict from files")
        members = _members(self.recipe, models, self.checkpoint)
        lines = self.recipe.predict(members, images, part_of(self.recipe.Predict, self))
        if self.json:
            values = [line.values if isinstance(line, Told) else {"line": line} for line in lines]
            print_document([own for own in values if own])
            return
        for line in lines:
            print(shown(line))

    @classmethod
    def of(cls, recipe: Any) -> type:
        """The command with what a task adds."""
        return form_of(cls, recipe, recipe.Predict)


@dataclass(frozen=True)
class Plots:
    """Draw the pictures of a run into its directory: curves, confusion matrix, worst mistakes.

    Each layer's update-to-weight ratio too, if it was trained with --plots."""

    run_dir: tyro.conf.Positional[Path | None] = None
    """Directory of a run; None for the newest under runs/."""
    checkpoint: Literal["latest", "best"] | int = "latest"
    """Which of the run's checkpoints; a number is that of its step."""

    def run(self) -> None:
        from jaxnets import recipes, runs

        directory = self.run_dir or newest_run()
        drawn = runs.draw_plots(recipes.of_run(directory), directory, self.checkpoint)
        print(*drawn, sep="\n")
        if not any(path.name == "update_ratios.png" for path in drawn):
            print("no update_ratios.png: its numbers are recorded by `jaxnets train --plots`")


def _members(recipe: Any, models: Sequence[str], checkpoint: str | int) -> list[Any]:
    """Runs and pretrained models of one task by their words; the newest run where there are none."""
    from jaxnets import pretrained, runs
    from jaxnets.weights import sources

    members = []
    for word in models or (str(newest_run()),):
        if expanded(word).is_dir() and not sources.is_weights(word):
            members.append(runs.load_run(recipe, word, checkpoint))
        elif recipe.evaluate_pretrained is None:
            raise InputError(f"models: {word} is a pretrained model; wanted a run of {recipe.name}")
        else:
            members.append(pretrained.named(word, checkpoint))
    return members
