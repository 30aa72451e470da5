"""Augmentations that move pixels: flips, crops, rotation, shear, stretch, lens distortion.

Every augmentation is ``augment(key, example) -> example`` (`jaxnets.data.example`) and preserves all
shapes. Boxes, masks and label maps move with the image (`jaxnets.data.movement.move`). Pixels from
outside the image are black. Rotation and stretching are about the center of the image. Where an
example's `size` says that its picture is only the upper left of the image, all that is said of images is
true of the picture.
"""

import math

import jax
import jax.numpy as jnp

from jaxnets.data import checks
from jaxnets.data.example import Augmentation
from jaxnets.data.movement import Movement, affine, axis_aligned, lens, moving
from jaxnets.data.resampling import Size, zoomed

Side = jax.Array | int

_ATTEMPTS = 10  # boxes drawn before using the fallback, as in torchvision


def random_flip(p: float = 0.5) -> Augmentation:
    """Flips the image horizontally with probability `p`.

    Raises:
        InputError: `p` is not a probability.
    """
    checks.within("p", p, 0, 1)

    @moving
    def augment(key: jax.Array, height: Side, width: Side) -> Movement:
        def mirrored(image):
            return jnp.roll(image[:, ::-1], width - image.shape[1], axis=1)

        flipped = jax.random.bernoulli(key, float(p))
        return axis_aligned(
            (1, jnp.where(flipped, -1, 1)),
            (0, 0),
            resample=lambda image: jnp.where(flipped, mirrored(image), image),
        )

    return augment


def pad_and_crop(padding: int = 4) -> Augmentation:
    """Pads each side with `padding` black pixels and takes a random crop of the original size.

    The CIFAR augmentation of He et al. 2015 ("Deep Residual Learning", section 4.2).

    Raises:
        InputError: `padding` below 0.
    """
    checks.within("padding", padding, 0)

    return moving(lambda key, height, width: _translation(key, padding, padding))


