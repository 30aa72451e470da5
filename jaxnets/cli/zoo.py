"""`jaxnets models | summary | convert | augmentations`: what there is, and what it is made of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from jaxnets.console import PlainConsole, print_document, print_table
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
    json: bool = False
    """As a document in JSON."""

    def run(self) -> None:
        from jaxnets.models import list_models, model_info

        names = list_models(self.pattern, pretrained=self.pretrained, task=self.task)
        if not names:
            raise InputError(f"no model matches {self.pattern!r}; `jaxnets models` lists all")
        if self.json:
            print_document([_described(name, self.pretrained) for name in names])
            return
        if self.pretrained:
            from jaxnets.cli.weights_table import print_weights

            print_weights(names)
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("model", "task", "input", "classes", "paper"):
            table.add_column(heading, no_wrap=True)
        for name in names:
            info = model_info(name)
            size = "x".join(str(side) for side in info.input_size)
            table.add_row(name, info.task, size, str(info.num_classes), info.paper)
        print_table(table)


def _described(name: str, pretrained: bool) -> dict[str, Any]:
    """What there is to say of a model, or of its public weights, for JSON."""
    from jaxnets.models import model_info, published_weights

    info = model_info(name)
    found = {
        "model": name,
        "task": info.task,
        "input_size": info.input_size,
        "num_classes": info.num_classes,
        "paper": info.paper,
    }
    if pretrained:
        found["weights"] = published_weights(name)
    return found


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
    json: bool = False
    """As a document in JSON."""

    def run(self) -> None:
        import jaxnets
        from jaxnets.models import model_info

        shape = None
        if self.size is not None:
            shape = (self.size, self.size, model_info(self.name).input_size[2])
        found = jaxnets.summary(self.name, shape, num_classes=self.num_classes)
        if self.json:
            print_document(found.to_dict(self.depth))
        elif self.markdown:
            print(found.to_markdown(self.depth))
        else:
            console = PlainConsole()
            print(found.table(self.depth, console.width if console.is_terminal else None))


@dataclass(frozen=True)
class Convert:
    """Write weights of any source into a file, under the names of any library."""

    model: tyro.conf.Positional[str]
    """Architecture; `jaxnets models` lists them."""
    source: tyro.conf.Positional[str]
    """A file of safetensors, torch, NumPy, Flax, Keras or TF-Slim, hf:OWNER/NAME, torchvision:FILE, or
    the directory of a run."""
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
    """digits, scenes, folder:PATH, csv:PATH, records:PATH, coco:PATH, voc:PATH or tfds:NAME."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("augmentations.png")
    """The picture to write."""
    label_maps: bool = False
    """Whether to draw label maps, of a dataset that has them, instead of boxes."""
    seed: int = 0
    """Of the random draws."""

    def run(self) -> None:
        from jaxnets import data

        refuse_outside("seed", self.seed, SEEDS)
        check_picture(self.output)
        shown = data.load(self.dataset, segmentation=self.label_maps or None)
        data.contact_sheet(shown, self.output, seed=self.seed)
        print(self.output)
