"""How segmenters are trained, measured and used by `jaxnets.runs` and the command line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxnets import data
from jaxnets.data import sources
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics
from jaxnets.outputs import check_picture
from jaxnets.runs.beginning import (
    SMALL_BACKBONE,
    BackboneConfig,
    Models,
    inside,
    model_of,
    only,
    prepare_run,
)
from jaxnets.runs.fitting import load_run
from jaxnets.runs.recipe import (
    Prepared,
    Recipe,
    Run,
    Served,
    Told,
    load_images,
    measured,
    refuse_other_classes,
)
from jaxnets.segmentation import pretrained, sheet
from jaxnets.segmentation.creating import KINDS
from jaxnets.segmentation.drawing import draw as draw_labels
from jaxnets.segmentation.labels import check_path, write_labels
from jaxnets.segmentation.segmenter import Segmenter
from jaxnets.segmentation.segmenting import segment
from jaxnets.segmentation.task import Segmentation
from jaxnets.training import predict_all
from jaxnets.weights import Pretrained

SCENES, DIGITS = 4_000, 8  # that an epoch has, and the most digits of each

# What was not said: of photographs, and of scenes as benchmarks/segmentation_scenes.md has it.
_USUAL = {
    "epochs": 30, "image_size": 512, "augment": ("segmentation",), "loss": "cross_entropy",
}  # fmt: skip
_SCENES = {
    "epochs": 8, "image_size": 96, "augment": (), "loss": "cross_entropy+dice", "batch_size": 8,
}  # fmt: skip
_ADAMW = {"learning_rate": 2e-4, "weight_decay": 0.05, "clip_norm": 5.0}
_SCENES_ADAMW = {"learning_rate": 1e-3, "weight_decay": 0.05, "clip_norm": 5.0}
_SCENES_SETTINGS = {
    "segnet": ("depths=[1,1,4]", "widths=[16,32,64]"),
    "deeplabv3": ("features=64", "rates=[2,4,6]"),
    "refinenet": ("width=64",),
}
# A single stage, so that maps have stride 4 and keep strokes of few pixels apart.
_STAGE = {"backbone_settings": ("block=basic", "depths=[4]", "widths=[64]", "stem_width=32")}
_ONE_STAGE = {
    "fcn": _STAGE, "deeplabv3": _STAGE, "unet": _STAGE | {"settings": ("widths=[32,12]",)},
}  # fmt: skip


@dataclass(frozen=True)
class Config(BackboneConfig):
    """A segmenter: with no arguments, a small U-Net on scenes."""

    model: str | None = None
    """fcn, deeplabv3, unet ..., or one of `jaxnets models --task segmentation`; None for deeplabv3,
    unet for scenes, or that of --weights."""
    dataset: str = "scenes"
    """scenes, voc:PATH, coco:PATH, folder:PATH (images/ and labels/) or tfds:NAME."""
    epochs: int | None = None
    """Passes over the training set; None for 30, or 8 of scenes."""
    batch_size: int | None = None
    """Examples a step; None for at most 16, or 8 of scenes."""

    loss: str | None = None
    """cross_entropy, dice, focal, lovasz or a sum, cross_entropy+dice."""
    class_weights: tuple[float, ...] | None = None
    """A weight for the pixels of each class."""

    usual_batch: ClassVar[int] = 16

    def completed(self) -> "Config":
        """The configuration with everything filled in that depends on the dataset."""
        scenes = self.dataset == "scenes"
        usual: dict[str, Any] = dict(_SCENES if scenes else _USUAL)
        if self.optimizer == "adamw":
            usual |= _SCENES_ADAMW if scenes else _ADAMW
        if self.model is None and self.weights is None:
            usual["model"] = "unet" if scenes else "deeplabv3"
        kind = usual.get("model", self.model)
        drawn = not self.pretrained and (self.weights, self.backbone_weights) == (None, None)
        if scenes and drawn and kind in KINDS:
            if kind in _SCENES_SETTINGS:
                usual["settings"] = _SCENES_SETTINGS[kind]
            if kind != "segnet" and self.backbone is None:
                usual |= SMALL_BACKBONE | _ONE_STAGE.get(kind, {})
        return self.filled(usual)


@dataclass(frozen=True)
class Predict:
    """Of a segmenter: the classes in each picture, with their shares of its pixels."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The picture to draw them over, with a legend."""
    labels: Path | None = None
    """The label map itself, to be written as a PNG with a palette."""


def load(config: Config, about: Mapping[str, Any] | None) -> data.Dataset:
    """The dataset, with label maps.

    Raises:
        InputError: it has none, or other classes than the run that has been begun.
    """
    if "segmentation" not in sources.options_of(config.dataset):
        raise InputError(
            f"dataset {config.dataset} has no label maps; scenes, voc:PATH, coco:PATH, folder:PATH and "
            "tfds:NAME may have"
        )
    options: dict[str, Any] = {"segmentation": True}
    if about is not None:
        options["size"] = about["image_shape"][0]
    if config.dataset == "scenes":
        options |= {"objects": DIGITS, "count": SCENES}
    dataset = load_images(config, **options)
    if about is not None:
        refuse_other_classes(config, dataset, about)
    return dataset


