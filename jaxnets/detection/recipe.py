"""How detectors are trained, measured and used by `jaxnets.runs` and the command line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import tyro

from jaxnets import data
from jaxnets.data import sources
from jaxnets.detection import pretrained, sheet
from jaxnets.detection.beginning import STAGES, has_masks, images_of, norm_of, partly_frozen
from jaxnets.detection.creating import KINDS, own_classes
from jaxnets.detection.detecting import Detections, detect
from jaxnets.detection.detector import Detector
from jaxnets.detection.drawing import draw as draw_found
from jaxnets.detection.task import Detection
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics
from jaxnets.outputs import check_picture
from jaxnets.ranges import Range
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
from jaxnets.runs.recipe import Prepared, Recipe, Run, Served, Told, load_images, refuse_other_classes
from jaxnets.training import predict_all
from jaxnets.weights import Pretrained

SCENES = 4_000  # that an epoch has
MOST = 1_000  # objects of a picture that is measured but not learned

# What was not said: of photographs, and of scenes as benchmarks/detection_scenes.md has it.
_USUAL = {"epochs": 12, "boxes": 100, "image_size": 512, "augment": ("objects",)}
_SCENES = {"epochs": 5, "boxes": 4, "image_size": 64, "augment": ()}
_ADAMW = {"learning_rate": 2e-4, "weight_decay": 0.05, "clip_norm": 5.0}
_SCENES_ADAMW = {"learning_rate": 2e-3, "weight_decay": 0.05, "clip_norm": 5.0}
_TWO_STAGES = ("width=64", "hidden=256", "proposals=64", "train_proposals=64")
_SCENES_SETTINGS = {
    "faster_rcnn": (*_TWO_STAGES, "anchor_size=8", "samples=64"),
    "mask_rcnn": (*_TWO_STAGES, "anchor_size=16", "samples=32"),
    "retinanet": ("width=64", "anchor_size=12"),
    "fcos": ("width=64", "stride=8"),
}


@dataclass(frozen=True)
class Config(BackboneConfig):
    """A detector: with no arguments, Faster R-CNN on scenes."""

    model: str | None = None
    """faster_rcnn, mask_rcnn, retinanet, fcos, or one of `jaxnets models --task detection`; None for
    faster_rcnn, or that of --weights."""
    dataset: str = "scenes"
    """scenes, coco:PATH, voc:PATH, tfds:coco/2017 or tfds:voc/2007."""
    epochs: int | None = None
    """Passes over the training set; None for 12, or 5 of scenes."""
    batch_size: int | None = None
    """Examples a step; None for at most 16."""

    frozen_stages: int | None = None
    """First stages of the backbone not to train; None for 1 with weights."""
    boxes: int | None = None
    """Most objects of a picture; None for 100, or 4 of scenes."""

    ranges: ClassVar[Mapping[str, Range]] = BackboneConfig.ranges | {
        "frozen_stages": Range(0, STAGES),
        "boxes": Range(1),
    }
    usual_batch: ClassVar[int] = 16

    @property
    def first_frozen(self) -> int:
        """First stages of the backbone that are not trained."""
        if self.frozen_stages is not None:
            return self.frozen_stages
        return int(self.pretrained or (self.weights, self.backbone_weights) != (None, None))

    def completed(self) -> "Config":
        """The configuration with everything filled in that depends on the dataset."""
        scenes = self.dataset == "scenes"
        usual: dict[str, Any] = dict(_SCENES if scenes else _USUAL)
        if self.optimizer == "adamw":
            usual |= _SCENES_ADAMW if scenes else _ADAMW
        if self.model is None and self.weights is None:
            usual["model"] = "faster_rcnn"
        kind = usual.get("model", self.model)
        if scenes and kind == "mask_rcnn":  # masks of thin digits need pixels
            usual |= {"image_size": 128, "batch_size": 8}
        if scenes and kind in KINDS and not self.pretrained and self.weights is None:
            usual["settings"] = _SCENES_SETTINGS[kind]
            if (self.backbone, self.backbone_weights) == (None, None):
                usual |= SMALL_BACKBONE
        return self.filled(usual)


@dataclass(frozen=True)
class Predict:
    """Of a detector: the objects in each picture, with their boxes as left, top, right, bottom."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The picture to draw them into."""
    score: float = 0.5
    """Objects of lower scores are left out."""


def load(config: Config, about: Mapping[str, Any] | None) -> data.Dataset:
    """The dataset, with boxes on a canvas, and with masks for a detector of masks.

    Raises:
        InputError: it has none, or other classes than the run that has been begun.
    """
    known = sources.options_of(config.dataset)
    if "boxes" not in known:
        raise InputError(
            f"dataset {config.dataset} has no boxes; scenes, coco:PATH, voc:PATH and tfds:NAME have"
        )
    options: dict[str, Any] = {"boxes": config.boxes}
    if about is not None:
        options["size"] = about["image_shape"][0]
    masks = has_masks(MODELS, config) if about is None else model_of(MODELS, about).finds_masks
    if masks and "masks" not in known:
        raise InputError(
            f"dataset {config.dataset} has no masks, which the detector learns; scenes and coco:PATH "
            "have"
        )
    if masks:
        options["masks"] = True
    if config.dataset == "scenes":
        options |= {"objects": config.boxes, "count": SCENES}
    dataset = load_images(config, **options)
    if about is not None:
        refuse_other_classes(config, dataset, about)
    return dataset


