"""Images on disk with any number of labels each, which a CSV file tells."""

import csv
import functools
import hashlib
import logging
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnets.data import decoding, files, sampling, splits
from jaxnets.data.dataset import Dataset
from jaxnets.data.folder import sources_of
from jaxnets.errors import InputError
from jaxnets.paths import expanded, shown

FILE, LABELS, SPLIT = "file", "labels", "split"  # columns
SEPARATOR = ";"

_logger = logging.getLogger("jaxnets")


class _Part(NamedTuple):
    """The images of a split: their paths, how many labels each has, and the numbers of all labels."""

    paths: list[str]
    counts: list[int]
    numbers: list[int]


def load_csv(
    path: str | os.PathLike,
    *,
    size: int = 224,
    channels: int = 3,
    strict: bool = False,
    interpolation: str = "bilinear",
    background: str = "white",
) -> Dataset:
    """Loads image files with any number of labels each, or none, as a CSV file lists them.

    The file is UTF-8 text with a header. Its column `file` has paths relative to the folder that it is
    in, `labels` the names of an image's classes with ";" between them, and `split`, which may be
    missing, train, val or test; without it a fixed fifth of the images is held out. Other columns are
    ignored. Classes are sorted by name. Examples have ``label`` u8[K], 1 for each class of the image.

    Images are not opened here. What turns out to be no image when it is read gets weight 0.

    Args:
        path: the CSV file; ``~`` is your home.
        size, channels, strict, interpolation, background: as for `load_folder`.

    Raises:
        InputError: no such file, or it is no CSV of that kind; the message names the line of a row
            whose file is missing or is in another row, or whose split is unknown. Or there are too few
            images, no labels, or (strict) an unreadable image.
    """
    decoding.check_shape_options(size, channels)
    decoding.check_interpolation(interpolation)
    decoding.check_background(background)
    table = expanded(path)
    parts, names, fingerprint = _read(table)
    if strict:
        files.check_headers([path for part in parts.values() for path in part.paths])
    told = {
        split: (part.paths, _multi_hot(part, len(names)))
        for split, part in sorted(parts.items(), key=lambda item: list(splits.NAMES).index(item[0]))
    }
    labels = sum(len(part.numbers) for part in parts.values())
    images = sum(len(part.paths) for part in parts.values())
    notes = [f"{len(names):,} classes, {labels / images:.2g} labels an image"]
    if len(told) == 1:
        told = _with_a_fifth_held_out(*told["train"])
        held = len(told["test"][0])
        notes.append(f"epochs are measured on a fifth of the images, held out ({held:,})")
    else:
        notes.append(splits.usage({split: (split, len(paths)) for split, (paths, _) in told.items()}))
    _warn_of_missing(table, told, names)
    options = {"size": size, "channels": channels}
    options |= {"interpolation": interpolation, "background": background}
    sources = sources_of(told, names, strict=strict, **options)
    test = sources[splits.measuring(sources)]
    return Dataset(f"csv:{table}", sources["train"], test, names, sources, tuple(notes), fingerprint)


def _read(table: Path) -> tuple[dict[str, _Part], tuple[str, ...], str]:
    """The images of each split, the names of the classes, and a hash of all rows."""
    folder, exists, digest = table.parent, _finder(), hashlib.blake2b(digest_size=16)
    parts: dict[str, _Part] = {}
    lines: dict[str, int] = {}
    numbers: dict[str, int] = {}  # of the classes, in the order in which they come
    for line, file, labels, own in _rows(table):
        split = "train" if own is None else splits.split_of(own)
        path = os.path.join(folder, file)
        first = lines.setdefault(os.path.normpath(path), line)
        if not file or first != line or split is None or not exists(path):
            raise InputError(f"{shown(table)}, line {line}: {_wrong(file, first, line, split, own)}")
        names = {name for text in labels.split(SEPARATOR) if (name := text.strip())}
        names = {unicodedata.normalize("NFC", name) for name in names}
        part = parts.setdefault(split, _Part([], [], []))
        part.paths.append(path)
        part.counts.append(len(names))
        part.numbers.extend(numbers.setdefault(name, len(numbers)) for name in sorted(names))
        digest.update(f"{split}\n{file}\n{SEPARATOR.join(sorted(names))}\n".encode())
    if "train" not in parts:
        told = (
            f"no row of split train, but of {', '.join(parts)}" if parts else "no row below its header"
        )
        raise InputError(f"{shown(table)} has {told}; there is nothing to learn from")
    if not numbers:
        raise InputError(f"{shown(table)} has no label in any row; wanted names in the column {LABELS}")
    names = tuple(sorted(numbers))
    place = {numbers[name]: k for k, name in enumerate(names)}
    for part in parts.values():
        part.numbers[:] = [place[number] for number in part.numbers]
    return parts, names, digest.hexdigest()


