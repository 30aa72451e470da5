"""Scenes: two digits on a crop of a photograph, with captions that describe them.

An endless dataset that needs no download: real handwritten digits, of random size, color and position,
over crops of the two photographs that come with scikit-learn. Scene k of a split is always the same.
Some pairs of a color and a digit never occur in training, so that held-out scenes test whether a
network has learned colors and digits or has memorized pictures.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxnets.data import decoding, scenery
from jaxnets.data.dataset import Dataset
from jaxnets.data.labels import BACKGROUND
from jaxnets.data.labels import example_of as labeled
from jaxnets.data.objects import check_most, example_of, too_many
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
_TRIES = 50  # places that are drawn for a digit before it is left out
_LENGTHS = {"train": 20_000, "seen": 2_000, "test": 2_000}
_TRAIN_SHARE = 0.6  # fraction of a photograph's width; the rest is for held-out scenes
_DIMMED = 0.5  # brightness of the photographs, darkened so that every color stands out


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image and its annotations; of M = 2 objects the upper or left one is first.

    Attributes:
        image: uint8[H, W, 3].
        labels: int32[M], the digits.
        boxes: float32[M, 4], the tight box of each mask, xyxy in pixels.
        masks: bool[M, H, W].
        sentences: the two complete captions of a scene of two, such as "a large red three above a small
            blue seven" and "a small blue seven below a large red three".
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

    `source[i]` has `image`, `label` int32[2], `box` float32[2, 4] and `mask` bool[2, H, W], or, if
    `boxes` is given, the entries of `objects.example_of`, or those of `labels.example_of` if
    `segmentation` is. `source.captions(i)` returns the captions,
    `source.truth(i)` what is to be found, and `source.scene(i)` all. The number of scenes is unlimited;
    `len(source)` only defines an epoch.

    Args:
        split: "train"; "seen", new scenes with the color-digit pairs of training; or "test", scenes
            with at least one pair that never occurs in training. Both held-out splits use digits and
            parts of the photographs that training does not.
        count: scenes per epoch; None for 20,000 in training and 2,000 in the others.
        size: side of the image in pixels.
        objects: M, two for scenes of two digits that captions describe; any other number for scenes of
            1 to M digits that lie apart, those that find no room left out, without captions.
        boxes: rows of an example's objects; None for the digits as they are.
        masks: whether these examples have masks.
        segmentation: whether examples have a label map instead, of the background and the ten digits.

    Raises:
        InputError: an unknown split, or a number out of range.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        count: int | None = None,
        size: int = 64,
        objects: int = 2,
        boxes: int | None = None,
        masks: bool = False,
        segmentation: bool = False,
    ):
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        decoding.check_shape_options(size, 3)
        if size < MIN_SIZE:
            raise InputError(f"size is {size}; it must be at least {MIN_SIZE} for legible digits")
        count = _LENGTHS[split] if count is None else count
        if count < 1:
            raise InputError(f"count is {count}; a split has at least one scene")
        if not isinstance(objects, int) or objects < 1:
            raise InputError(f"objects is {objects!r}; a scene has at least one")
        if boxes is not None:
            check_most(boxes)
            if boxes < objects:
                raise too_many("a scene", objects, boxes)
        self.split, self.count, self.objects = split, count, objects
        self._boxes, self._masks, self._segmentation = boxes, masks, segmentation
        self.image_shape = (size, size, 3)
        self.class_names = (BACKGROUND, *DIGITS) if segmentation else DIGITS

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene, canvas = self.scene(index), self.image_shape[:2]
        if self._segmentation:
            return {"image": scene.image} | labeled(_label_map(scene), canvas, canvas)
        if self._boxes is None:
            return {"image": scene.image, "label": scene.labels, "box": scene.boxes, "mask": scene.masks}
        truth, name = self._truth(scene), f"scene {index}"
        return {"image": scene.image} | example_of(truth, canvas, canvas, canvas, self._boxes, name)

    def truth(self, index: int) -> Any:
        """What is to be found in a scene, as of `ObjectFiles.truth`; or its label map u8[H, W]."""
        scene = self.scene(index)
        return _label_map(scene) if self._segmentation else self._truth(scene)

    def _truth(self, scene: Scene) -> dict[str, np.ndarray]:
        none = np.zeros(len(scene.labels), bool)
        found = {"boxes": scene.boxes, "labels": scene.labels, "crowd": none, "difficult": none}
        found["area"] = scene.masks.sum((1, 2)).astype(np.float64)
        return found | ({"masks": scene.masks} if self._masks else {})

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of a scene; the image is not rendered.

        Raises:
            InputError: scenes of another number of digits than two.
        """
        _, relation, *things = self._layout(index)
        if relation is None:
            raise InputError(f"scenes of up to {self.objects} digits have no captions; objects=2 has")
        return _captions(relation, *things)

    def scene(self, index: int) -> Scene:
        """The scene of any index from 0, including those past `len(source)`."""
        rng, relation, *things = self._layout(index)
        side = self.image_shape[0]
        image = self._background(rng)
        masks = np.zeros((len(things), side, side), bool)
        boxes = np.zeros((len(things), 4), np.float32)
        for number, thing in enumerate(things):
            row, column, extent = thing.place
            window = (slice(row, row + extent), slice(column, column + extent))
            ink = scenery.glyph(thing.glyph, extent)
            image[window] += ink[..., None] * (thing.rgb - image[window])
            masks[number][window] = ink > 0.5
            rows, columns = (np.flatnonzero(masks[number].any(axis)) for axis in (1, 0))
            boxes[number] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        labels = np.array([thing.digit for thing in things], np.int32)
        sentences = () if relation is None else _captions(relation, *things)
        return Scene(np.round(image).astype(np.uint8), labels, boxes, masks, sentences)

    def _layout(self, index: int) -> tuple[Any, ...]:
        """The generator to draw pixels with, the relation of two objects, or None, and the objects."""
        rng = np.random.default_rng((SPLITS[self.split], index))
        glyphs = scenery.glyphs_by_digit(held_out=self.split != "train")
        count = 2 if self.objects == 2 else rng.integers(1, self.objects + 1)
        if self.split == "test":
            unseen = [True] + [None] * (count - 1)
            pairs = [_pair(rng, unseen=one) for one in unseen][:: 1 - 2 * rng.integers(2)]
        else:
            pairs = [_pair(rng, unseen=False) for _ in range(count)]
        side = self.image_shape[0]
        sizes = [_draw(rng, SIZES) for _ in pairs]
        extents = [round(side * rng.uniform(*SIZES[size])) for size in sizes]
        if self.objects == 2:
            relation = _draw(rng, RELATIONS)
            places = _places(rng, side, extents, vertical=relation == "above")
        else:
            relation, places = None, _scattered(rng, side, extents)
        things = (
            _Object(
                digit=digit,
                glyph=_draw(rng, glyphs[digit]),
                color=color,
                size=size,
                rgb=np.clip(COLORS[color] + rng.uniform(-20, 20, 3), 0, 255),
                place=place,
            )
            for (color, digit), size, place in zip(pairs, sizes, places, strict=True)
            if place is not None
        )
        return rng, relation, *things

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        side = self.image_shape[0]
        photos = scenery.photographs(side)
        photo = photos[rng.integers(len(photos))]
        split = int(photo.shape[1] * _TRAIN_SHARE)
        photo = photo[:, :split] if self.split == "train" else photo[:, split:]
        row, column = (rng.integers(length - side + 1) for length in photo.shape[:2])
        crop = photo[row : row + side, column : column + side]
        return crop[:, :: 1 - 2 * rng.integers(2)] * np.float32(_DIMMED)


