"""`jaxnets models | summary | convert | augmentations`: what there is, and what it is made of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from jaxnets.console import PlainConsole
from jaxnets.errors import InputError
from jaxnets.outputs import check_picture
from jaxnets.ranges import SEEDS, refuse_outside


@dataclass(frozen=True)
class Models:
    """List the architectures."""

    pattern: tyro.conf.Positional[str] = "*"
    """Only names that match, as in a shell: 'resnet*'."""
    task: str | None = None
    """Only models of this task; None for all."""
    pretrained: bool = False
    """List public weights instead, with what their publishers claim: top-1 on ImageNet's validation
    images, AP on COCO val2017."""

    def run(self) -> None:
        from jaxnets.models import list_models, model_info

        names = list_models(self.pattern, pretrained=self.pretrained, task=self.task)
        if not names:
            raise InputError(f"no model matches {self.pattern!r}; `jaxnets models` lists all")
        if self.pretrained:
            _print_weights(names)
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("model", "task", "input", "classes", "paper"):
            table.add_column(heading, justify="left", no_wrap=heading != "paper")
        for name in names:
            info = model_info(name)
            size = "x".join(str(side) for side in info.input_size)
            table.add_row(name, info.task, size, str(info.num_classes), info.paper)
        PlainConsole().print(table)


@dataclass(frozen=True)
class Summary:
    """Print what a model is made of: shapes, parameters, multiply-adds, receptive fields."""

    name: tyro.conf.Positional[str]
    """Architecture; `jaxnets models` lists them."""
    depth: int | None = None
    """How deep to look: 1 for the layers and blocks of the backbone; None for everything."""
    size: int | None = None
    """Side of the image in pixels; None for what the model was made for."""
    num_classes: int | None = None
    """None for the model's own."""
    markdown: bool = False
    """As a table in Markdown."""

    def run(self) -> None:
        import jaxnets
        from jaxnets.models import model_info

        shape = None
        if self.size is not None:
            shape = (self.size, self.size, model_info(self.name).input_size[2])
        found = jaxnets.summary(self.name, shape, num_classes=self.num_classes)
        print(found.to_markdown(self.depth) if self.markdown else found.table(self.depth))


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

        weights.check_path(self.output)
        loaded = pretrained.load(self.model, self.source, dtype=None)
        library = self.library or weights.usual_library(self.model, self.output)
        weights.save(self.output, loaded, library)
        print(f"{self.output}: {self.model} by the names of {library}")


@dataclass(frozen=True)
class Augmentations:
    """Draw every augmentation, applied to a few images of a dataset, into one picture."""

    dataset: str = "digits"
    """digits, folder:PATH, records:PATH or tfds:NAME."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("augmentations.png")
    """The picture to write."""
    seed: int = 0
    """Of the random draws."""

    def run(self) -> None:
        from jaxnets import data

        refuse_outside("seed", self.seed, SEEDS)
        check_picture(self.output)
        data.contact_sheet(data.load(self.dataset), self.output, seed=self.seed)
        print(self.output)


def _print_weights(names: list[str]) -> None:
    from jaxnets.models import published_weights

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "claimed", "pixels", "crop", "interpolation", "license", "weights"):
        justify = "right" if heading in ("claimed", "pixels", "crop") else "left"
        table.add_column(heading, justify=justify, no_wrap=True)
    for name in names:
        for row in published_weights(name):
            claimed = ", ".join(f"{value:.2f} {measure}" for measure, value in row.claims.items())
            pixels = str(row.size) if row.size else f"{row.resize}-{row.longest}"
            numbers = claimed, pixels, f"{row.crop:.3f}"
            table.add_row(name, *numbers, row.interpolation, row.license, row.source)
    console = PlainConsole(width=1000)
    PlainConsole(width=console.measure(table).maximum).print(table)  # a source cut short is of no use
