"""`jaxnets eval | predict | caption | plots`: what trained and pretrained models say of images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from jaxnets.config import newest_run
from jaxnets.errors import InputError


@dataclass(frozen=True)
class Eval:
    """Measure a trained model, or pretrained ones, on held-out images."""

    run_dir: tyro.conf.Positional[Path | None] = None
    """Directory of a run; the newest under runs/ where None."""
    dataset: str | None = None
    """Another dataset with the same classes; that of the run where None."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Which of the run's checkpoints."""
    batch_size: int = 128
    """Images at a time."""
    confusion: bool = False
    """Print the confusion matrix too."""
    pretrained: tuple[str, ...] = ()
    """Instead of a run: models as NAME, NAME=SOURCE or SOURCE; of several, the average."""
    crops: Literal["center", "flip", "ten"] = "center"
    """Views of each image whose probabilities are averaged; with --pretrained."""

    def run(self) -> None:
        if self.pretrained:
            self._run_pretrained()
            return
        from jaxnets import runs

        run = runs.load_run(self.run_dir or newest_run(), self.checkpoint)
        results = run.evaluate(self.dataset, batch_size=self.batch_size)
        if isinstance(run, runs.CaptionRun):
            print(f"{run.config.captioner} from {run.directory} on {self.dataset or run.config.dataset}")
            for name, value in results.items():
                print(f"{name:<9} {value:.4f}")
            return
        confusion = results.pop("confusion")
        print(f"{run.config.model} from {run.directory} on {self.dataset or run.config.dataset}")
        print(f"images    {confusion.sum():.0f}")
        for name, value in results.items():
            print(f"{name:<9} {value:.2%}" if name.startswith("top") else f"{name:<9} {value:.4f}")
        if self.confusion:
            table = Table(title="confusion: true class by row, predicted by column")
            for name in ("", *run.class_names):
                table.add_column(name, justify="right")
            for name, row in zip(run.class_names, confusion, strict=True):
                table.add_row(name, *(f"{count:.0f}" for count in row))
            Console().print(table)

    def _run_pretrained(self) -> None:
        from jaxnets import pretrained

        kind, _, folder = (self.dataset or "").partition(":")
        if kind != "folder":
            raise InputError("dataset: with --pretrained, give --dataset folder:PATH")
        members = [load_model(text) for text in self.pretrained]
        results = pretrained.evaluate(members, folder, crops=self.crops, batch_size=self.batch_size)
        print(f"{' + '.join(self.pretrained)} on {self.dataset}, crops: {self.crops}")
        print(f"images    {results.pop('images'):.0f}")
        for name, value in results.items():
            print(f"{name:<9} {value:.2%}" if name.startswith("top") else f"{name:<9} {value:.4f}")


@dataclass(frozen=True)
class Predict:
    """Name what is in pictures, with a trained model or a pretrained one."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Picture files, PNG or JPEG."""
    run_dir: Path | None = None
    """Directory of a run; the newest under runs/ where None."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Which of the run's checkpoints."""
    top: int = 5
    """How many classes to name for each picture."""
    pretrained: str | None = None
    """Instead of a run: a model as NAME, NAME=SOURCE or SOURCE."""

    def run(self) -> None:
        if not self.images:
            raise InputError("images: none given; name at least one picture file")
        if self.pretrained is None:
            from jaxnets import runs

            model = runs.load_run(self.run_dir or newest_run(), self.checkpoint, "classification")
            predictions = (model.predict(model.read_image(path)[None])[0] for path in self.images)
        else:
            from jaxnets import pretrained

            model = load_model(self.pretrained)
            predictions = (pretrained.predict(model, path) for path in self.images)
        for path, probabilities in zip(self.images, predictions, strict=True):
            best = probabilities.argsort()[::-1][: self.top]
            named = ", ".join(f"{model.class_names[k]} {probabilities[k]:.1%}" for k in best)
            print(f"{path}: {named}")


@dataclass(frozen=True)
class Caption:
    """Describe pictures in sentences, with a trained captioner or several."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Picture files, PNG or JPEG."""
    run_dir: tuple[Path, ...] = ()
    """Directory of a run, or of several whose predictions are averaged; the newest under runs/ where
    none."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Which of the runs' checkpoints."""
    beams: int = 3
    """Width of the beam search."""
    alpha: float = 0.0
    """Strength of its length penalty: above 0 favors longer sentences."""
    sentences: int = 1
    """How many to print for each picture, best first."""
    attention: Path | None = None
    """Draw where Show, Attend and Tell looked for each word, into this picture; of one image."""

    def run(self) -> None:
        from jaxnets import runs

        if not self.images:
            raise InputError("images: none given; name at least one picture file")
        if not 1 <= self.sentences <= self.beams:
            raise InputError(
                f"sentences is {self.sentences}; a beam search of {self.beams} has 1 to so many"
            )
        if self.attention is not None and len(self.images) > 1:
            raise InputError(f"attention: {len(self.images)} images given; one can be drawn at a time")
        directories = self.run_dir or (newest_run(),)
        loaded = [runs.load_run(directory, self.checkpoint, "captioning") for directory in directories]
        found = runs.caption(loaded, self.images, width=self.beams, alpha=self.alpha)
        for path, sentences in zip(self.images, found, strict=True):
            for sentence, score in sentences[: self.sentences]:
                print(f"{path}: {sentence}" + (f" ({score:.2f})" if self.sentences > 1 else ""))
        if self.attention is not None:
            loaded[0].draw_attention(self.images[0], found[0][0][0], self.attention)
            print(self.attention)


@dataclass(frozen=True)
class Plots:
    """Draw the pictures of a run into its directory: curves, confusion matrix, worst mistakes.

    Each layer's update-to-weight ratio too, if it was trained with --plots."""

    run_dir: tyro.conf.Positional[Path | None] = None
    """Directory of a run; the newest under runs/ where None."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Which of the run's checkpoints."""

    def run(self) -> None:
        from jaxnets import runs

        drawn = runs.draw_plots(self.run_dir or newest_run(), self.checkpoint)
        print(*drawn, sep="\n")
        if not any(path.name == "update_ratios.png" for path in drawn):
            print("no update_ratios.png: its numbers are recorded by `jaxnets train --plots`")


def load_model(text: str):
    """From NAME, NAME=SOURCE or SOURCE."""
    from jaxnets import pretrained

    name, equals, source = text.partition("=")
    return pretrained.load(name, source) if equals else pretrained.load(text)
