"""Features of whole datasets: what a model makes of each image, for programs that learn from vectors."""

import csv
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets import data, pretrained, weights
from jaxnets.config import is_run, read_config
from jaxnets.data import Source, inputs, sources, splits
from jaxnets.data.dataset import is_multi_label, labels_of, traced
from jaxnets.data.folder import FolderSource
from jaxnets.data.tables import SEPARATOR
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError, unknown_name
from jaxnets.outputs import check_path
from jaxnets.training import DataParallel, predict_all
from jaxnets.weights import Preprocessing, Pretrained

ENDINGS = (".csv", ".npz", ".parquet")


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of N images, in the order of their files.

    Attributes:
        features: f32[N, D], the means of a map's D channels; f32[N, h, w, D] where they are not pooled.
        files: str[N], those of the images; where they have none, their numbers in their split.
        splits: str[N], the part of the dataset that each is in, such as "train".
        labels: i32[N]; 0 or 1 for each class, [N, K], where images may have several; None where they
            have none.
        class_names: of the labels.
    """

    features: np.ndarray
    files: np.ndarray
    splits: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]

    def at(self, rows: Any) -> "Features":
        """Those of some rows, by their numbers or by a bool[N]: `found.at(found.splits == "train")`."""
        label = None if self.labels is None else self.labels[rows]
        parts = self.features[rows], self.files[rows], self.splits[rows]
        return Features(*parts, label, self.class_names)

    def save(self, path: str | os.PathLike) -> None:
        """Writes them into a file.

        Args:
            path: ends in .npz, for an archive with an array for each attribute; or in .csv or .parquet,
                for a table with a column for each number, and the names of classes too.

        Raises:
            InputError: another ending, a file that cannot be written, or no pandas for .parquet.
        """
        check_output(path)
        path = Path(path)
        fresh = path.with_name(f".new.{path.name}")
        write = {".npz": self._write_archive, ".csv": self._write_text, ".parquet": self._write_parquet}
        try:
            write[path.suffix.lower()](fresh)
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)

    def _write_archive(self, path: Path) -> None:
        arrays = {"features": self.features, "files": self.files, "splits": self.splits}
        if self.labels is not None:
            arrays |= {"labels": self.labels, "class_names": np.array(self.class_names, str)}
        with open(path, "wb") as file:  # to a path it would add an ending
            np.savez(file, **arrays)

    def _write_text(self, path: Path) -> None:
        described, values = self._columns()
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow([*described, *_numbered(values)])
            for told, row in zip(zip(*described.values(), strict=True), values, strict=True):
                writer.writerow([*told, *(f"{value:.9g}" for value in row)])  # 9 digits tell a float32

    def _write_parquet(self, path: Path) -> None:
        import pandas

        described, values = self._columns()
        table = pandas.DataFrame(values, columns=_numbered(values))
        pandas.concat([pandas.DataFrame(described), table], axis=1).to_parquet(path, index=False)

    def _columns(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What describes the rows, by name, and their numbers f32[N, D]."""
        described = {"file": self.files, "split": self.splits}
        names = np.array(self.class_names, str)
        if np.ndim(self.labels) == 2:
            described["labels"] = np.array([SEPARATOR.join(names[row > 0]) for row in self.labels], str)
        elif self.labels is not None:
            described["label"] = self.labels
            described |= {"class": names[self.labels]} if self.class_names else {}
        return described, self.features.reshape(len(self.features), -1)


def check_output(path: str | os.PathLike) -> None:
    """Checks that `Features.save` can write a file.

    Raises:
        InputError: as of that.
    """
    check_path(path, ENDINGS)
    if Path(path).suffix.lower() != ".parquet":
        return
    try:
        from pandas.io.parquet import get_engine

        get_engine("auto")
    except ImportError:
        raise InputError(
            f"output: {path} needs pandas and pyarrow: pip install pandas pyarrow; or name a .csv"
        ) from None


