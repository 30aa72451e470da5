"""Scenes: two digits on a crop of a photograph, with captions that describe them.

An endless dataset that needs no download: real handwritten digits, of random size, color and position,
over crops of the two photographs that come with scikit-learn. Scene k of a split is always the same.
Some pairs of a color and a digit never occur in training, so that held-out scenes test whether a
network has learned colors and digits or has memorized pictures.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxnets.data import decoding
from jaxnets.data.dataset import Dataset
from jaxnets.errors import InputError, unknown_name

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLORS = {
    "red": (225, 40, 40),
    "yellow": (235, 215, 40),
    "green": (40, 190, 60),
    "blue": (60, 90, 240),
    "white": (235, 235, 235),
}
SIZES = {"small": (0.20, 0.25), "large": (0.37, 0.44)}  # side of the digit, as a fraction of the image's
RELATIONS = {"above": "below", "left of": "right of"}  # first object to second, and the inverse
SPLITS = {"train": 0, "seen": 1, "test": 2}  # a split's number is part of the seed of its scenes

MIN_SIZE = 32  # pixels; a small digit then has 6, about the smallest that is legible
_LENGTHS = {"train": 20_000, "seen": 2_000, "test": 2_000}
_PHOTO_SIDES = (2.0, 3.0, 4.0)  # heights of the photographs, as multiples of the image's side
_TRAIN_SHARE = 0.6  # fraction of a photograph's width; the rest is for held-out scenes
_DIMMED = 0.5  # brightness of the photographs, darkened so that every color stands out


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image and its annotations; M = 2 objects, the upper or left one first.

    Attributes:
        image: uint8[H, W, 3].
        labels: int32[M], the digits.
        boxes: float32[M, 4], the tight box of each mask, xyxy in pixels.
        masks: bool[M, H, W].
        sentences: the two complete captions, such as "a large red three above a small blue seven" and
            "a small blue seven below a large red three".
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    sentences: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Object:
    """A digit before it is drawn."""

    digit: int
    glyph: int  # index of the handwritten digit
    color: str
    size: str
    rgb: np.ndarray  # float[3], the color with its jitter
    place: tuple[int, int, int]  # row, column and side of its square, in pixels

    def __str__(self) -> str:
        return f"a {self.size} {self.color} {DIGITS[self.digit]}"


class SceneSource:
    """The scenes of one split, rendered on access.

    `source[i]` has `image`, `label` int32[2], `box` float32[2, 4] and `mask` bool[2, H, W];
    `source.captions(i)` returns the captions, and `source.scene(i)` both. The number of scenes is
    unlimited; `len(source)` only defines an epoch.

    Args:
        split: "train"; "seen", new scenes with the color-digit pairs of training; or "test", scenes
            with at least one pair that never occurs in training. Both held-out splits use digits and
            parts of the photographs that training does not.
        count: scenes per epoch; None for 20,000 in training and 2,000 in the others.
        size: side of the image in pixels.

    Raises:
        InputError: an unknown split, or a number out of range.
    """

    def __init__(self, split: str = "train", *, count: int | None = None, size: int = 64):
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        decoding.check_shape_options(size, 3)
        if size < MIN_SIZE:
            raise InputError(f"size is {size}; it must be at least {MIN_SIZE} for legible digits")
        count = _LENGTHS[split] if count is None else count
        if count < 1:
            raise InputError(f"count is {count}; a split has at least one scene")
        self.split, self.count = split, count
        self.image_shape = (size, size, 3)
        self.class_names = DIGITS

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene = self.scene(index)
        return {"image": scene.image, "label": scene.labels, "box": scene.boxes, "mask": scene.masks}

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of a scene; the image is not rendered."""
        _, relation, first, second = self._layout(index)
        return (f"{first} {relation} {second}", f"{second} {RELATIONS[relation]} {first}")

    def scene(self, index: int) -> Scene:
        """The scene of any index from 0, including those past `len(source)`."""
        rng, _, *objects = self._layout(index)
        side = self.image_shape[0]
        image = self._background(rng)
        masks = np.zeros((len(objects), side, side), bool)
        boxes = np.zeros((len(objects), 4), np.float32)
        for number, thing in enumerate(objects):
            row, column, extent = thing.place
            window = (slice(row, row + extent), slice(column, column + extent))
            ink = _glyph(thing.glyph, extent)
            image[window] += ink[..., None] * (thing.rgb - image[window])
            masks[number][window] = ink > 0.5
            rows, columns = (np.flatnonzero(masks[number].any(axis)) for axis in (1, 0))
            boxes[number] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        labels = np.array([thing.digit for thing in objects], np.int32)
        return Scene(np.round(image).astype(np.uint8), labels, boxes, masks, self.captions(index))

    def _layout(self, index: int) -> tuple[np.random.Generator, str, _Object, _Object]:
        """Everything about a scene except its pixels, and the generator to continue with."""
        rng = np.random.default_rng((SPLITS[self.split], index))
        glyphs = _glyphs_by_digit(held_out=self.split != "train")
        if self.split == "test":
            pairs = [_pair(rng, unseen=True), _pair(rng, unseen=None)][:: 1 - 2 * rng.integers(2)]
        else:
            pairs = [_pair(rng, unseen=False), _pair(rng, unseen=False)]
        side = self.image_shape[0]
        sizes = [_draw(rng, SIZES) for _ in pairs]
        extents = [round(side * rng.uniform(*SIZES[size])) for size in sizes]
        relation = _draw(rng, RELATIONS)
        places = _places(rng, side, extents, vertical=relation == "above")
        objects = (
            _Object(
                digit=digit,
                glyph=_draw(rng, glyphs[digit]),
                color=color,
                size=size,
                rgb=np.clip(COLORS[color] + rng.uniform(-20, 20, 3), 0, 255),
                place=place,
            )
            for (color, digit), size, place in zip(pairs, sizes, places, strict=True)
        )
        return rng, relation, *objects

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        side = self.image_shape[0]
        photos = _photographs(side)
        photo = photos[rng.integers(len(photos))]
        split = int(photo.shape[1] * _TRAIN_SHARE)
        photo = photo[:, :split] if self.split == "train" else photo[:, split:]
        row, column = (rng.integers(length - side + 1) for length in photo.shape[:2])
        crop = photo[row : row + side, column : column + side]
        return crop[:, :: 1 - 2 * rng.integers(2)] * np.float32(_DIMMED)


