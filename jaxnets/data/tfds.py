"""TensorFlow Datasets, read without TensorFlow."""

import functools
import io
import os
from typing import Any

import numpy as np

from jaxnets.data import decoding, splits, tfds_labels
from jaxnets.data.dataset import Dataset
from jaxnets.data.objects import MOST, canvas_of, check_most
from jaxnets.data.tfds_labels import TfdsLabels
from jaxnets.data.tfds_objects import TfdsObjects
from jaxnets.errors import InputError, unknown_name


class TfdsSource:
    """One split of a prepared dataset, decoded with Pillow on access.

    Args:
        records: the split, with undecoded images.
        name: name of the split in messages.
        class_names: the K class names; empty if images have captions instead of labels.
        image_shape: (H, W, C) of the decoded images.
        size: side of the square that every image is resized to, or None to keep the size.
        strict: raise InputError for an image that cannot be decoded, instead of giving it weight 0.
        interpolation: interpolation for resizing, one of `decoding.INTERPOLATIONS`.
        background: color behind what is transparent.
    """

    def __init__(
        self,
        records: Any,
        name: str,
        class_names: tuple[str, ...],
        image_shape: tuple[int, int, int],
        size: int | None,
        strict: bool,
        interpolation: str = "bilinear",
        background: str = "white",
    ):
        self.class_names = class_names
        self.image_shape = image_shape
        self._records, self._name, self._size = records, name, size
        self._interpolation, self._background = interpolation, background
        self._unreadable = decoding.UnreadableImages(image_shape, strict)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        label = np.int32(record["label"]) if self.class_names else None
        try:
            image = self._decode(record["image"])
        except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
            return self._unreadable.stand_in(f"{self._name}[{index}]", label, error)
        return {"image": image} if label is None else {"image": image, "label": label}

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of an image, if the dataset has captions; the image is not decoded."""
        texts = self._records[index]["captions"]["text"]
        return tuple(t.decode() if isinstance(t, bytes) else str(t) for t in texts)

    def _decode(self, stored: bytes | np.ndarray) -> np.ndarray:
        options = self._size, self.image_shape[2], self._interpolation, self._background
        if isinstance(stored, bytes):
            return decoding.decode(io.BytesIO(stored), *options)
        from PIL import Image

        stored = stored[..., 0] if stored.ndim == 3 and stored.shape[-1] == 1 else stored
        return decoding.fit(Image.fromarray(stored), *options)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32[N]; the first access reads the whole split, without decoding images."""
        return np.asarray([record["label"] for record in self._records], np.int32)


