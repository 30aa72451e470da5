"""Per-example losses, as pure functions of logits and targets.

Each takes `logits` f32[N, K] and `targets` f32[N, K] (rows are one-hot or, after mixup and cutmix, a
distribution over the classes) and returns f32[N], one loss per example, so that the caller decides how
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
        logits: f32[N, K].
        targets: f32[N, K]; rows sum to 1.
        label_smoothing: the fraction of each target that is spread evenly over all K classes
            (Szegedy et al. 2015, arXiv:1512.00567, section 7).
        class_weights: f32[K] or None; weights of the terms of the sum, as in PyTorch's
            `CrossEntropyLoss`. For the weighted mean over a batch, divide by the sum of
            `target_weights` instead of N; for one-hot targets this is PyTorch's mean.

    Returns:
        f32[N].
    """
    targets = optax.smooth_labels(targets, label_smoothing)
    if class_weights is not None:
        targets = targets * class_weights[None]
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def hinge(logits: jax.Array, targets: jax.Array, margin: float = 1.0) -> jax.Array:
    r"""Multi-class hinge loss, :math:`\sum_{k \ne y} \max(0, s_k - s_y + m)`.

    The loss of multi-class support vector machines (Weston and Watkins 1999). For mixed targets, s_y
    is the mean of the scores weighted by the targets, and each term k is weighted by 1 - t_k.

    Args:
        logits: f32[N, K].
        targets: f32[N, K]; rows sum to 1.
        margin: the margin m.

    Returns:
        f32[N].
    """
    right = jnp.sum(targets * logits, axis=-1, keepdims=True)
    return jnp.sum((1 - targets) * jnp.maximum(0, logits - right + margin), axis=-1)


def mean_squared_error(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared difference of logits and targets, averaged over the classes, f32[N]."""
    return jnp.mean(jnp.square(logits - targets), axis=-1)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Sigmoid cross entropy of each class, averaged over the classes, f32[N]."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def target_weights(targets: jax.Array, class_weights: jax.Array) -> jax.Array:
    """The weight of each example, f32[N]: the mean of `class_weights` weighted by its target."""
    return targets @ class_weights


def distillation(logits: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    r"""Divergence of a student from a teacher, :math:`T^2\,\mathrm{KL}(q \,\|\, p)`.

    p and q are the softmax of the scores divided by the temperature T. The factor keeps the size of the
    gradient about the same for any T (Hinton et al. 2015, arXiv:1503.02531, section 2).

    Args:
        logits: f32[N, K], of the student.
        teacher: f32[N, K].
        temperature: T.

    Returns:
        f32[N].
    """
    own, wanted = (jax.nn.log_softmax(scores / temperature) for scores in (logits, teacher))
    return temperature**2 * jnp.sum(jnp.exp(wanted) * (wanted - own), axis=-1)
