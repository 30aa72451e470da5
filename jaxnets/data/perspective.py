"""The augmentation that shows a picture from another point of view."""

import jax
import jax.numpy as jnp

from jaxnets.data import checks
from jaxnets.data.example import Augmentation
from jaxnets.data.geometry import Side, whole_number
from jaxnets.data.movement import Movement, moving

_SMALL = 1e-6  # in place of 0, where corners lie on a line


def random_perspective(distortion: float = 0.5, p: float = 0.5) -> Augmentation:
    """Moves each corner inward by its own whole pixels, with probability `p`, as torchvision's
    RandomPerspective.

    Args:
        distortion: how far a corner may go, as a fraction of half the height and of half the width; at
            most 0.6, since from 2/3 on the picture may fold.
        p: probability.

    Raises:
        InputError: a parameter out of range.
    """
    checks.within("distortion", distortion, 0, 0.6)
    checks.within("p", p, 0, 1)

    @moving
    def augment(key: jax.Array, height: Side, width: Side) -> Movement:
        draws = jax.random.uniform(key, (9,), jnp.float32)
        wanted = draws[8] < p

        def inward(draw: jax.Array, side: Side) -> jax.Array:
            furthest = jnp.floor(distortion * jnp.float32(side // 2)) + 1
            return jnp.where(wanted, whole_number(draw, furthest), 0).astype(jnp.float32)

        down, right = inward(draws[:4], height), inward(draws[4:8], width)
        bottom, last = jnp.float32(height) - 1, jnp.float32(width) - 1
        rows = jnp.stack([down[0], down[1], bottom - down[2], bottom - down[3]])
        columns = jnp.stack([right[0], last - right[1], last - right[2], right[3]])
        return perspective(rows, columns, height, width)

    return augment


def perspective(rows: jax.Array, columns: jax.Array, height: Side, width: Side) -> Movement:
    """The projective movement of a picture that takes its corners to other places.

    The matrix from the unit square is that of Heckbert ("Fundamentals of texture mapping and image
    warping", 1989, section 2.2.3). As in torchvision, the corners are (0, 0), (0, W - 1),
    (H - 1, W - 1) and (H - 1, 0), and all coordinates are those of `box`.

    Args:
        rows: f32[4], where these corners go, in pixels from the top.
        columns: f32[4], from the left.
        height: H of the picture.
        width: W of the picture.
    """
    height, width = jnp.float32(height), jnp.float32(width)
    sides = jnp.maximum(height - 1, 1), jnp.maximum(width - 1, 1)
    # Fractions of the sides, for the sake of float32's precision.
    x, y = columns / sides[1], rows / sides[0]
    (x1, x3, x_sum), (y1, y3, y_sum) = (
        (v[1] - v[2], v[3] - v[2], v[0] - v[1] + v[2] - v[3]) for v in (x, y)
    )
    area = _not_zero(x1 * y3 - x3 * y1)
    g, h = (x_sum * y3 - x3 * y_sum) / area, (x1 * y_sum - x_sum * y1) / area
    a, b, c = x[1] - x[0] + g * x[1], x[3] - x[0] + h * x[3], x[0]
    d, e, f = y[1] - y[0] + g * y[1], y[3] - y[0] + h * y[3], y[0]

    def projected(rows, columns, down, right, scale):
        u, v = (columns + width / 2) / sides[1], (rows + height / 2) / sides[0]
        down, right, scale = (own[0] * u + own[1] * v + own[2] for own in (down, right, scale))
        scale = _not_zero(scale)
        return down / scale * sides[0] - height / 2, right / scale * sides[1] - width / 2

    def forth(rows, columns):
        return projected(rows, columns, (d, e, f), (a, b, c), (g, h, 1))

    def back(rows, columns):  # the adjugate
        right = e - f * h, c * h - b, b * f - c * e
        down = f * g - d, a - c * g, c * d - a * f
        return projected(rows, columns, down, right, (d * h - e * g, b * g - a * h, a * e - b * d))

    return Movement(back, forth)


def _not_zero(value: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(value) < _SMALL, _SMALL, value)
