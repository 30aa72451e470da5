"""Datasets by name."""

import inspect
from typing import Any

import numpy as np

from jaxnets.data.dataset import ArraySource, Dataset
from jaxnets.errors import InputError, unknown_name

SPECS = ("digits", "scenes", "folder:PATH", "captions:PATH", "tfds:NAME")


def load(spec: str, **options: Any) -> Dataset:
    """Loads a dataset by its spec.

    Args:
        spec: ``"digits"``, ``"scenes"``, ``"folder:PATH"``, ``"captions:PATH"`` or ``"tfds:NAME"``.
        **options: those of `load_digits`, `load_scenes`, `load_folder`, `load_captions` and
            `load_tfds`; all of them take ``size`` (side of the images in pixels) and ``channels`` (1
            or 3), and None for the default.

    Raises:
        InputError: an unknown spec, an option that this dataset does not take, or anything that its
            own loader refuses.
    """
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        loader, arguments = load_digits, ()
    elif spec == "scenes":
        from jaxnets.data.scenes import load_scenes

        loader, arguments = load_scenes, ()
    elif kind == "folder" and rest:
        from jaxnets.data.folder import load_folder

        loader, arguments = load_folder, (rest,)
    elif kind == "captions" and rest:
        from jaxnets.data.captions import load_captions

        loader, arguments = load_captions, (rest,)
    elif kind == "tfds" and rest:
        from jaxnets.data.tfds import load_tfds

        loader, arguments = load_tfds, (rest,)
    else:
        raise unknown_name("dataset", spec, SPECS)
    known = [
        name
        for name, parameter in inspect.signature(loader).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in known:
            raise InputError(f"dataset {spec!r} takes no option {name!r}; it takes {', '.join(known)}")
    return loader(*arguments, **{name: value for name, value in options.items() if value is not None})


def load_digits(*, size: int = 32, channels: int = 1) -> Dataset:
    """Loads the 1,797 handwritten digits that come with scikit-learn; nothing is downloaded.

    They are 8x8 pixels of 17 gray levels, from the UCI repository's "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak, 1998), white on black. A fifth (360), the same for
    every seed, is held out with every class in its share.

    Args:
        size: side of the images in pixels; they are enlarged with Pillow's bilinear filter.
        channels: 1, or 3 to repeat the gray for a net that wants RGB.

    Raises:
        InputError: `size` or `channels` out of range.
    """
    from PIL import Image
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    from jaxnets.data import decoding

    decoding.check_shape_options(size, channels)
    digits = sklearn_digits()
    levels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack([decoding.fit(Image.fromarray(level), size, channels) for level in levels])
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
