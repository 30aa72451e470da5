"""Datasets by name."""

import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.data.dataset import ArraySource, Dataset
from jaxnets.errors import InputError, unknown_name
from jaxnets.paths import expanded

_LOADERS: dict[str, Callable[..., Dataset] | str] = {
    "digits": "jaxnets.data.sources:load_digits",
    "scenes": "jaxnets.data.scenes:load_scenes",
    "folder:PATH": "jaxnets.data.folder:load_folder",
    "csv:PATH": "jaxnets.data.tables:load_csv",
    "captions:PATH": "jaxnets.data.captions:load_captions",
    "coco:PATH": "jaxnets.data.coco:load_coco",
    "voc:PATH": "jaxnets.data.voc:load_voc",
    "records:PATH": "jaxnets.data.records:load_records",
    "tfds:NAME": "jaxnets.data.tfds:load_tfds",
}
"""Loaders by spec, or the path of a loader, which is then imported only when it is used."""


def register(spec: str, loader: Callable[..., Dataset]) -> None:
    """Registers a custom dataset by name, for `load` and the command line.

    Args:
        spec: its name, such as ``"shapes"``, or its name and a parameter, such as ``"shapes:COUNT"``;
            of one that is called PATH, a leading ~ is expanded, and runs keep it as an absolute path.
        loader: `loader(**options)`, or `loader(rest, **options)`, where `rest` is what follows the
            colon. Its options are keyword-only arguments; all except ``size`` and ``channels`` may be
            missing.

    Raises:
        InputError: the name is taken by another loader.
    """
    kind = spec.partition(":")[0]
    for known, other in list(_LOADERS.items()):
        if known.partition(":")[0] != kind:
            continue
        if _name_of(other) != _name_of(loader):
            raise InputError(f"dataset {kind!r} is already known; choose another name")
        del _LOADERS[known]  # of the same script, run again
    _LOADERS[spec] = loader


def _name_of(loader: Callable[..., Dataset] | str) -> tuple[str | None, str]:
    """Where a loader comes from."""
    return getattr(loader, "__module__", None), getattr(loader, "__qualname__", repr(loader))


def load(spec: str, **options: Any) -> Dataset:
    """Loads a dataset by its spec.

    Args:
        spec: ``"digits"``, ``"scenes"``, ``"folder:PATH"``, ``"csv:PATH"``, ``"records:PATH"``,
            ``"captions:PATH"``, ``"coco:PATH"``, ``"voc:PATH"``, ``"tfds:NAME"``, or a custom one
            (`register`).
        **options: options of `load_digits`, `load_scenes`, `load_folder`, `load_csv`, `load_records`,
            `load_captions`, `load_coco`, `load_voc` or `load_tfds`. All take ``size`` (side of the
            images in pixels) and ``channels`` (1 or 3); None stands for the default.

    Raises:
        InputError: an unknown spec, an option that this dataset does not take, or an error of its
            loader.
    """
    loader, known = _loader_of(spec)
    options = {name: value for name, value in options.items() if value is not None}
    for name in options:
        if name not in known:
            raise InputError(f"dataset {spec!r} takes no option {name!r}; it takes {', '.join(known)}")
    rest = str(_path_of(spec)) if has_path(spec) else spec.partition(":")[2]
    return loader(*([rest] if rest else []), **options)


def options_of(spec: str) -> list[str]:
    """The names of the options that a dataset takes, such as "boxes" of those with objects.

    Raises:
        InputError: an unknown spec.
    """
    return _loader_of(spec)[1]


def _loader_of(spec: str) -> tuple[Callable[..., Dataset], list[str]]:
    """The loader of a spec, and the names of its options."""
    kind, _, rest = spec.partition(":")
    known = {name.partition(":")[::2]: loader for name, loader in _LOADERS.items()}
    loader = next(
        (found for (name, takes), found in known.items() if name == kind and bool(takes) == bool(rest)),
        None,
    )
    if loader is None and os.path.isdir(os.path.expanduser(spec)):
        raise InputError(f"dataset {spec!r} is a directory; did you mean 'folder:{spec}'?")
    if loader is None and spec.endswith(".csv") and ":" not in spec:
        raise InputError(f"dataset {spec!r} is a file; did you mean 'csv:{spec}'?")
    if loader is None:
        raise unknown_name("dataset", spec, _LOADERS)
    if isinstance(loader, str):
        module, _, function = loader.partition(":")
        loader = getattr(importlib.import_module(module), function)
    return loader, [
        name
        for name, parameter in inspect.signature(loader).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]


def located(spec: str) -> str:
    """A spec with an absolute path, where it has a path; a leading ~ is the home directory."""
    return f"{spec.partition(':')[0]}:{_path_of(spec).absolute()}" if has_path(spec) else spec


def has_path(spec: str) -> bool:
    """Whether a spec is of the form KIND:PATH, of a kind that is known."""
    kind, _, rest = spec.partition(":")
    return bool(rest) and f"{kind}:PATH" in _LOADERS


def _path_of(spec: str) -> Path:
    return expanded(spec.partition(":")[2])


def load_digits(*, size: int = 32, channels: int = 1, interpolation: str = "bilinear") -> Dataset:
    """Loads the 1,797 handwritten digits that come with scikit-learn; nothing is downloaded.

    They have 8x8 pixels and 17 gray levels, white on black, and are from the UCI repository's "Optical
    Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998). A fifth (360), stratified by class
    and the same for every seed, is held out.

    Args:
        size: side of the images in pixels.
        channels: 1, or 3 to repeat the gray channel for models with RGB input.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".

    Raises:
        InputError: `size` or `channels` out of range.
    """
    from PIL import Image
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    from jaxnets.data import decoding

    decoding.check_shape_options(size, channels)
    decoding.check_interpolation(interpolation)
    digits = sklearn_digits()
    levels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack(
        [decoding.fit(Image.fromarray(level), size, channels, interpolation) for level in levels]
    )
    class_names = tuple(str(name) for name in digits.target_names)
    train, test = train_test_split(
        np.arange(len(images)), test_size=0.2, stratify=digits.target, random_state=0
    )
    return Dataset(
        "digits",
        ArraySource(images[train], digits.target[train], class_names),
        ArraySource(images[test], digits.target[test], class_names),
        class_names,
    )
