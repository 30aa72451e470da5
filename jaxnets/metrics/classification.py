"""Top-k accuracy and confusion matrix of a classifier."""

import jax
import jax.numpy as jnp


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether each label is among the k highest scores.

    Ties go to the lower class index, and NaN ranks as the highest score, as in `jax.lax.top_k`.
    However, a row is never correct if the score of its label is NaN.

    Args:
        logits: f32[N, K].
        labels: i32[N].
        k: 1 for plain accuracy; with k >= K every row without such a NaN is correct.

    Returns:
        bool[N].
    """
    labels = labels.astype(jnp.int32)
    classes = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None]
    right = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    below = (logits < right) | ((logits == right) & (classes >= labels[:, None]))
    return (jnp.sum(~below, axis=-1) < k) & ~jnp.isnan(right[:, 0])


def confusion_matrix(
    logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Counts of (true class, predicted class).

    Args:
        logits: f32[N, K]; the prediction is the first maximum.
        labels: i32[N].
        weights: f32[N], weight of each example; None for 1.

    Returns:
        f32[K, K]: row = true class, column = predicted class.
    """
    num_classes, labels = logits.shape[-1], labels.astype(jnp.int32)
    weights = jnp.ones(labels.shape, jnp.float32) if weights is None else weights
    cells = labels * num_classes + jnp.argmax(logits, axis=-1).astype(jnp.int32)
    counts = jnp.zeros(num_classes * num_classes, weights.dtype).at[cells].add(weights)
    return counts.reshape(num_classes, num_classes)
