"""Which truth each anchor or proposal is to learn, and which of them are learned from."""

import jax
import jax.numpy as jnp

BELOW, BETWEEN = -1, -2


def match(
    overlaps: jax.Array,
    low: float,
    high: float,
    *,
    valid: jax.Array | None = None,
    keep_best: bool = False,
) -> jax.Array:
    """Matches candidates to truths by overlap (Ren et al. 2015, section 3.1.2), as torchvision does.

    Args:
        overlaps: f[M, N] of M truths and N candidates.
        low: below it a candidate is background.
        high: from it a candidate is matched; in between it is neither.
        valid: bool[M], the truths that are there; None for all.
        keep_best: match the candidates that overlap a truth most, however little, each to the truth
            that it overlaps most itself (which may be another).

    Returns:
        i32[N]: the index of the truth, `BELOW` (-1) or `BETWEEN` (-2).
    """
    if valid is not None:
        overlaps = jnp.where(valid[:, None], overlaps, -1)
    best, truth = overlaps.max(0), overlaps.argmax(0).astype(jnp.int32)
    matched = best >= high
    if keep_best:
        of_a_truth = overlaps == overlaps.max(1, keepdims=True)
        matched |= (of_a_truth if valid is None else of_a_truth & valid[:, None]).any(0)
    return jnp.where(matched, truth, jnp.where(best < low, BELOW, BETWEEN))


def sample(
    key: jax.Array, positive: jax.Array, negative: jax.Array, count: int, share: float
) -> tuple[jax.Array, jax.Array]:
    """Draws candidates to learn from: at most `share` of `count` positive ones, the rest negative.

    Args:
        key: a PRNG key.
        positive: bool[N].
        negative: bool[N].
        count: how many to draw; fewer if there are too few negatives.
        share: largest share of positives, as 0.5 for proposals and 0.25 for regions.

    Returns:
        The drawn positives and the drawn negatives, bool[N] each.
    """
    keys = jax.random.split(key)
    chosen = _draw(keys[0], positive, jnp.minimum(positive.sum(), int(count * share)))
    return chosen, _draw(keys[1], negative, jnp.minimum(negative.sum(), count - chosen.sum()))


def _draw(key: jax.Array, members: jax.Array, count: jax.Array) -> jax.Array:
    """A uniform draw of `count` of the members, bool[N]: the same whatever lies between them."""
    rank = jnp.cumsum(members, dtype=jnp.int32) - 1
    places = jnp.where(members, jax.random.uniform(key, members.shape, jnp.float32)[rank], 2.0)
    order = jnp.argsort(places)
    return jnp.zeros(members.shape, bool).at[order].set(jnp.arange(len(members)) < count)