def load_scenes(
    *,
    size: int = 64,
    channels: int = 3,
    count: int | None = None,
    objects: int = 2,
    boxes: int | None = None,
    masks: bool = False,
    segmentation: bool = False,
) -> Dataset:
    """The scenes as a dataset: `train`, and `test`, in which every scene has an unseen pair.

    Args:
        size: side of the images in pixels.
        channels: must be 3, because captions name colors.
        count: training scenes per epoch; 20,000 by default. There are 2,000 held-out scenes.
        objects: the most digits of a scene, as for `SceneSource`.
        boxes: M, for examples with boxes of fixed shapes (`objects.example_of`); None for the digits as
            they are.
        masks: whether these examples have masks.
        segmentation: whether examples have label maps instead.

    Raises:
        InputError: a number out of range.
    """
    if channels != 3:
        raise InputError(f"channels is {channels}; scenes are described by colors, so it must be 3")
    own = {"size": size, "objects": objects, "boxes": boxes, "masks": masks}
    own["segmentation"] = segmentation
    train, test = SceneSource("train", count=count, **own), SceneSource("test", **own)
    return Dataset("scenes", train, test, train.class_names)


def _label_map(scene: Scene) -> np.ndarray:
    """The label of each pixel, u8[H, W]: 0 for the background, 1 for zero and so on."""
    found = np.zeros(scene.image.shape[:2], np.uint8)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        found[mask] = label + 1
    return found


def _captions(relation: str, first: _Object, second: _Object) -> tuple[str, ...]:
    return f"{first} {relation} {second}", f"{second} {RELATIONS[relation]} {first}"


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


def _scattered(
    rng: np.random.Generator, side: int, extents: list[int]
) -> list[tuple[int, int, int] | None]:
    """Places squares apart, wherever there is room; None where none was found."""
    taken: list[tuple[int, int, int]] = []
    places = []
    for extent in extents:
        tries = rng.integers(0, side - extent + 1, (_TRIES, 2)).tolist()
        free = ((row, column, extent) for row, column in tries)
        place = next((own for own in free if not any(_meet(own, other) for other in taken)), None)
        places.append(place)
        if place is not None:
            taken.append(place)
    return places


def _meet(place: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether two squares, each a row, a column and a side, overlap."""
    (top, left, side), (other_top, other_left, other_side) = place, other
    return (
        top < other_top + other_side
        and other_top < top + side
        and left < other_left + other_side
        and other_left < left + side
    )
