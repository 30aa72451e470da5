"""The command line: `jaxnets train | eval | predict | caption | models | convert | augmentations`.

Each command is a thin face of a library call. What a user got wrong is said in a line or two, with
exit status 2 and no traceback.
"""

import dataclasses
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from jaxnets.config import Config, newest_run, read_config
from jaxnets.errors import InputError


@dataclass(frozen=True)
class Train(Config):
    """Train a classifier; with no arguments, LeNet-5 on scikit-learn's digits.

    With --task captioning a captioner: Show, Attend and Tell on scenes."""

    coordinator: str | None = None
    """With several processes: host:port of process 0. None where JAX knows the cluster."""
    processes: int | None = None
    """With several processes: how many there are; 0 to ask the cluster (SLURM, TPU pod ...)."""
    process: int | None = None
    """With several processes: the number of this one, from 0."""

    def run(self) -> None:
        if self.processes is not None:
            from jaxnets.training import initialize_distributed

            initialize_distributed(self.coordinator, self.processes or None, self.process)
        from jaxnets import caption_runs, runs

        names = [field.name for field in dataclasses.fields(Config)]
        config = Config(**{name: getattr(self, name) for name in names})
        captions = config.task == "captioning"
        directory, history = (caption_runs if captions else runs).train(config)
        last = history.epochs[-1]
        from jaxnets.training.parallel import is_main_process

        if is_main_process():
            measured = "exact sentences" if captions else "accuracy"
            score = last["test_exact" if captions else "test_top1"]
            print(f"test {measured} {score:.2%} after {last['epoch']} epochs")
            print(f"checkpoint    {directory / 'checkpoints' / str(last['step'])}")
            print(f"curves        {directory / 'curves.png'}")


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
        from jaxnets import caption_runs, runs

        directory = self.run_dir or newest_run()
        if read_config(directory)[0].task == "captioning":
            run = caption_runs.load_run(directory, self.checkpoint)
            results = run.evaluate(self.dataset, batch_size=self.batch_size)
            print(f"{run.config.captioner} from {directory} on {self.dataset or run.config.dataset}")
            for name, value in results.items():
                print(f"{name:<9} {value:.4f}")
            return
        run = runs.load_run(directory, self.checkpoint)
        results = run.evaluate(self.dataset, batch_size=self.batch_size)
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
        members = [_load_pretrained(text) for text in self.pretrained]
        results = pretrained.evaluate(members, folder, crops=self.crops, batch_size=self.batch_size)
        print(f"{' + '.join(self.pretrained)} on {self.dataset}, crops: {self.crops}")
        print(f"images    {results.pop('images'):.0f}")
        for name, value in results.items():
            print(f"{name:<9} {value:.2%}" if name.startswith("top") else f"{name:<9} {value:.4f}")


def _load_pretrained(text: str):
    """From NAME, NAME=SOURCE or SOURCE."""
    from jaxnets import pretrained

    name, equals, source = text.partition("=")
    return pretrained.load(name, source) if equals else pretrained.load(text)


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

            model = runs.load_run(self.run_dir or newest_run(), self.checkpoint)
            predictions = (model.predict(model.read_image(path)[None])[0] for path in self.images)
        else:
            from jaxnets import pretrained

            model = _load_pretrained(self.pretrained)
            predictions = (pretrained.predict(model, path) for path in self.images)
        for path, probabilities in zip(self.images, predictions, strict=True):
            best = probabilities.argsort()[::-1][: self.top]
            named = ", ".join(f"{model.class_names[k]} {probabilities[k]:.1%}" for k in best)
            print(f"{path}: {named}")


