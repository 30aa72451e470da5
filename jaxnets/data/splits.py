"""The parts of a dataset by the names that they commonly have."""

import re
from collections.abc import Collection, Mapping

NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
"""The names of each split, in any case."""


def split_of(name: str) -> str | None:
    """The split that a name stands for, one of `NAMES`, or None.

    Example:
        >>> split_of("Validation"), split_of("cats")
        ('val', None)
    """
    return next((split for split, names in NAMES.items() if name.lower() in names), None)


def split_of_folder(name: str) -> str | None:
    """The split that a folder's name stands for, also with a year, a number or a word for data.

    Example:
        >>> split_of_folder("train2017"), split_of_folder("Test_Set"), split_of_folder("train_station")
        ('train', 'test', None)
    """
    letters = re.sub(r"[\W\d_]+", "", name.lower())
    return split_of(re.sub(r"(?<=.)(data|dataset|folder|images|imgs|set|split)$", "", letters))


def measuring(splits: Collection[str]) -> str:
    """The split that epochs are measured by: "val" where there is one, so that "test" stays unseen."""
    return "val" if "val" in splits else "test"


def usage(parts: Mapping[str, tuple[str, int]]) -> str:
    """Says, in a line, what each split is for.

    Args:
        parts: the own name and the number of images of each split, by `NAMES`; "train" and others.
    """
    told = {split: f"{name} ({count:,} images)" for split, (name, count) in parts.items()}
    measures = measuring(parts)
    unseen = measures == "val" and "test" in told
    rest = f"; {told['test']} is for `jaxnets eval --split test`" if unseen else ""
    return f"{told['train']} is trained on, {told[measures]} measures epochs{rest}"
