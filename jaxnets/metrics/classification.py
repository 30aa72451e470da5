"""Top-k accuracy, confusion matrix and average precision of a classifier."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.metrics.detection.images import curve


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


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    r"""The average precision of each class over a whole set; scikit-learn's `average_precision_score`.

    :math:`\sum_n (R_n - R_{n-1}) P_n`, over the thresholds n, which are the scores that occur, from the
    highest; precision P is not interpolated. A score that is NaN is the lowest.

    Args:
        scores: f[N, K], on the host.
        targets: [N, K], 1 where an example is of the class and 0 elsewhere.

    Returns:
        f64[K]; NaN for a class without an example.

    Example:

        >>> average_precision(np.array([[0.9], [0.8], [0.1]]), np.array([[1], [0], [1]]))
        array([0.83333333])
    """
    curves = precision_recall(scores, targets)
    return np.array([np.diff(r, prepend=0) @ p if len(r) else np.nan for r, p in curves])


def precision_recall(scores: np.ndarray, targets: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Recall and precision of each class, at every score that occurs as the lowest that counts as found.

    Args:
        scores, targets: as for `average_precision`.

    Returns:
        `(recall, precision)`, f64[P] each, from the highest score to the lowest; of a class without an
        example both are empty.
    """
    scores = np.asarray(scores, np.float64)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    found = []
    for k, positives in enumerate(np.count_nonzero(targets, axis=0)):
        if not positives:
            found.append((np.zeros(0), np.zeros(0)))
            continue
        order = np.argsort(-scores[:, k], kind="stable")
        own = scores[order, k]
        recall, precision = curve(targets[order, k] > 0, positives)
        last = np.append(own[1:] != own[:-1], True)  # of those that are equal
        found.append((recall[last], precision[last]))
    return found
