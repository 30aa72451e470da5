"""Losses of single examples, as pure functions of scores and targets.

Each takes `logits` f32[N, K] and `targets` f32[N, K] (rows are one-hot or, after mixup and cutmix, a
distribution over the classes) and returns f32[N]: one loss an example, so that the caller decides how
examples are weighted and summed.
"""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    label_smoothing: float = 0.0,
    class_weights: jax.Array | None = None,
) -> jax.Array:
    r"""Softmax cross entropy, :math:`-\sum_k w_k\, t_k \log p_k`.

    Args:
        logits: f32[N, K] scores.
        targets: f32[N, K], rows sum to 1.
        label_smoothing: the share of each target that is spread evenly over all K classes
            (Szegedy et al. 2015, arXiv:1512.00567, section 7).
        class_weights: f32[K] or None. As in PyTorch's `CrossEntropyLoss` they weigh the terms of the
            sum; a weighted mean over a batch divides by `target_weights`, not by N, which for
            one-hot targets is PyTorch's mean too.

    Returns:
        f32[N].
    """
    targets = optax.smooth_labels(targets, label_smoothing)
    if class_weights is not None:
        targets = targets * class_weights
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def hinge(logits: jax.Array, targets: jax.Array, margin: float = 1.0) -> jax.Array:
    r"""Multi-class support vector machine, :math:`\sum_{k \ne y} \max(0, s_k - s_y + m)`.

    Weston and Watkins 1999. Targets that mix several classes weigh the scores of the right ones and
    the terms of the wrong ones.

    Args:
        logits: f32[N, K] scores.
        targets: f32[N, K], rows sum to 1.
        margin: m above.

    Returns:
        f32[N].
    """
    right = jnp.sum(targets * logits, axis=-1, keepdims=True)
    return jnp.sum((1 - targets) * jnp.maximum(0, logits - right + margin), axis=-1)


def mean_squared_error(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared distance of scores and targets, averaged over the classes: f32[N]."""
    return jnp.mean(jnp.square(logits - targets), axis=-1)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Sigmoid cross entropy of every class for itself, averaged over the classes: f32[N]."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def target_weights(targets: jax.Array, class_weights: jax.Array) -> jax.Array:
    """The weight of each example, f32[N]: that of its class, or of its mixture of classes."""
    return targets @ class_weights
