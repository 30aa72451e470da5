"""Non-maximum suppression with fixed shapes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.detection.boxes import iou as overlaps


def nms(
    boxes: jax.Array,
    scores: jax.Array,
    iou: float | jax.Array,
    k: int,
    *,
    valid: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Greedy non-maximum suppression: of boxes that overlap by more than `iou`, the best is kept.

    Equal to torchvision's `nms` and, with labels, to `batched_nms` of more than a thousand boxes. Of
    equal scores the first counts as the better.

    Args:
        boxes: f[N, 4].
        scores: f[N].
        iou: overlap above which the worse of two boxes is dropped. A Python number is compared
            exactly, as a double, with the overlaps in float32.
        k: how many to return; fixed, as every shape.
        valid: bool[N], the boxes that are there; None for all.
        labels: i[N]: only boxes of the same label suppress one another; None for all.

    Returns:
        The indices i32[k] of the kept boxes, best first, and whether there are that many, bool[k].
    """
    valid = jnp.ones(len(boxes), bool) if valid is None else valid
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    sorted_boxes = boxes[order]
    above = jnp.triu(overlaps(sorted_boxes, sorted_boxes) > _rounded_down(iou, boxes.dtype), 1)
    if labels is not None:
        above &= labels[order][:, None] == labels[order][None]
    kept = _greedy(above, valid[order])
    return _first(order, kept, k)


def soft_nms(
    boxes: jax.Array,
    scores: jax.Array,
    k: int,
    *,
    sigma: float = 0.5,
    valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Soft non-maximum suppression: overlapping boxes lose score instead of being dropped.

    Bodla et al. 2017, arXiv:1704.04503, equation 3: each box that is kept multiplies the scores of the
    others by exp(-IoU^2 / sigma).

    Args:
        boxes: f[N, 4].
        scores: f[N], at least 0.
        k: how many to return.
        sigma: width of the decay.
        valid: bool[N], the boxes that are there; None for all.

    Returns:
        The indices i32[k], best first, their lowered scores f[k], and whether there are that many,
        bool[k].
    """
    valid = jnp.ones(len(boxes), bool) if valid is None else valid

    def pick(left: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        best = jnp.argmax(left)
        decay = jnp.exp(-jnp.square(overlaps(boxes[best][None], boxes)[0]) / sigma)
        return jnp.where(jnp.isinf(left), left, left * decay).at[best].set(-jnp.inf), (best, left[best])

    start = jnp.where(valid, scores, -jnp.inf)
    _, (index, found) = lax.scan(pick, start, length=min(k, len(boxes)))
    index = jnp.pad(index.astype(jnp.int32), (0, k - len(index)))
    found = jnp.pad(found, (0, k - len(found)), constant_values=-jnp.inf)
    there = jnp.isfinite(found)
    return index, jnp.where(there, found, 0), there


def _greedy(above: jax.Array, valid: jax.Array) -> jax.Array:
    """Which boxes are left, bool[N], where box j goes if a box i that is left is `above[i, j]`.

    A box is decided once all before it are, so that repeating the rule for all at once settles at least
    one more each time; in practice a few rounds do.
    """

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        new = valid & ~(above & kept[:, None]).any(0)
        return new, (new != kept).any()

    kept, _ = lax.while_loop(lambda state: state[1], again, (valid, jnp.array(True)))
    return kept


def _first(order: jax.Array, kept: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The first k kept entries of an order."""
    places = jnp.flatnonzero(kept, size=k, fill_value=0)
    return order[places].astype(jnp.int32), jnp.arange(k) < kept.sum()


def _rounded_down(threshold: float | jax.Array, dtype: jnp.dtype) -> jax.Array | np.floating:
    """A threshold in the precision of the overlaps: x > threshold as for the threshold in double."""
    if not isinstance(threshold, float | int):
        return threshold
    near = np.asarray(threshold, dtype)
    return near if float(near) <= threshold else np.nextafter(near, np.asarray(-np.inf, dtype))
