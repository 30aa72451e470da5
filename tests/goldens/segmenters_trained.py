"""A training step of a segmenter beside the one that its reference took, for all files of goldens."""

from collections.abc import Callable, Mapping
from typing import Any

import draw
import jax
import jax.numpy as jnp
import numpy as np
import segmenters


def assert_trained_alike(
    model: Any,
    variables: Mapping[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    answers: Mapping[str, np.ndarray],
    named: Callable[[dict[str, Any]], Mapping[str, np.ndarray]],
    tolerance: float,
    constants: tuple[str, ...] = (),
) -> float:
    """Compares the loss, the gradients and what became of the statistics.

    Args:
        model: without dropout.
        variables: float64, the reference's.
        images, labels: what is learned.
        answers: `loss`, and the sketches `gradients` and `changes`.
        named: from variables to the reference's names.
        tolerance: relative.
        constants: how the names of tensors begin that have no gradient.

    Returns:
        How far the loss is off.
    """
    statistics = {kind: tree for kind, tree in variables.items() if kind != "params"}
    counted = labels != segmenters.IGNORED

    def entropy(scores):
        true = jnp.where(counted, labels, 0)[..., None]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), true, -1)[..., 0]
        return -jnp.sum(chosen * counted) / counted.sum()

    @jax.jit
    def train(params, images):
        def loss(params):
            logits, updated = model.apply(
                {"params": params, **statistics}, images, True, mutable=[*statistics, "auxiliary"]
            )
            others = updated.pop("auxiliary", {}).values()
            return entropy(logits) + segmenters.AUXILIARY_WEIGHT * sum(map(entropy, others)), updated

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, updated), gradients = train(variables["params"], images.astype(np.float64))
    np.testing.assert_allclose(loss, answers["loss"], rtol=tolerance)
    changes = jax.tree.map(jnp.subtract, updated, statistics)
    kinds = {"changes": {}, "gradients": {}}
    for key, value in named({"params": gradients, **changes}).items():
        if constants and key.startswith(constants):
            assert not np.any(value), key
        elif not key.endswith("num_batches_tracked"):
            kinds["changes" if "running_" in key else "gradients"][key] = value
    for kind, chosen in kinds.items():
        draw.assert_same_sketch(chosen, answers[kind], tolerance)
    return abs(float(loss) / float(answers["loss"]) - 1)