def random_resized_crop(
    scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Augmentation:
    """Takes a random crop and resizes it to the size of the image.

    The ImageNet augmentation of Szegedy et al. 2014 ("Going deeper with convolutions", section 6),
    drawn as in torchvision (`random_box` or, if none fits, a center crop with the nearest allowed
    ratio). The crop is resampled once, bilinearly. As with Pillow's ``resize(box=...)``, the edges
    include pixels outside the box, which would be lost by cropping before resizing.

    Args:
        scale: minimum and maximum fraction of the image's area.
        ratio: minimum and maximum width / height of the crop.

    Raises:
        InputError: fractions outside (0, 1], ratios that are not positive, or in the wrong order.
    """
    checks.interval("scale", scale, 1e-6, 1)
    checks.interval("ratio", ratio, 1e-6)

    @moving
    def augment(key: jax.Array, height: Side, width: Side) -> Movement:
        top, left, box_height, box_width, fits = random_box(key, height, width, scale, ratio)
        # If nothing fits: the largest centered box of the nearest ratio.
        high, wide = jnp.float32(height), jnp.float32(width)
        nearest = jnp.clip(wide / high, *map(jnp.float32, ratio))
        middle_height = jnp.clip(jnp.round(wide / nearest), 1, high).astype(jnp.int32)
        middle_width = jnp.clip(jnp.round(high * nearest), 1, wide).astype(jnp.int32)
        box_height = jnp.where(fits, box_height, middle_height)
        box_width = jnp.where(fits, box_width, middle_width)
        top = jnp.where(fits, top, (height - middle_height) // 2)
        left = jnp.where(fits, left, (width - middle_width) // 2)

        sides = jnp.stack([box_height, box_width]).astype(jnp.float32)
        start = jnp.stack([top, left]).astype(jnp.float32)
        return zoom_in(start, sides, (height, width))

    return augment


def zoom_in(start: jax.Array, sides: jax.Array, size: Size, new: Size | None = None) -> Movement:
    """The movement of a crop that is resized.

    Args:
        start: f32[2], the crop's first row and column.
        sides: f32[2], its height and width.
        size: (height, width) of the picture.
        new: (height, width) of the moved picture; None for that of the picture.
    """
    old, target = (jnp.stack([*map(jnp.float32, own)]) for own in (size, new or size))
    middle = start + sides / 2 - old / 2
    return axis_aligned(
        tuple(sides / target),
        tuple(middle),
        resample=lambda image: zoomed(image, target / sides, start, size),
        size=new,
    )


def random_box(
    key: jax.Array, height: Side, width: Side, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draws a box of whole pixels inside an image.

    Its fraction of the area is uniform in `scale`, the logarithm of its width / height is uniform in
    that of `ratio`, and its position is uniform. The first of ten such boxes that fits is taken.

    Args:
        key: a PRNG key.
        height: height of the image, in pixels.
        width: width of the image, in pixels.
        scale: minimum and maximum fraction of the area.
        ratio: minimum and maximum width / height.

    Returns:
        Scalars: top, left, height and width, int32, and whether any of the ten boxes fits, bool.
    """
    # A single draw, because random bits are slow to compile.
    draws = jax.random.uniform(key, (2, _ATTEMPTS + 1), jnp.float32)
    area = (scale[0] + (scale[1] - scale[0]) * draws[0, :-1]) * jnp.float32(height) * jnp.float32(width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root_ratio = jnp.exp((low + (high - low) * draws[1, :-1]) / 2)
    heights = jnp.round(jnp.sqrt(area) / root_ratio).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(area) * root_ratio).astype(jnp.int32)
    fitting = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = jnp.argmax(fitting)
    box_height = jnp.clip(heights[first], 1, height)
    box_width = jnp.clip(widths[first], 1, width)
    top = whole_number(draws[0, -1], height - box_height + 1)
    left = whole_number(draws[1, -1], width - box_width + 1)
    return top, left, box_height, box_width, fitting.any()


def whole_number(draw: jax.Array, count: jax.Array | int) -> jax.Array:
    """Converts a uniform float32 draw from [0, 1) to an int32 in 0 .. count - 1."""
    product = draw * jnp.asarray(count, draw.dtype)  # it never rounds up to `count`
    return product.astype(jnp.int32)


def inside_box(
    height: int, width: int, top: jax.Array, left: jax.Array, bottom: jax.Array, right: jax.Array
) -> jax.Array:
    """The mask of a box, bool[H, W], without row `bottom` and column `right`."""
    rows, columns = (jnp.arange(size, dtype=jnp.int32) for size in (height, width))
    rows, columns = rows[:, None], columns[None]
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def random_translate(fraction: float = 0.1) -> Augmentation:
    """Translates the image by up to `fraction` of its height and width, in whole pixels.

    Raises:
        InputError: `fraction` outside [0, 1].
    """
    checks.within("fraction", fraction, 0, 1)

    @moving
    def augment(key: jax.Array, height: Side, width: Side) -> Movement:
        rows, columns = (
            jnp.round(fraction * jnp.float32(side)).astype(jnp.int32) for side in (height, width)
        )
        return _translation(key, rows, columns)

    return augment


def _translation(key: jax.Array, rows: Side, columns: Side) -> Movement:
    """A uniform translation by up to `rows` and `columns` in either direction."""
    draws = jax.random.uniform(key, (2,), jnp.float32)
    down = whole_number(draws[0], 2 * rows + 1) - rows
    right = whole_number(draws[1], 2 * columns + 1) - columns

    def copy(image):
        height, width, _ = image.shape
        kept = inside_box(height, width, -down, -right, height - down, width - right)
        return jnp.where(kept[..., None], jnp.roll(image, (-down, -right), (0, 1)), 0)

    return axis_aligned((1, 1), (down.astype(jnp.float32), right.astype(jnp.float32)), copy)


def random_rotate(degrees: float = 15.0) -> Augmentation:
    """Rotates the image by up to `degrees` in either direction."""
    return random_affine(degrees=degrees)


def random_shear(degrees: float = 15.0) -> Augmentation:
    """Slants the vertical lines of the image by up to `degrees` in either direction."""
    return random_affine(shear=degrees)


def random_stretch(factor: float = 1.3) -> Augmentation:
    """Stretches or squeezes height and width, by independent factors of up to `factor`."""
    return random_affine(stretch=factor)


def random_affine(
    degrees: float = 0.0, translate: float = 0.0, shear: float = 0.0, stretch: float = 1.0
) -> Augmentation:
    """Stretches, shears, rotates and translates the image, in one bilinear resampling.

    Args:
        degrees: maximum angle of rotation in either direction; the angle is uniform.
        translate: maximum translation, as a fraction of the height and of the width; uniform, then
            rounded to whole pixels, so that a translation alone does not blur.
        shear: maximum slant of vertical lines, in degrees, at most 89; uniform.
        stretch: maximum factor. Height and width have independent log-uniform factors, so that
            squeezing by a factor is as likely as stretching by it.

    Raises:
        InputError: a parameter out of range.
    """
    checks.within("degrees", degrees, 0)
    checks.within("translate", translate, 0, 1)
    checks.within("shear", shear, 0, 89)
    checks.within("stretch", stretch, 1)

    @moving
    def augment(key: jax.Array, height: Side, width: Side) -> Movement:
        draws = jax.random.uniform(key, (6,), jnp.float32, minval=-1)
        return affine(
            degrees=degrees * draws[0],
            shear=shear * draws[1],
            stretch=jnp.exp(math.log(stretch) * draws[2:4]),
            translation=jnp.round(
                translate * draws[4:6] * jnp.stack([jnp.float32(height), jnp.float32(width)])
            ),
        )

    return augment


def lens_distortion(strength: float = 0.25) -> Augmentation:
    """Radial lens distortion (`movement.lens`) of up to `strength` in either direction.

    Raises:
        InputError: `strength` outside [0, 0.33], above which the image would fold over.
    """
    checks.within("strength", strength, 0, 0.33)

    @moving
    def augment(key: jax.Array, height: Side, width: Side) -> Movement:
        return lens(jax.random.uniform(key, (), jnp.float32, -strength, strength), height, width)

    return augment
