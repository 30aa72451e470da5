"""Non-maximum suppression with fixed shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.detection.boxes import iou as overlaps

BLOCK = 256  # boxes that are decided at a time, so that memory does not grow with their square


class _Kept(NamedTuple):
    """Where the search is: the next box in order, how many are kept, and which, i32[k]."""

    start: jax.Array
    count: jax.Array
    index: jax.Array


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
    count = len(boxes)
    valid = jnp.ones(count, bool) if valid is None else valid
    labels = jnp.zeros(count, jnp.int32) if labels is None else labels
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True).astype(jnp.int32)
    block = min(BLOCK, count)
    order = jnp.pad(order, (0, -count % block))
    threshold, there = rounded_down(iou, boxes.dtype), valid.sum(dtype=jnp.int32)

    def again(state: _Kept) -> jax.Array:
        return (state.start < there) & (state.count < k)

    def next_block(state: _Kept) -> _Kept:
        """Decides the next best boxes: by those that are kept already, and by one another."""
        index = lax.dynamic_slice(order, (state.start,), (block,))
        own, label = boxes[index], labels[index]
        kept = boxes[state.index]
        over = (overlaps(own, kept) > threshold) & (label[:, None] == labels[state.index][None])
        left = ~(over & (jnp.arange(k, dtype=jnp.int32) < state.count)[None]).any(1)
        left &= state.start + jnp.arange(block, dtype=jnp.int32) < there
        above = jnp.triu(overlaps(own, own) > threshold, 1) & (label[:, None] == label[None])
        left = _greedy(above, left)
        place = jnp.where(left, state.count + jnp.cumsum(left, dtype=jnp.int32) - 1, k)
        return _Kept(
            state.start + block,
            jnp.minimum(state.count + left.sum(dtype=jnp.int32), k),
            state.index.at[place].set(index, mode="drop"),
        )

    start = _Kept(jnp.int32(0), jnp.int32(0), jnp.zeros(k, jnp.int32))
    found = lax.while_loop(again, next_block, start)
    return found.index, jnp.arange(k, dtype=jnp.int32) < found.count


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


def rounded_down(threshold: float | jax.Array, dtype: jnp.dtype) -> jax.Array | np.floating:
    """A threshold in the precision of the overlaps: x > threshold as for the threshold in double."""
    if not isinstance(threshold, float | int):
        return threshold
    near = np.asarray(threshold, dtype)
    return near if float(near) <= threshold else np.nextafter(near, np.asarray(-np.inf, dtype))