def prepare(config: Config, dataset: data.Dataset, about: Mapping[str, Any] | None) -> Prepared:
    """The segmenter as configured, perhaps with weights, and the usual augmentation."""
    own = config.loss, config.class_weights
    return prepare_run(MODELS, config, dataset, about, lambda *parts: Segmentation(*parts, *own))


def restore(config: Config, about: Mapping[str, Any], directory: Path) -> Segmentation:
    """The task of a trained run."""
    own = config.loss, config.class_weights
    return Segmentation(model_of(MODELS, about), None, *own)


def predict(
    members: Sequence[Run | Pretrained], images: Sequence[Path], options: Predict
) -> Iterator[Told]:
    """The classes in each picture, the largest first; drawn and written too, if that is asked for."""
    loaded = only(MODELS, members, "label maps")
    for name, check in (("output", check_picture), ("labels", check_path)):
        path = getattr(options, name)
        if path is not None:
            check(path)
            if len(images) > 1:
                raise InputError(f"{name}: {len(images)} pictures given; it is written of one at a time")
    names = loaded.model.class_names
    variables = jax.tree.map(jnp.asarray, loaded.variables)  # onto the device once
    for path in images:
        (labels,) = segment(loaded.model, variables, [path])
        shares = _shares(labels, names)
        said = ", ".join(f"{name} {share:.1%}" for name, share in shares)
        classes = [{"class": name, "share": share} for name, share in shares]
        written = {name: own for name, own in vars(options).items() if own is not None}
        yield Told(f"{path}: {said}", file=path, classes=classes, **written)
        if options.output is not None:
            draw_labels(path, labels, options.output, names or None)
            yield Told(str(options.output))
        if options.labels is not None:
            write_labels(labels, options.labels)
            yield Told(str(options.labels))


def evaluate(run: Run, source: data.Source, batch_size: int) -> Metrics:
    """The task's metrics, and the intersection over union of each class."""
    found = dict(measured(run, source, batch_size))
    names = run.task.model.class_names
    return {**found, **pretrained.by_class(found["iou"].compute(), names)}


def evaluate_pretrained(
    members: Sequence[Run | Pretrained],
    dataset: str,
    batch_size: int,
    options: Any,
    split: str | None = None,
) -> Metrics:
    """Measures a pretrained segmenter on a dataset, whose classes are found by their names."""
    loaded = only(MODELS, members, "label maps")
    if not dataset or "segmentation" not in sources.options_of(dataset):
        raise InputError(
            f"dataset is {dataset!r}; pretrained segmenters are measured on pictures with label maps: "
            "give --dataset voc:PATH, coco:PATH, folder:PATH or tfds:NAME"
        )
    return pretrained.measure(loaded, data.load(dataset, segmentation=True).split(split))


def serve(member: Run | Pretrained, size: tuple[int, int] | None) -> Served:
    """The label maps of a segmenter."""
    loaded = only(MODELS, [member], "label maps")
    model, task = loaded.model, Segmentation(loaded.model)
    height, width, channels = (*(size or model.input_size[:2]), model.input_size[2])

    def run(variables: Any, pixels: jax.Array) -> jax.Array:
        scores = task.predict(variables, {"image": pixels})
        return jnp.argmax(scores, -1).astype(jnp.int32)

    return Served(
        run=run,
        variables=loaded.variables,
        image_shape=(height, width, channels),
        name=model.model_name,
        images=f"pictures scaled to {height} x {width} pixels (bilinear, with antialiasing)",
        outputs=f"label maps i32[N, {height}, {width}], the class of each pixel",
        about={"class_names": model.class_names},
    )


def draw(run: Run) -> list[Path]:
    """`segmentations.png` and `confusion.png`: what it says of its held-out pictures."""
    predictions = predict_all(run.task, run.variables, run.held_out(), batch_size=run.config.usual_batch)
    return sheet.draw(run.task, predictions, run.directory)


def _shares(labels: np.ndarray, names: Sequence[str]) -> list[tuple[str, float]]:
    """The classes in a label map with their shares of its pixels, the largest first."""
    found, counts = np.unique(labels, return_counts=True)
    largest_first = np.argsort(-counts, kind="stable")
    named = [names[label] if names else str(label) for label in found]
    return [(named[k], float(counts[k] / labels.size)) for k in largest_first]


def _classes(name: str, count: int) -> dict[str, int]:
    return {"num_classes": count}


def _images(name: str, side: int) -> dict[str, int | None]:
    return {"min_size": None, "max_size": side}


def _of_run(directory: str) -> Pretrained:
    return inside(MODELS, load_run(RECIPE, directory))


MODELS = Models(
    task="segmentation",
    noun="segmenter",
    type=Segmenter,
    kinds=KINDS,
    classes=_classes,
    images=_images,
    of_run=_of_run,
    given=(
        "name", "num_classes", "backbone", "backbone_settings", "min_size", "max_size", "mean", "std",
        "order",
    ),
    norm=lambda name: "batch",
)  # fmt: skip

RECIPE = Recipe(
    name=MODELS.task,
    Config=Config,
    load=load,
    prepare=prepare,
    restore=restore,
    predict=predict,
    Predict=Predict,
    draw=draw,
    inside=partial(inside, MODELS),
    evaluate=evaluate,
    evaluate_pretrained=evaluate_pretrained,
    serve=serve,
)
