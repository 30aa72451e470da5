"""Augmentations that move pixels: flips, crops, rotation, shear, stretch, lens distortion.

Every augmentation is ``augment(key, image) -> image`` for one image f32[H, W, C] in [0, 1], and
keeps its shape. What comes from outside the image is black. Pixel centers lie at whole numbers, and
whatever turns or stretches does so about the middle of the image.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnets.data import checks

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]

_ATTEMPTS = 10  # boxes drawn before settling for another, as in torchvision


def random_flip(p: float = 0.5) -> Augmentation:
    """Mirrors left and right with probability `p`.

    Raises:
        InputError: `p` is no probability.
    """
    checks.within("p", p, 0, 1)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        import dm_pix

        return dm_pix.random_flip_left_right(key, image, probability=float(p))

    return augment


def pad_and_crop(padding: int = 4) -> Augmentation:
    """Pads each side with `padding` black pixels and cuts the old size out somewhere.

    The CIFAR augmentation of He et al. 2015 ("Deep Residual Learning", section 4.2).

    Raises:
        InputError: `padding` below 0.
    """
    checks.within("padding", padding, 0)

    return lambda key, image: _move(key, image, padding, padding)


def random_resized_crop(
    scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Augmentation:
    """Cuts a box out and resizes it to the size of the image.

    The ImageNet augmentation of Szegedy et al. 2014 ("Going deeper with convolutions", section 6),
    drawn as torchvision draws it (`random_box`, and if none fits the middle of the image at the
    nearest allowed ratio). One bilinear resampling. As with Pillow's ``resize(box=...)``, the edges
    take in the pixels beyond the box, which a crop before the resize would hide.

    Args:
        scale: least and greatest share of the image's area.
        ratio: least and greatest width / height of the box.

    Raises:
        InputError: shares outside (0, 1], ratios that are not positive, or in the wrong order.
    """
    checks.interval("scale", scale, 1e-6, 1)
    checks.interval("ratio", ratio, 1e-6)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        top, left, box_height, box_width, fits = random_box(key, height, width, scale, ratio)
        # Nothing fits: the largest box of the nearest ratio, in the middle.
        nearest = min(max(width / height, ratio[0]), ratio[1])
        middle_height = min(height, max(1, round(width / nearest)))
        middle_width = min(width, max(1, round(height * nearest)))
        box_height = jnp.where(fits, box_height, middle_height)
        box_width = jnp.where(fits, box_width, middle_width)
        top = jnp.where(fits, top, (height - middle_height) // 2)
        left = jnp.where(fits, left, (width - middle_width) // 2)
        zoom = jnp.stack([height / box_height, width / box_width])
        resized = jax.image.scale_and_translate(
            image,
            image.shape,
            (0, 1),
            zoom,
            -zoom * jnp.stack([top, left]),
            "linear",
        )
        return jnp.clip(resized, 0, 1)

    return augment


def random_box(
    key: jax.Array, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draws a box of whole pixels inside an image.

    Its share of the area is uniform in `scale`, the logarithm of its width / height in `ratio`, its
    place uniform; of ten such boxes the first one that fits into the image is taken.

    Args:
        key: a PRNG key.
        height: of the image, in pixels.
        width: of the image.
        scale: least and greatest share of the area.
        ratio: least and greatest width / height.

    Returns:
        Scalars: top, left, height and width, int32, and whether any of the ten fitted, bool.
    """
    # One draw for everything: random bits are what takes long to compile.
    draws = jax.random.uniform(key, (2, _ATTEMPTS + 1))
    area = (scale[0] + (scale[1] - scale[0]) * draws[0, :-1]) * height * width
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
    """Turns a uniform draw from [0, 1), a float32, into one of the int32 0 .. count - 1."""
    return (draw * count).astype(jnp.int32)  # no such product rounds up to its count


def inside_box(
    height: int, width: int, top: jax.Array, left: jax.Array, bottom: jax.Array, right: jax.Array
) -> jax.Array:
    """The mask of a box, bool[H, W]: rows from `top` and columns from `left`, ends excluded."""
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def random_translate(fraction: float = 0.1) -> Augmentation:
    """Moves the image by up to `fraction` of its height and width, in whole pixels.

    Raises:
        InputError: `fraction` outside [0, 1].
    """
    checks.within("fraction", fraction, 0, 1)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        return _move(key, image, round(fraction * height), round(fraction * width))

    return augment


def _move(key: jax.Array, image: jax.Array, rows: int, columns: int) -> jax.Array:
    """Moves an image by up to so many rows and columns either way."""
    draws = jax.random.uniform(key, (2,))
    top, left = whole_number(draws[0], 2 * rows + 1), whole_number(draws[1], 2 * columns + 1)
    padded = jnp.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def random_rotate(degrees: float = 15.0) -> Augmentation:
    """Turns the image by up to `degrees` either way."""
    return random_affine(degrees=degrees)


def random_shear(degrees: float = 15.0) -> Augmentation:
    """Slants the image's vertical lines by up to `degrees` either way."""
    return random_affine(shear=degrees)


