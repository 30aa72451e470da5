"""The train and eval steps, written once for one device and for many."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxnets import metrics
from jaxnets.dtypes import implicit_promotion
from jaxnets.errors import InputError
from jaxnets.layers import CONSTANTS, DATA_AXIS, axis_is_bound
from jaxnets.metrics import Mean, Metrics
from jaxnets.training.precision import cast, compute_dtype
from jaxnets.training.remat import rematerialized_blocks
from jaxnets.training.state import TrainState
from jaxnets.training.task import Batch, Task, Variables

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[Variables, Batch], Metrics]

_SMALL = 4096  # parameters with at most this many entries are concatenated before they are summed


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    precision: str = "float32",
    accumulate: int = 1,
    ema_decay: float | None = None,
    remat: bool = False,
) -> TrainStep:
    """A pure `step(state, batch) -> (state, metric sums)`, to be compiled by `training.parallel`.

    Traced inside a mapped axis named "batch" (of `jax.pmap` or `jax.shard_map`), the step takes
    one replica's share of the batch and reduces gradients, metrics and collections over the axis.
    Traced outside of one, by plain `jax.jit`, it takes the whole batch. Replicas and micro-batches are
    weighted by their examples, so that the gradient is that of the mean over the whole batch, however
    it is split.

    The sums are those of `task.loss` and the means `grad_norm`, `update_ratio` (norm of the update
    over norm of the parameters; ideally about 0.001 to 0.01) and, if the optimizer was made by
    `create_optimizer`, `learning_rate`.

    Args:
        task: the task whose loss to minimize.
        optimizer: any Optax transformation.
        precision: "float32", or "bfloat16" for the forward and backward pass.
        accumulate: number of micro-batches that each replica's share is split into and processed one
            after the other; the optimizer sees their accumulated gradient. This saves memory and
            does not change the results, except for batch statistics, which are those of a micro-batch.
        ema_decay: decay rate of the moving average of the parameters; None for no average. In step t it
            is min(ema_decay, (1 + t) / (10 + t)), so that the average forgets the initial parameters in
            a short run too (as `tf.train.ExponentialMovingAverage` with `num_updates`).
        remat: compute the blocks of the backbone again in the backward pass; see
            `rematerialized_blocks`.

    Raises:
        InputError: for an unknown precision or numbers out of range; when traced, for a batch that
            cannot be split into `accumulate` parts.
    """
    dtype = compute_dtype(precision)
    if accumulate < 1:
        raise InputError(f"accumulate is {accumulate}; it must be 1 or more")
    if ema_decay is not None and not 0 < ema_decay < 1:
        raise InputError(f"ema_decay is {ema_decay}; it must be between 0 and 1, such as 0.999")

    def gradient(params, collections, batch, key):
        """The gradient of the *sum* of losses, so that parts can be added."""

        def loss(params):
            variables = {"params": cast(params, dtype), **collections}
            with rematerialized_blocks() if remat else nullcontext():
                value, (updated, sums) = task.loss(variables, batch, key)
            return value * sums["loss"].weight, (updated, sums)

        return jax.grad(loss, has_aux=True)(params)

    def accumulated_gradient(params, collections, batch, key):
        if accumulate == 1:
            return gradient(params, collections, batch, key)
        micro_batches = jax.tree.map(lambda leaf: _split(leaf, accumulate), batch)

        first = jax.tree.map(lambda leaf: leaf[0], micro_batches)
        shapes = jax.eval_shape(gradient, params, collections, first, key)
        grads, (updated, sums) = shapes

        def body(carry, part):
            updated, total = carry
            micro_batch, index = part
            micro_key = jax.random.fold_in(key, index)
            seen = {**collections, **updated}
            grads, (updated, sums) = gradient(params, seen, micro_batch, micro_key)
            return (updated, jax.tree.map(jnp.add, total, (grads, sums))), None

        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (grads, sums))
        start = {name: collections[name] for name in updated}
        parts = (micro_batches, jnp.arange(accumulate))
        (updated, (grads, sums)), _ = lax.scan(body, (start, zeros), parts)
        return grads, (updated, sums)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.run_key, state.step)
        params = state.params
        replicated = axis_is_bound(DATA_AXIS)
        if replicated:
            key = jax.random.fold_in(key, lax.axis_index(DATA_AXIS))
            params = _varying(params)
        grads, (updated, sums) = accumulated_gradient(params, state.collections, batch, key)
        if replicated:
            grads = lax.psum(grads, DATA_AXIS)
            # Constants are left out: even a mean of equal numbers may be rounded.
            updated = {name: tree for name, tree in updated.items() if name != CONSTANTS}
            updated = lax.pmean(updated, DATA_AXIS)
            sums = metrics.reduce(sums, DATA_AXIS)
        weight = sums["loss"].weight
        weight = jnp.where(weight > 0, weight, 1)
        grads = jax.tree.map(lambda g: g / weight.astype(g.dtype), grads)

        with implicit_promotion():  # as Optax's Adam does
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None:
            t = state.step.astype(jnp.float32)
            decay = jnp.minimum(ema_decay, (1 + t) / (10 + t))
            ema = optax.incremental_update(params, ema, 1 - decay)
        ratio = _norm(updates) / _norm(state.params)
        sums = {
            **sums,
            "grad_norm": _once(_norm(grads)),
            "update_ratio": _once(ratio),
        }
        learning_rate = optax.tree.get(
            opt_state, "learning_rate", filtering=lambda _, value: isinstance(value, jax.Array)
        )
        if learning_rate is not None:
            sums["learning_rate"] = _once(learning_rate)
        state = state.replace(
            step=state.step + 1,
            params=params,
            collections={**state.collections, **updated},
            opt_state=opt_state,
            ema=ema,
        )
        return state, sums

    return step


class UpdateRule(NamedTuple):
    """A train step and the initial state of its optimizers; a GAN, for example, defines its own.

    Attributes:
        init: `init(params) -> opt_state`; any pytree, for example the states of two optimizers.
        step: `step(state, batch) -> (state, sums)`, as from `make_train_step`. Its sums include
            `loss`. Traced inside a mapped axis "batch", it takes one replica's share of the batch and
            averages over the replicas with `joined`.
    """

    init: Callable[[Any], Any]
    step: TrainStep


def usual_rule(task: Task, optimizer: optax.GradientTransformation, **options: Any) -> UpdateRule:
    """The rule of `make_train_step` with these options, and the optimizer's `init`."""
    return UpdateRule(optimizer.init, make_train_step(task, optimizer, **options))