def load_tfds(
    name: str,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    boxes: int | None = None,
    segmentation: bool = False,
    strict: bool = False,
    data_dir: str | None = None,
    interpolation: str = "bilinear",
    background: str = "white",
) -> Dataset:
    """Loads a prepared TensorFlow dataset of images with labels, captions, objects or label maps: its
    train, validation and test splits, or those of them that there are.

    Nothing is downloaded. Preparing a dataset may need TensorFlow; reading a dataset that was prepared
    in the array_record format does not.

    Args:
        name: name in TensorFlow Datasets: ``"cifar10"``, ``"name/config"``, ``"name:1.0.0"``. Its
            features must be named ``image`` and ``label``, or ``image`` and ``captions`` (as in
            ``"coco_captions"``), or ``image`` and ``objects`` with ``bbox`` and ``label`` (as in
            ``"coco/2017"`` and ``"voc/2007"``), or, for label maps, ``image`` and an image of one
            channel that is called ``segmentation_mask`` (as in ``"oxford_iiit_pet"``) or another of
            `tfds_labels.NAMES`. Epochs are measured by ``validation`` if there is one;
            ``test`` is then left for `Dataset.split`.
        size: side of the square that every image is resized to, as for a folder. By default, images
            keep their size if it is the same for all, and are resized to 224 pixels otherwise. With
            objects or label maps, that of the canvas, or its (height, width), as for `load_coco`.
        channels: 1 (gray) or 3 (RGB); by default that of the dataset.
        boxes: the most objects of an image; if it is given, objects are taken where there are labels
            too.
        segmentation: take label maps instead. Of classes without names, they are read to number them.
        strict: raise for an image that cannot be decoded, instead of giving it weight 0.
        data_dir: the folder with the prepared dataset (default: that of TensorFlow Datasets); ``~`` is
            your home.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".
        background: color behind what is transparent, such as "white" or "#7f7f7f".

    Raises:
        InputError: no such dataset; a dataset that is not prepared, or not as array_record (the
            message says how to prepare it); splits or features other than those above.
    """
    import tensorflow_datasets as tfds

    data_dir = data_dir and os.path.expanduser(data_dir)
    builder = _builder(name, data_dir)
    features = builder.info.features
    kind = _kind(features, boxes, segmentation)
    parts = {splits.split_of(split): split for split in builder.info.splits}
    parts = {name: parts[name] for name in splits.NAMES if name in parts}
    if kind is None or "train" not in parts or len(parts) < 2:
        wanted = "label (or captions, or objects with bbox and label)" if boxes is None else "objects"
        if segmentation:
            wanted = f"an image of one channel, called {' or '.join(tfds_labels.NAMES)},"
        raise InputError(
            f"tfds dataset {name!r} must have features image and {wanted} and splits train and test (or "
            f"validation); it has {', '.join(features)} and {', '.join(builder.info.splits)}"
        )
    stored = _stored_shape(features["image"].shape)
    channels = stored[2] if channels is None else channels
    on_canvas = kind in ("objects", "label maps")
    decoding.check_shape_options(None if on_canvas else size, channels)
    decoding.check_interpolation(interpolation)
    decoding.check_background(background)
    decoders = None
    if isinstance(features["image"], tfds.features.Image):
        decoders = {"image": tfds.decode.SkipDecoding()}
    elif on_canvas:
        raise InputError(f"tfds dataset {name!r} has {kind} of images without a format; wanted files")
    if kind == "objects":
        boxes = MOST if boxes is None else boxes
        check_most(boxes)
        class_names = tuple(features["objects"]["label"].names)
        make = functools.partial(
            TfdsObjects, boxes=boxes, first=int(name.startswith("voc")), strict=strict,
            image_shape=(*canvas_of(size), channels),
            interpolation=interpolation, background=background,
        )  # fmt: skip
    elif kind == "label maps":
        feature = tfds_labels.feature_of(features)
        decoders[feature] = tfds.decode.SkipDecoding()
        stored = {
            f"{name} {split}": builder.as_data_source(split=split, decoders=decoders)
            for split in parts.values()
        }
        class_names = tfds_labels.class_names(features[feature], feature, stored)
        make = functools.partial(
            TfdsLabels, feature=feature, size=size, channels=channels, strict=strict,
            interpolation=interpolation, background=background,
        )  # fmt: skip
    else:
        class_names = () if kind == "captions" else tuple(features["label"].names)
        if size is None and None in stored[:2]:
            size = 224
        make = functools.partial(
            TfdsSource, size=size, strict=strict,
            image_shape=(size or stored[0], size or stored[1], channels),
            interpolation=interpolation, background=background,
        )  # fmt: skip
    sources = {
        own: make(
            builder.as_data_source(split=split, decoders=decoders),
            name=f"{name} {split}",
            class_names=class_names,
        )
        for own, split in parts.items()
    }
    counts = {own: (parts[own], len(source)) for own, source in sources.items()}
    test = sources[splits.measuring(sources)]
    notes = (splits.usage(counts),)
    return Dataset(f"tfds:{name}", sources["train"], test, class_names, sources, notes)


def _kind(features: Any, boxes: int | None, segmentation: bool) -> str | None:
    """What an image of these features comes with, or None."""
    objects = getattr(features["objects"], "keys", dict)() if "objects" in features else ()
    has_objects = {"bbox", "label"} <= set(objects)
    if "image" not in features:
        return None
    if segmentation:
        return "label maps" if tfds_labels.feature_of(features) else None
    if has_objects and (boxes is not None or "label" not in features):
        return "objects"
    known = ("label", "captions") if boxes is None else ()
    return next((kind for kind in known if kind in features), None)


def _stored_shape(shape: tuple[int | None, ...]) -> tuple[int | None, int | None, int]:
    """(H, W, C) of a feature's shape; a shape with two axes is gray."""
    height, width, channels = (*shape, 1) if len(shape) == 2 else shape
    return height, width, channels or 3


def _builder(name: str, data_dir: str | None) -> Any:
    """The builder of a dataset that is prepared for reading."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    where = f", data_dir={data_dir!r}" if data_dir else ""
    prepare = (
        "prepare it once: pip install 'jaxnets[tfds]'; "
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}{where}, file_format='array_record').download_and_prepare()\""
    )
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise unknown_name("tfds dataset", name, known) from error
    except ImportError as error:  # to prepare coco takes TensorFlow, to read what is prepared does not
        try:
            builder = builder_from_files(name, data_dir=data_dir)
        except tfds.core.DatasetNotFoundError:
            raise InputError(f"tfds dataset {name!r} is not prepared; {prepare}") from error
    except Exception as error:  # a wrong version fails an assertion, a wrong config is a ValueError
        raise InputError(f"tfds dataset {name!r}: {decoding.describe(error)}") from error
    if not builder.info.splits:
        raise InputError(f"tfds dataset {name!r} is not prepared in {builder.data_path}; {prepare}")
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise InputError(
            f"tfds dataset {name!r} is prepared in {builder.data_path} as "
            f"{builder.info.file_format.value}, and must be array_record: remove that folder and "
            f"{prepare}"
        )
    return builder