@dataclass(frozen=True)
class Convert:
    """Write weights of any source into a file, under the names of any library."""

    model: tyro.conf.Positional[str]
    """Architecture; `jaxnets models` lists them."""
    source: tyro.conf.Positional[str]
    """A .safetensors or .pth file, hf:OWNER/NAME, torchvision:FILE, or the directory of a run."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The file to write, .safetensors or .pth."""
    library: str | None = None
    """Whose names: jaxnets, torchvision, timm ...; None for jaxnets', in a .pth file the first other."""

    def run(self) -> None:
        from jaxnets import pretrained, weights

        loaded = pretrained.load(self.model, self.source, dtype=None)
        library = self.library or weights.usual_library(self.model, self.output)
        weights.save(self.output, loaded, library)
        print(f"{self.output}: {self.model} by the names of {library}")


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
    """Strength of its length penalty: above 0 favours longer sentences."""
    sentences: int = 1
    """How many to print for each picture, best first."""
    attention: Path | None = None
    """Draw where Show, Attend and Tell looked for each word, into this picture; of one image."""

    def run(self) -> None:
        from jaxnets import caption_runs

        if not self.images:
            raise InputError("images: none given; name at least one picture file")
        if not 1 <= self.sentences <= self.beams:
            raise InputError(
                f"sentences is {self.sentences}; a beam search of {self.beams} has 1 to so many"
            )
        if self.attention is not None and len(self.images) > 1:
            raise InputError(f"attention: {len(self.images)} images given; one can be drawn at a time")
        directories = self.run_dir or (newest_run(),)
        loaded = [caption_runs.load_run(directory, self.checkpoint) for directory in directories]
        found = caption_runs.caption(loaded, self.images, width=self.beams, alpha=self.alpha)
        for path, sentences in zip(self.images, found, strict=True):
            for sentence, score in sentences[: self.sentences]:
                print(f"{path}: {sentence}" + (f" ({score:.2f})" if self.sentences > 1 else ""))
        if self.attention is not None:
            loaded[0].draw_attention(self.images[0], found[0][0][0], self.attention)
            print(self.attention)


@dataclass(frozen=True)
class Models:
    """List the architectures."""

    pattern: tyro.conf.Positional[str] = "*"
    """Only names that match, as in a shell: 'resnet*'."""
    pretrained: bool = False
    """List public weights instead, with what their publishers claim."""

    def run(self) -> None:
        from jaxnets.models import list_models, model_info

        names = list_models(self.pattern, pretrained=self.pretrained)
        if not names:
            raise InputError(f"no model matches {self.pattern!r}; `jaxnets models` lists all")
        if self.pretrained:
            _print_weights(names)
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("model", "input", "classes", "paper"):
            table.add_column(heading, justify="left", no_wrap=heading != "paper")
        for name in names:
            info = model_info(name)
            size = "x".join(str(side) for side in info.input_size)
            table.add_row(name, size, str(info.num_classes), info.paper)
        Console().print(table)


def _print_weights(names: list[str]) -> None:
    from jaxnets.models import published_weights

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "claimed top-1", "pixels", "crop", "interpolation", "licence", "weights"):
        justify = "right" if heading in ("claimed top-1", "pixels", "crop") else "left"
        table.add_column(heading, justify=justify, no_wrap=True)
    for name in names:
        for row in published_weights(name):
            numbers = f"{row.top1:.2f}", str(row.size), f"{row.crop:.3f}"
            table.add_row(name, *numbers, row.interpolation, row.licence, row.source)
    Console().print(table)


@dataclass(frozen=True)
class Augmentations:
    """Draw every augmentation, applied to a few images of a dataset, into one picture."""

    dataset: str = "digits"
    """digits, folder:PATH or tfds:NAME."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("augmentations.png")
    """The picture to write."""
    seed: int = 0
    """Of the random draws."""

    def run(self) -> None:
        from jaxnets import data

        data.contact_sheet(data.load(self.dataset), self.output, seed=self.seed)
        print(self.output)


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Caption, tyro.conf.subcommand("caption")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Augmentations, tyro.conf.subcommand("augmentations")]
)


def main(arguments: list[str] | None = None) -> None:
    """Runs one command. Exits with 2 for what the user got wrong, 130 for an interrupt."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Threads that save in the background also log, with tracebacks, what `save` and `wait` raise.
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _print_unless_a_failed_save
    try:
        command = _parse(sys.argv[1:] if arguments is None else arguments)
        command.run()
    except (InputError, OSError) as error:  # OSError: no space left, no permission, no such file
        print(f"jaxnets: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\njaxnets: interrupted; a training run goes on with --resume", file=sys.stderr)
        sys.exit(130)


def _print_unless_a_failed_save(unraisable) -> None:
    """After a failed save TensorStore's threads go on to report to an event loop that has ended."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _parse(arguments: list[str]) -> Command:
    command = _cli(Command, arguments)
    if isinstance(command, Train) and command.resume:
        # What is not given again is as the run had it.
        saved, _ = read_config(command.run_dir or newest_run())
        default = Train(**vars(saved))
        command = _cli(Train, arguments[1:], default=default)
    return command


def _cli(form, arguments: list[str], **options):
    return tyro.cli(form, prog="jaxnets", args=arguments, **options)


if __name__ == "__main__":
    main()