def random_stretch(factor: float = 1.3) -> Augmentation:
    """Stretches or squeezes height and width, each by a factor of its own up to `factor`."""
    return random_affine(stretch=factor)


def random_affine(
    degrees: float = 0.0, translate: float = 0.0, shear: float = 0.0, stretch: float = 1.0
) -> Augmentation:
    """Stretches, shears, turns and moves, in one bilinear resampling.

    Args:
        degrees: the greatest angle of rotation, either way; the angle is uniform.
        translate: the greatest move as a fraction of the height and of the width; uniform, then
            rounded to whole pixels, so that a move alone does not blur.
        shear: the greatest slant of vertical lines, in degrees below 90; uniform.
        stretch: the greatest factor; height and width have one each, drawn so that squeezing by a
            factor is as likely as stretching by it.

    Raises:
        InputError: a parameter out of range.
    """
    checks.within("degrees", degrees, 0)
    checks.within("translate", translate, 0, 1)
    checks.within("shear", shear, 0, 89)
    checks.within("stretch", stretch, 1)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        draws = jax.random.uniform(key, (6,), minval=-1)
        return affine(
            image,
            degrees=degrees * draws[0],
            shear=shear * draws[1],
            stretch=jnp.exp(math.log(stretch) * draws[2:4]),
            translation=jnp.round(translate * draws[4:6] * jnp.array([height, width])),
        )

    return augment


def affine(
    image: jax.Array,
    *,
    degrees: jax.Array | float = 0.0,
    translation: jax.Array | tuple[float, float] = (0.0, 0.0),
    shear: jax.Array | float = 0.0,
    stretch: jax.Array | tuple[float, float] = (1.0, 1.0),
) -> jax.Array:
    """Stretches, shears, turns and moves an image, in this order.

    Args:
        image: f32[H, W, C].
        degrees: the angle by which it turns, counter-clockwise as one looks at it.
        translation: (down, right), in pixels.
        shear: the angle by which vertical lines slant; a positive one moves what is below the
            middle to the right.
        stretch: (vertical, horizontal) factors, above 1 to enlarge.

    Returns:
        f32[H, W, C].
    """
    rows, columns = _from_center(image)
    turn = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cosine, sine = jnp.cos(turn), jnp.sin(turn)
    # From the pixel that is wanted back to where it comes from, so each move is undone. Written
    # out, and not as a 3x3 matrix times all pixels, which jaxlib 0.10.2 can miscompile on CPU.
    rows, columns = rows - translation[0], columns - translation[1]
    rows, columns = sine * columns + cosine * rows, cosine * columns - sine * rows
    columns = columns - jnp.tan(jnp.deg2rad(jnp.asarray(shear, jnp.float32))) * rows
    return warp(image, rows / stretch[0], columns / stretch[1])


def lens_distortion(strength: float = 0.25) -> Augmentation:
    """Bulges or pinches the image like a lens (`distort`), by up to `strength` either way.

    Raises:
        InputError: `strength` outside [0, 0.33], above which the image would fold over.
    """
    checks.within("strength", strength, 0, 0.33)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        return distort(image, jax.random.uniform(key, minval=-strength, maxval=strength))

    return augment


def distort(image: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Radial lens distortion: what was at radius r (1 + strength r^2) comes to radius r.

    The first term of Brown's model ("Close-range camera calibration", 1971).

    Args:
        image: f32[H, W, C].
        strength: above 0 for a barrel, whose corners are pulled in and leave black, below 0 for a
            pincushion. The radius is 1 in the corners of the image.

    Returns:
        f32[H, W, C].
    """
    rows, columns = _from_center(image)
    corner = ((image.shape[0] - 1) ** 2 + (image.shape[1] - 1) ** 2) / 4
    factor = 1 + strength * (rows**2 + columns**2) / max(corner, 1)
    return warp(image, rows * factor, columns * factor)


def warp(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Reads an image at any places, bilinearly.

    Args:
        image: f32[H, W, C] in [0, 1].
        rows: f32[h, w], places counted from the middle of the image, downwards, in pixels.
        columns: f32[h, w], to the right. Beyond the image all is black.

    Returns:
        f32[h, w, C].
    """
    import dm_pix

    height, width, _ = image.shape
    # A black frame, for dm-pix repeats the outermost pixels; its own constant fill would blacken
    # pixels that rounding puts an ulp outside.
    framed = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    places = jnp.stack([rows + (height + 1) / 2, columns + (width + 1) / 2])
    read = jax.vmap(dm_pix.flat_nd_linear_interpolate, in_axes=(-1, None), out_axes=-1)
    return jnp.clip(read(framed, places), 0, 1)  # the four weights may add up to an ulp more than 1


def _from_center(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The row and the column of each pixel from the middle of the image, f32[H, W] each."""
    height, width, _ = image.shape
    rows = jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2
    columns = jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2
    return jnp.meshgrid(rows, columns, indexing="ij")
