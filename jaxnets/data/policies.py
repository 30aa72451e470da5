"""RandAugment, TrivialAugment and AugMix: random operations at random strengths.

The operations and the ranges of their strengths are those of torchvision
(`torchvision.transforms.v2.RandAugment`, `TrivialAugmentWide`, `AugMix`), with black for what comes from
outside the picture. Boxes, masks and label maps move with the image. Only the operation that was drawn
is computed on a CPU; on an accelerator a batch takes all, those that move pixels as one
(`jaxnets.data.mapping`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.data import checks, operations
from jaxnets.data import example as examples
from jaxnets.data.example import Augmentation, Example
from jaxnets.data.geometry import Side, whole_number
from jaxnets.data.mapping import one_by_one
from jaxnets.data.movement import Movement, centers, move, size_of
from jaxnets.data.resampling import Size, cut_image, nearest_image, warp
from jaxnets.errors import unknown_name

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color",
    "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
"""In this order: one that changes nothing, those that move pixels, and those that change values."""

INTERPOLATIONS = {"nearest": nearest_image, "bilinear": warp}

_MOVING = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_SIGNED = (*_MOVING, "brightness", "color", "contrast", "sharpness")
_FIRST_COLOR = OPERATIONS.index("brightness")
_DEEPEST = 3  # operations in a row of AugMix


class Ranges(NamedTuple):
    """How strong operations are at the last bin of a policy; in the first they do nothing.

    Attributes:
        bins: number of strengths.
        shear: slant, in pixels a pixel.
        translate: as a fraction of the side, or in pixels where `pixels`.
        pixels: whether it is.
        rotate: in degrees.
        factor: how far the factors of brightness, color, contrast and sharpness are from 1.
        bits: how many bits are kept in the first bin (this many, not all eight), and how many fewer in
            the last.
    """

    bins: int
    shear: float
    translate: float
    pixels: bool
    rotate: float
    factor: float
    bits: tuple[int, int]


RANDAUGMENT = Ranges(31, 0.3, 150 / 331, False, 30, 0.9, (8, 4))
TRIVIALAUGMENT = Ranges(31, 0.99, 32, True, 135, 0.99, (8, 6))
AUGMIX = Ranges(10, 0.3, 1 / 3, False, 30, 0.9, (4, 4))


def randaugment(num_ops: int = 2, magnitude: int = 9, interpolation: str = "nearest") -> Augmentation:
    """Applies random operations in a row, all equally strong (RandAugment, Cubuk et al. 2020).

    As torchvision's RandAugment, whose other settings are its defaults.

    Args:
        num_ops: number of operations, each one of `OPERATIONS` with equal probability.
        magnitude: their strength, from 0 to 30; a signed one is negative half of the time.
        interpolation: "nearest" or "bilinear", where pixels move.

    Raises:
        InputError: a parameter out of range.
    """
    checks.within("num_ops", num_ops, 0)
    checks.within("magnitude", magnitude, 0, RANDAUGMENT.bins - 1)
    _check_interpolation(interpolation)

    def augment(key: jax.Array, example: Example) -> Example:
        examples.check(example)
        size = size_of(example)
        for draws in jax.random.uniform(key, (num_ops, 2), jnp.float32):
            op = whole_number(draws[0], len(OPERATIONS))
            strength = strength_of(RANDAUGMENT, op, jnp.int32(magnitude), draws[1] < 0.5, size)
            example = applied(example, op, strength, size, interpolation)
        return example

    return augment


def trivialaugment(interpolation: str = "nearest") -> Augmentation:
    """Applies one random operation at a random strength (TrivialAugment, Müller and Hutter 2021).

    As torchvision's TrivialAugmentWide: one of `OPERATIONS` and one of 31 strengths, both uniform, with
    a random sign.

    Args:
        interpolation: "nearest" or "bilinear", where pixels move.

    Raises:
        InputError: another interpolation.
    """
    _check_interpolation(interpolation)

    def augment(key: jax.Array, example: Example) -> Example:
        examples.check(example)
        size = size_of(example)
        draws = jax.random.uniform(key, (3,), jnp.float32)
        op, at = whole_number(draws[0], len(OPERATIONS)), whole_number(draws[1], TRIVIALAUGMENT.bins)
        strength = strength_of(TRIVIALAUGMENT, op, at, draws[2] < 0.5, size)
        return applied(example, op, strength, size, interpolation)

    return augment


def augmix(
    severity: int = 3,
    mixture_width: int = 3,
    chain_depth: int | None = None,
    interpolation: str = "bilinear",
) -> Augmentation:
    """Mixes the image with the ends of chains of random operations (AugMix, Hendrycks et al. 2020).

    As torchvision's AugMix; the paper's consistency loss is no part of it. A mixture of images that
    moved differently has no one place for an object: for an example with boxes, masks or a label map,
    only operations that move nothing are drawn. All weights are of Dirichlet(1, ..., 1).

    Args:
        severity: number of strengths to draw from, from the weakest of 10.
        mixture_width: number of chains.
        chain_depth: number of operations in each; None for a random one of 1 to 3.
        interpolation: "nearest" or "bilinear", where pixels move.

    Raises:
        InputError: a parameter out of range.
    """
    checks.within("severity", severity, 1, AUGMIX.bins)
    checks.within("mixture_width", mixture_width, 1)
    checks.within("chain_depth", 1 if chain_depth is None else chain_depth, 1)
    _check_interpolation(interpolation)
    deepest = _DEEPEST if chain_depth is None else chain_depth

    def augment(key: jax.Array, example: Example) -> Example:
        examples.check(example)
        image, size = example["image"], size_of(example)
        placed = any(name in example for name in ("box", "mask", "segmentation"))
        first = _FIRST_COLOR if placed else 1
        own_key, chain_key, depth_key, draw_key = jax.random.split(key, 4)
        # Of Beta(1, 1) and Dirichlet(1, ..., 1), whose own draws are slow to compile.
        own = jax.random.uniform(own_key, (), jnp.float32)
        weights = jax.random.exponential(chain_key, (mixture_width,), jnp.float32)
        mixed = (1 - own) * weights / weights.sum()
        depths = 1 + whole_number(jax.random.uniform(depth_key, (mixture_width,), jnp.float32), deepest)
        depths = depths if chain_depth is None else jnp.full(mixture_width, deepest, jnp.int32)
        draws = jax.random.uniform(draw_key, (mixture_width, deepest, 3), jnp.float32)
        ops = first + whole_number(draws[..., 0], len(OPERATIONS) - first)
        within = jnp.arange(deepest, dtype=jnp.int32)[None] < depths[:, None]
        ops = jnp.where(within, ops, 0)  # the identity
        bins = whole_number(draws[..., 1], severity)

        def link(image, drawn):
            op, at, negative = drawn
            strength = strength_of(AUGMIX, op, at, negative, size)
            return operated(image, op, strength, size, interpolation), None

        def chain(mix, drawn):
            weight, *links = drawn
            end, _ = lax.scan(link, image, tuple(links))
            return mix + weight * end, None

        mix, _ = lax.scan(chain, own * image, (mixed, ops, bins, draws[..., 2] < 0.5))
        return {**example, "image": jnp.clip(mix, 0, 1)}

    return augment


def strength_of(
    ranges: Ranges, op: jax.Array, at: jax.Array, negative: jax.Array, size: Size
) -> jax.Array:
    """The strength of an operation: slant, pixels, degrees, factor - 1, bits or threshold.

    Args:
        ranges: of the policy.
        op: i32[], index in `OPERATIONS`.
        at: i32[], the bin.
        negative: bool[], the sign of those that have one.
        size: (height, width) of the picture.

    Returns:
        f32[].
    """
    share = at.astype(jnp.float32) / (ranges.bins - 1)
    height, width = (ranges.translate * (1.0 if ranges.pixels else jnp.float32(side)) for side in size)
    strengths = {
        "shear_x": ranges.shear * share,
        "shear_y": ranges.shear * share,
        "translate_x": jnp.trunc(width * share),
        "translate_y": jnp.trunc(height * share),
        "rotate": ranges.rotate * share,
        "posterize": jnp.round(ranges.bits[0] - ranges.bits[1] * share),
        "solarize": 1 - share,
    }
    strengths |= dict.fromkeys(("brightness", "color", "contrast", "sharpness"), ranges.factor * share)
    every = jnp.stack([strengths.get(name, jnp.float32(0)) for name in OPERATIONS])
    signed = jnp.asarray([name in _SIGNED for name in OPERATIONS])
    return jnp.where(negative & signed[op], -every[op], every[op])


def operated(
    image: jax.Array, op: jax.Array, strength: jax.Array, size: Size, interpolation: str = "nearest"
) -> jax.Array:
    """Applies one of `OPERATIONS` to an image.

    Args:
        image: f32[H, W, C] in [0, 1].
        op: i32[], index in `OPERATIONS`.
        strength: f32[], as of `strength_of`.
        size: (height, width) of the picture.
        interpolation: "nearest" or "bilinear".
    """
    known = all(isinstance(side, int) for side in size)
    traced = () if known else (jnp.stack([jnp.asarray(side, jnp.int32) for side in size]),)

    def operate(image, op, strength, *traced):
        own = size if known else tuple(traced[0])

        def moved(image, strength):
            back, _ = movement_of(op, strength, *own)[:2]
            return INTERPOLATIONS[interpolation](image, *back(*centers(image.shape[:2], own)), own)

        kinds = {
            "identity": lambda image, strength: image,
            "rotate": moved,
            "brightness": lambda image, strength: operations.brightness(image, 1 + strength),
            "color": lambda image, strength: operations.color(image, 1 + strength),
            "contrast": lambda image, strength: operations.contrast(image, 1 + strength, own),
            "sharpness": lambda image, strength: operations.sharpness(image, 1 + strength, own),
            "posterize": lambda image, strength: operations.posterize(image, strength),
            "solarize": lambda image, strength: operations.solarize(image, strength),
            "autocontrast": lambda image, strength: operations.autocontrast(image, own),
            "equalize": lambda image, strength: operations.equalize(image, own),
        }
        # All that move are one kind, so that a batch is resampled once.
        names = ["rotate" if name in _MOVING else name for name in OPERATIONS]
        kind = jnp.asarray([list(kinds).index(name) for name in names], jnp.int32)[op]
        return cut_image(lax.switch(kind, list(kinds.values()), image, strength), own)

    return one_by_one(operate)(image, op, strength, *traced)


def movement_of(op: jax.Array, strength: jax.Array, height: Side, width: Side) -> Movement:
    """The movement of one of `OPERATIONS`, as in torchvision: slants about the upper left corner,
    rotation about the center, translation; none for those that change values."""
    by = {name: jnp.where(op == OPERATIONS.index(name), strength, 0) for name in _MOVING}
    turn = jnp.deg2rad(by["rotate"])
    cosine, sine = jnp.cos(turn), jnp.sin(turn)
    middle = jnp.float32(height) / 2, jnp.float32(width) / 2

    def back(rows, columns):
        rows, columns = rows - by["translate_y"], columns - by["translate_x"]
        rows, columns = sine * columns + cosine * rows, cosine * columns - sine * rows
        across = columns + by["shear_x"] * (rows + middle[0])
        return rows + by["shear_y"] * (columns + middle[1]), across

    def forth(rows, columns):
        across = columns - by["shear_x"] * (rows + middle[0])
        rows, columns = rows - by["shear_y"] * (columns + middle[1]), across
        rows, columns = cosine * rows - sine * columns, sine * rows + cosine * columns
        return rows + by["translate_y"], columns + by["translate_x"]

    return Movement(back, forth)


def applied(
    example: Example, op: jax.Array, strength: jax.Array, size: Size, interpolation: str = "nearest"
) -> Example:
    """Applies one of `OPERATIONS`, as `operated`, to all entries of an example."""
    movement = movement_of(op, strength, *size)
    return move(
        example,
        movement._replace(resample=lambda image: operated(image, op, strength, size, interpolation)),
    )


def _check_interpolation(name: str) -> None:
    if name not in INTERPOLATIONS:
        raise unknown_name("interpolation", name, INTERPOLATIONS)