def extract_features(
    model: str | os.PathLike | Pretrained,
    dataset: str | None = None,
    layer: str | None = None,
    *,
    pool: bool = True,
    split: str | None = None,
    strict: bool = False,
    checkpoint: int | Literal["latest", "best"] = "latest",
    batch_size: int = 128,
    parallel: DataParallel | None = None,
) -> Features:
    """What a model makes of the images of a dataset, a row an image.

    They are those of `model.apply(variables, images, method="features")`, of images as the weights want
    them: a file is scaled and cropped by `jaxnets.weights.preprocessing`, and what is not a file by the
    loader of its dataset. An image that cannot be read has no row.

        found = jaxnets.extract_features("resnet50", "folder:pictures")
        train, test = (found.at(found.splits == split) for split in ("train", "test"))

    Args:
        model: the directory of a run; a model's name, for its best public weights; NAME=SOURCE; a
            source, as for `jaxnets.load_pretrained`; or a model with its weights. Of models that are no
            classifiers it is the backbone.
        dataset: as for `jaxnets.data.load`; None for that of the run.
        layer: the name of a map, as of `jaxnets.models.feature_info`; None for the last, which the head
            reads.
        pool: take the mean over the places of the map.
        split: "train", "val" or "test"; None for all images.
        strict: refuse an image that cannot be read.
        checkpoint: which one of a run; a number is that of its step.
        batch_size: images at a time, over all devices.
        parallel: how to use the devices; None for all of them.

    Raises:
        InputError: no such model, dataset, split or layer; nothing tells what images the weights want;
            or no image can be read.
    """
    about = _about_run(model)
    if dataset is None and not about:
        raise InputError("dataset: none given, and the model is no run; give one, such as folder:PATH")
    loaded = weights.inside(
        model if isinstance(model, Pretrained) else pretrained.named(model, checkpoint)
    )
    images = weights.preprocessing_of(loaded)
    extractor = _Extractor(loaded.model, _layer(loaded, images, layer), pool, images)
    options = {"data_dir": about.get("data_dir"), "strict": strict or None}
    read = _load(dataset or about["dataset"], images, options)
    names = [split] if split else [name for name in splits.NAMES if name in read.splits]
    source, rows = _rows({name: read.split(name) for name in names}, read.class_names, images, strict)
    parallel = parallel or DataParallel.create()
    found = predict_all(extractor, loaded.variables, source, batch_size=batch_size, parallel=parallel)
    found = tracked(found, -(-len(source) // batch_size), "computing features, in batches")
    parts = [(features, batch["weight"] > 0) for batch, features in found]
    features, readable = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not readable.any():
        raise InputError(f"dataset: none of the {len(source)} images of {read.name} can be read")
    return dataclasses.replace(rows, features=features).at(readable)


class _Extractor(NamedTuple):
    """A map of a model, for `predict_all`."""

    model: nn.Module
    layer: str
    pool: bool
    images: Preprocessing

    def predict(self, variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
        images = batch["image"] if self.images.order == "RGB" else batch["image"][..., ::-1]
        images = inputs.normalized(images, self.images.mean, self.images.std)
        found = self.model.apply(variables, images, method="features")[self.layer]
        if self.pool:
            found = found.mean(axis=tuple(range(1, found.ndim - 1)))
        return found.astype(jnp.float32)


class _Middles:
    """The images of several sources, of which the middle is taken."""

    def __init__(self, parts: Iterable[Source], side: int):
        self.examples = [(source, index) for source in parts for index in range(len(source))]
        self.side = side

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, own = self.examples[index]
        example = source[own]
        image = example["image"]
        top, left = ((length - self.side) // 2 for length in image.shape[:2])
        image = image[top : top + self.side, left : left + self.side]
        return {"image": image, "weight": example.get("weight", 1)}


def _about_run(model: Any) -> dict[str, Any]:
    """The configuration of a run; nothing of other models."""
    if isinstance(model, Pretrained) or not is_run(model):
        return {}
    return read_config(model)[1]


def _layer(loaded: Pretrained, images: Preprocessing, layer: str | None) -> str:
    """The name of a map, or of the last."""
    shape = (1, images.size, images.size, len(images.mean))
    known = list(
        jax.eval_shape(
            partial(loaded.model.apply, method="features"),
            loaded.variables,
            jax.ShapeDtypeStruct(shape, jnp.float32),
        )
    )
    if layer is not None and layer not in known:
        raise unknown_name("layer", layer, known)
    return known[-1] if layer is None else layer


def _load(dataset: str, images: Preprocessing, options: dict[str, Any]) -> data.Dataset:
    """A dataset in images of the size to which these are scaled."""
    shape = {"size": images.resize, "channels": len(images.mean), "interpolation": images.interpolation}
    known = sources.options_of(dataset)
    return data.load(dataset, **{name: v for name, v in (shape | options).items() if name in known})


def _rows(
    parts: Mapping[str, Source], class_names: Sequence[str], images: Preprocessing, strict: bool
) -> tuple[Source, Features]:
    """The images of the parts of a dataset as a single source, and what describes each of them."""
    source = _Middles(parts.values(), images.size)
    label = None
    first = source.examples[0][0]
    if np.ndim(first[0].get("label", ())) == 0 or is_multi_label(first, len(class_names)):
        label = np.concatenate([labels_of(part) for part in parts.values()])
    wholes = [traced(*example) for example in source.examples]
    has_files = all(hasattr(whole, "paths") for whole, _ in wholes)
    names = [str(index) for _, index in source.examples]
    if has_files:
        names = [str(whole.paths[index]) for whole, index in wholes]
    split = np.repeat(list(parts), [len(part) for part in parts.values()])
    rows = Features(np.zeros((len(source), 0)), np.array(names), split, label, tuple(class_names))
    if not has_files:
        return source, rows
    rows = rows.at(sorted(range(len(names)), key=lambda index: Path(names[index]).parts))
    source = FolderSource(
        rows.files.tolist(),
        np.zeros(len(names)),
        (),
        decode=partial(_middle_of, images),
        image_shape=(images.size, images.size, len(images.mean)),
        strict=strict,
    )
    return source, rows


def _middle_of(images: Preprocessing, path: str) -> np.ndarray:
    return images.crops(path)[0]


def _numbered(values: np.ndarray) -> list[str]:
    return [f"feature_{number}" for number in range(values.shape[1])]
