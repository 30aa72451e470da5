"""Datasets by name."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnets.data.dataset import ArraySource, Dataset
from jaxnets.errors import InputError, unknown_name

_LOADERS: dict[str, Callable[..., Dataset] | str] = {
    "digits": "jaxnets.data.sources:load_digits",
    "scenes": "jaxnets.data.scenes:load_scenes",
    "folder:PATH": "jaxnets.data.folder:load_folder",
    "captions:PATH": "jaxnets.data.captions:load_captions",
    "tfds:NAME": "jaxnets.data.tfds:load_tfds",
}
"""By its spec what loads a dataset, or where that is, so that it is imported only when it is used."""


def register(spec: str, loader: Callable[..., Dataset]) -> None:
    """Makes a dataset of your own known by name, to `load` and to the command line.

    Args:
        spec: its name, as ``"shapes"``, or with what its loader is to be given, as ``"shapes:PATH"``.
        loader: `loader(**options)`, or `loader(rest, **options)` for what follows the colon. Its options
            are keyword-only arguments; all but ``size`` and ``channels`` may be missing.

    Raises:
        InputError: the name is taken by another loader.
    """
    kind = spec.partition(":")[0]
    taken = {known.partition(":")[0]: known for known in _LOADERS}
    if kind in taken and getattr(_LOADERS[taken[kind]], "__qualname__", None) != loader.__qualname__:
        raise InputError(f"dataset {kind!r} is known already; give yours another name")
    _LOADERS[taken.get(kind, spec)] = loader


def load(spec: str, **options: Any) -> Dataset:
    """Loads a dataset by its spec.

    Args:
        spec: ``"digits"``, ``"scenes"``, ``"folder:PATH"``, ``"captions:PATH"``, ``"tfds:NAME"``, or
            one of your own (`register`).
        **options: those of `load_digits`, `load_scenes`, `load_folder`, `load_captions` and
            `load_tfds`; all of them take ``size`` (side of the images in pixels) and ``channels`` (1
            or 3), and None for the default.

    Raises:
        InputError: an unknown spec, an option that this dataset does not take, or anything that its
            own loader refuses.
    """
    kind, _, rest = spec.partition(":")
    known = {name.partition(":")[::2]: loader for name, loader in _LOADERS.items()}
    loader = next(
        (found for (name, takes), found in known.items() if name == kind and bool(takes) == bool(rest)),
        None,
    )
    if loader is None:
        raise unknown_name("dataset", spec, _LOADERS)
    if isinstance(loader, str):
        module, _, function = loader.partition(":")
        loader = getattr(importlib.import_module(module), function)
    known = [
        name
        for name, parameter in inspect.signature(loader).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    options = {name: value for name, value in options.items() if value is not None}
    for name in options:
        if name not in known:
            raise InputError(f"dataset {spec!r} takes no option {name!r}; it takes {', '.join(known)}")
    return loader(*([rest] if rest else []), **options)


def load_digits(*, size: int = 32, channels: int = 1, interpolation: str = "bilinear") -> Dataset:
    """Loads the 1,797 handwritten digits that come with scikit-learn; nothing is downloaded.

    They are 8x8 pixels of 17 gray levels, from the UCI repository's "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak, 1998), white on black. A fifth (360), the same for
    every seed, is held out with every class in its share.

    Args:
        size: side of the images in pixels.
        channels: 1, or 3 to repeat the gray for a net that wants RGB.
        interpolation: by which they are enlarged: "bilinear", "bicubic", "lanczos" or "nearest".

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