def load_scenes(*, size: int = 64, channels: int = 3, count: int | None = None) -> Dataset:
    """The scenes as a dataset: `train`, and `test`, in which every scene has an unseen pair.

    Args:
        size: side of the images in pixels.
        channels: must be 3, because captions name colors.
        count: training scenes per epoch; 20,000 by default. There are 2,000 held-out scenes.

    Raises:
        InputError: a number out of range.
    """
    if channels != 3:
        raise InputError(f"channels is {channels}; scenes are described by colors, so it must be 3")
    train, test = SceneSource("train", size=size, count=count), SceneSource("test", size=size)
    return Dataset("scenes", train, test, DIGITS)


def is_unseen(color: str, digit: int) -> bool:
    """Whether this pair never occurs in training: one color of each digit, two digits of each color."""
    return (list(COLORS).index(color) + digit) % len(COLORS) == 0


def _pair(rng: np.random.Generator, unseen: bool | None) -> tuple[str, int]:
    """Draws a color and a digit: a pair held out from training, one from training, or (None) any."""
    while True:
        pair = _draw(rng, COLORS), _draw(rng, range(len(DIGITS)))
        if unseen is None or is_unseen(*pair) == unseen:
            return pair


def _draw(rng: np.random.Generator, among: Iterable) -> Any:
    """Draws one of a few items; much faster than `rng.choice`."""
    among = list(among)
    return among[rng.integers(len(among))]


def _places(
    rng: np.random.Generator, side: int, extents: list[int], vertical: bool
) -> list[tuple[int, int, int]]:
    """Places two squares one after the other along one axis, and nearly aligned on the other.

    As a result only one relation holds between them.
    """
    slack = side - sum(extents)
    before, gap = np.sort(rng.integers(0, slack + 1, 2))  # slack before the first and the second
    along = (before, extents[0] + gap)
    center = rng.uniform(max(extents) / 2, side - max(extents) / 2)
    shift = rng.uniform(-side / 16, side / 16, 2)
    across = [
        int(np.clip(round(center + d - e / 2), 0, side - e)) for e, d in zip(extents, shift, strict=True)
    ]
    places = zip(along, across, extents, strict=True)
    return [(int(a), c, e) if vertical else (c, int(a), e) for a, c, e in places]


@functools.cache
def _handwriting() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, float[1797, 8, 8] in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16, digits.target


@functools.cache
def _glyphs_by_digit(held_out: bool) -> list[list[int]]:
    """The indices of the handwritten images of each digit; every fifth is held out."""
    _, targets = _handwriting()
    parts = [np.flatnonzero(targets == digit) for digit in range(len(DIGITS))]
    return [part[(np.arange(len(part)) % 5 == 0) == held_out].tolist() for part in parts]


@functools.lru_cache(maxsize=4096)
def _glyph(number: int, extent: int) -> np.ndarray:
    """A handwritten digit as opacity, float32[extent, extent] in [0, 1]."""
    from PIL import Image

    image = Image.fromarray((_handwriting()[0][number] * 255).astype(np.uint8))
    return np.asarray(image.resize((extent, extent), Image.Resampling.BICUBIC), np.float32) / 255


@functools.cache
def _photographs(side: int) -> list[np.ndarray]:
    """The two photographs in several sizes, uint8[H, W, 3]."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    found = []
    for photo in load_sample_images().images:
        for factor in _PHOTO_SIDES:
            height = round(side * factor)
            width = round(height * photo.shape[1] / photo.shape[0])
            resized = Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR)
            found.append(np.asarray(resized))
    return found
