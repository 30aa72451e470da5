"""The 1000 classes of ImageNet (ILSVRC 2012) in the order of their WordNet identifiers, which is that of
all public weights. The names are short ones of WordNet 3.0, made unique."""

import functools
from importlib import resources

BACKGROUND = "background"


@functools.cache
def classes() -> dict[str, str]:
    """The name of each class by its WordNet identifier: {"n01440764": "tench", ...}."""
    text = resources.files("jaxnets.weights").joinpath("imagenet_classes.txt").read_text()
    return dict(line.split(" ", 1) for line in text.splitlines())


def class_names(count: int) -> tuple[str, ...]:
    """ImageNet's names for 1000 classes; for 1001, as TF-Slim has them, with "background" before them;
    for another number, the numbers."""
    names = tuple(classes().values())
    known = {len(names): names, len(names) + 1: (BACKGROUND, *names)}
    return known.get(count) or tuple(map(str, range(count)))