def prepare(config: Config, dataset: data.Dataset, about: Mapping[str, Any] | None) -> Prepared:
    """The detector as configured, perhaps with weights, and the usual augmentation."""
    run = prepare_run(MODELS, config, dataset, about, Detection)
    frozen = config.first_frozen
    return run._replace(transform=lambda optimizer: partly_frozen(optimizer, run.task.model, frozen))


def restore(config: Config, about: Mapping[str, Any], directory: Path) -> Detection:
    """The task of a trained run."""
    return Detection(model_of(MODELS, about))


def predict(
    members: Sequence[Run | Pretrained], images: Sequence[Path], options: Predict
) -> Iterator[Told]:
    """The objects in each picture, best first; drawn too, if that is asked for."""
    loaded = only(MODELS, members, "detections")
    if options.output is not None:
        check_picture(options.output)
        if len(images) > 1:
            raise InputError(
                f"output: {len(images)} pictures given; what is found is drawn into one at a time"
            )
    variables = jax.tree.map(jnp.asarray, loaded.variables)  # onto the device once
    for path in images:
        (found,) = detect(loaded.model, variables, [path], score=options.score)
        rows = zip(found.names, found.labels, found.scores, found.boxes, strict=True)
        objects = [
            {"class": name, "label": label, "score": score, "box": box}
            for name, label, score, box in rows
        ]
        written = {} if options.output is None else {"output": options.output}
        yield Told(f"{path}: {_told(found)}", file=path, objects=objects, **written)
        if options.output is not None:
            draw_found(path, found, options.output)
            yield Told(str(options.output))


def evaluate_pretrained(
    members: Sequence[Run | Pretrained],
    dataset: str,
    batch_size: int,
    options: Any,
    split: str | None = None,
) -> Metrics:
    """Measures a pretrained detector on a dataset, whose classes are found by their names."""
    loaded = only(MODELS, members, "detections")
    if not dataset or "boxes" not in (known := sources.options_of(dataset)):
        raise InputError(
            f"dataset is {dataset!r}; pretrained detectors are measured on pictures with boxes: give "
            "--dataset coco:PATH, voc:PATH or tfds:NAME"
        )
    masks = {"masks": True} if loaded.model.finds_masks and "masks" in known else {}
    side = loaded.model.resizing.max_size
    source = data.load(dataset, boxes=MOST, size=side, **masks).split(split)
    return pretrained.measure(loaded, source)


def serve(member: Run | Pretrained, size: tuple[int, int] | None) -> Served:
    """What a detector finds, with its own thresholds."""
    loaded = only(MODELS, [member], "detections")
    model, task = loaded.model, Detection(loaded.model)
    height, width, channels = (*(size or model.input_size[:2]), model.input_size[2])

    def run(variables: Any, pixels: jax.Array) -> dict[str, jax.Array]:
        found = task.predict(variables, {"image": pixels})._asdict()
        return {name: part for name, part in found.items() if part is not None}

    masks = ", masks f32[N, k, M, M] within the boxes" if model.finds_masks else ""
    return Served(
        run=run,
        variables=loaded.variables,
        image_shape=(height, width, channels),
        name=model.model_name,
        images=f"pictures scaled to {height} x {width} pixels (bilinear, without antialiasing)",
        outputs=f"boxes f32[N, k, 4] as left, top, right, bottom in pixels, scores f32[N, k], labels "
        f"i32[N, k] and valid bool[N, k], which of the k = {model.k} are there, best first{masks}",
        about={"class_names": model.class_names},
    )


def draw(run: Run) -> list[Path]:
    """`detections.png` and `precision_recall.png`: what it finds in its held-out pictures."""
    source = run.held_out()
    predictions = predict_all(run.task, run.variables, source, batch_size=2 * run.config.usual_batch)
    return sheet.draw(run.task, predictions, run.directory)


def _told(found: Detections) -> str:
    rows = zip(found.names, found.scores, found.boxes.round().astype(int), strict=True)
    told = [f"{name} {score:.1%} ({', '.join(map(str, box))})" for name, score, box in rows]
    return ", ".join(told) or "nothing"


def _of_run(directory: str) -> Pretrained:
    return inside(MODELS, load_run(RECIPE, directory))


MODELS = Models(
    task="detection",
    noun="detector",
    type=Detector,
    kinds=KINDS,
    classes=own_classes,
    images=images_of,
    of_run=_of_run,
    given=(
        "name", "num_classes", "first_label", "backbone", "backbone_settings", "min_size", "max_size",
        "mean", "std",
    ),
    norm=norm_of,
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
    evaluate_pretrained=evaluate_pretrained,
    serve=serve,
)
