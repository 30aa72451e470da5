"""Update-to-weight ratios of each layer, measured outside of the step."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from jaxnets.metrics import Mean, Metrics
from jaxnets.training.state import TrainState
from jaxnets.training.step import TrainStep
from jaxnets.training.task import Batch

RATIO = "update_ratio/"


def with_layer_ratios(step: TrainStep) -> TrainStep:
    """Wraps a step to also report the update ratio of each layer, as the mean `update_ratio/LAYER`.

    The ratio is the norm of the change of the layer's weights over their norm before the step, for
    kernels and embeddings, but not biases, scales and shifts. The compiled step is unchanged, so that
    training is bitwise identical with and without; the cost is a copy of the weights.

    Args:
        step: a compiled step, as from `DataParallel.compile_train_step`; its input state is donated.
    """
    keep = jax.jit(lambda weights: jax.tree.map(jnp.copy, weights))
    measure = jax.jit(_ratios)

    def measured(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        before = keep(_weights(state.params))
        state, sums = step(state, batch)
        return state, {**sums, **measure(before, _weights(state.params))}

    return measured


def _weights(params: Any) -> dict[str, jax.Array]:
    """Weight arrays by the name of their layer."""
    leaves = flatten_dict(params, sep="/").items()
    return {path.removesuffix("/kernel"): leaf for path, leaf in leaves if leaf.ndim > 1}


def _ratios(before: dict[str, jax.Array], after: dict[str, jax.Array]) -> Metrics:
    def ratio(old: jax.Array, new: jax.Array) -> Mean:
        size = jnp.linalg.norm(old)  # a layer that starts at zero has no ratio in its first step
        moved = jnp.linalg.norm(new - old)
        return Mean(jnp.where(size > 0, moved / jnp.where(size > 0, size, 1), 0), jnp.float32(size > 0))

    return {f"{RATIO}{layer}": ratio(before[layer], after[layer]) for layer in before}