def _rows(table: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """Line, file, labels and split of each row; None for the split where there is no such column."""
    line = 1
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            if missing := [name for name in (FILE, LABELS) if name not in header]:
                raise InputError(
                    f"{shown(table)} has no column {missing[0]!r} in its first line, which is "
                    f"{shown(', '.join(header))[:80]!r}; wanted {FILE}, {LABELS} and, perhaps, {SPLIT}"
                )
            own, label = header.index(FILE), header.index(LABELS)
            split = header.index(SPLIT) if SPLIT in header else None
            for cells in reader:
                line = reader.line_num
                if not cells:  # an empty line
                    continue
                if len(cells) != len(header):
                    raise InputError(
                        f"{shown(table)}, line {line}: {len(cells)} columns, where the header has "
                        f'{len(header)}; put what holds a comma in "quotes"'
                    )
                told = None if split is None else cells[split].strip()
                yield line, cells[own].strip(), cells[label], told
    except OSError as error:
        raise InputError(f"{shown(table)} cannot be read: {error.strerror}; wanted a CSV file") from None
    except UnicodeDecodeError:
        raise InputError(f"{shown(table)} is no UTF-8 text; wanted a CSV file in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{shown(table)}, below line {line}: {error}; wanted a CSV file") from None


def _wrong(file: str, first: int, line: int, split: str | None, told: str | None) -> str:
    """What is wrong with a row, in words."""
    if not file:
        return f"the column {FILE} is empty; wanted the path of an image"
    if first != line:
        return (
            f"{shown(file)} is in line {first} already; give an image one row, with {SEPARATOR!r} "
            "between its labels"
        )
    if split is None:
        return f"{SPLIT} is {told!r}; wanted train, val or test"
    return f"there is no file {shown(file)}; paths are relative to the folder of the CSV file"


def _finder() -> Callable[[str], bool]:
    """A function that tells whether a file exists: folders are listed once, as there may be millions
    of files, each a question to a file server."""

    @functools.cache
    def names_in(folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(folder))
        except OSError:
            return frozenset()

    def exists(path: str) -> bool:
        folder, name = os.path.split(path)
        return name in names_in(folder) or os.path.isfile(path)  # in another case, on some systems

    return exists


def _multi_hot(part: _Part, count: int) -> np.ndarray:
    """The labels of a split, u8[N, K]."""
    labels = np.zeros((len(part.paths), count), np.uint8)
    labels[np.repeat(np.arange(len(part.paths)), part.counts), part.numbers] = 1
    return labels


def _with_a_fifth_held_out(
    paths: Sequence[str], labels: np.ndarray
) -> dict[str, tuple[list[str], np.ndarray]]:
    if len(paths) < 2:
        raise InputError(f"there is one image, {shown(paths[0])}, and a fifth is held out; add more")
    parts = sampling.split(np.zeros(len(paths), int))
    return {
        split: ([paths[index] for index in indices], labels[indices])
        for split, indices in zip(("train", "test"), parts, strict=True)
    }


def _warn_of_missing(
    table: Path, parts: dict[str, tuple[list[str], np.ndarray]], names: Sequence[str]
) -> None:
    """Warns of classes of which a split has no image."""
    for split, (_, labels) in parts.items():
        missing = [names[k] for k in np.flatnonzero(~labels.any(axis=0))]
        if missing:
            _logger.warning(
                "%s: %s has no image of %d of %d classes%s: %s",
                shown(table), split, len(missing), len(names),
                "" if split == "train" else ", which its mAP leaves out", files.named(missing),
            )  # fmt: skip