def make_eval_step(task: Task, *, precision: str = "float32") -> EvalStep:
    """A pure `step(variables, batch) -> metric sums`, summed over a mapped axis "batch"."""
    dtype = compute_dtype(precision)

    def step(variables: Variables, batch: Batch) -> Metrics:
        variables = {**variables, "params": cast(variables["params"], dtype)}
        sums = task.metrics(task.predict(variables, batch), batch)
        return metrics.reduce(sums, DATA_AXIS) if axis_is_bound(DATA_AXIS) else sums

    return step


def joined_sums(sums: Metrics) -> Metrics:
    """The metrics of all replicas of a step together, for steps of your own."""
    return metrics.reduce(sums, DATA_AXIS) if axis_is_bound(DATA_AXIS) else sums


def joined(tree: Any) -> Any:
    """The mean of arrays over the replicas of a step, or the unchanged arrays if there are none.

    For custom steps: `joined(gradients)`, `joined(batch_stats)`; metrics are added by `joined_sums`.
    """
    if not axis_is_bound(DATA_AXIS):
        return tree
    return lax.pmean(tree, DATA_AXIS)


def _norm(tree: Any) -> jax.Array:
    """The global norm of all parameters.

    Small parameters, which are the majority, are concatenated: XLA compiles a separate sum for each
    array, and this reduces the compile time of a ResNet-50 on a CPU by a sixth.
    """
    leaves = [leaf.ravel() for leaf in jax.tree.leaves(tree)]
    small = [leaf for leaf in leaves if leaf.size <= _SMALL]
    parts = [leaf for leaf in leaves if leaf.size > _SMALL] + [jnp.concatenate(small)] * bool(small)
    return jnp.sqrt(sum(jnp.sum(jnp.square(part)) for part in parts))


def _once(value: jax.Array) -> Mean:
    """A value of the whole step, as a mean of weight 1."""
    return Mean(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))


def _split(leaf: jax.Array, parts: int) -> jax.Array:
    if len(leaf) % parts:
        raise InputError(
            f"accumulate is {parts}, which does not divide the {len(leaf)} examples of one device; "
            "choose a batch size that is a multiple of devices * accumulate"
        )
    return leaf.reshape(parts, -1, *leaf.shape[1:])


def _varying(params: Any) -> Any:
    """Marks replicated parameters as varying over replicas.

    Under `jax.shard_map`'s default `check_vma=True`, the gradient of a value that all replicas share
    is summed over them automatically; followed by our own `psum`, it would silently be N times too
    large. Marked as varying, it stays local under every mapping.
    """
    return jax.tree.map(lambda leaf: lax.pcast(leaf, DATA_AXIS, to="varying"), params)
