"""The 1000 classes of ImageNet (ILSVRC 2012) in the order of their WordNet identifiers, which is that of
all public weights. The names are short ones of WordNet 3.0, made unique."""

import functools
from importlib import resources


@functools.cache
def classes() -> dict[str, str]:
    """The name of each class by its WordNet identifier: {"n01440764": "tench", ...}."""
    text = resources.files("jaxnets.weights").joinpath("imagenet_classes.txt").read_text()
    return dict(line.split(" ", 1) for line in text.splitlines())


def class_names(count: int) -> tuple[str, ...]:
    """ImageNet's names for 1000 classes; for another number, the numbers."""
    return tuple(classes().values()) if count == 1000 else tuple(map(str, range(count)))
