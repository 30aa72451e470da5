"""The state of a training run: a single pytree, donated to each step and returned by it."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxnets.errors import InputError
from jaxnets.training.optimizers import evaluation_params
from jaxnets.training.task import Batch, Task, Variables

_KEY_SIZES = {"threefry2x32": 2, "rbg": 4, "unsafe_rbg": 4}  # u32 numbers in a key of JAX's kinds


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes.

    Attributes:
        step: i32[], number of steps taken.
        params: float32 parameters.
        collections: the other variables, such as `batch_stats`.
        opt_state: the optimizer state.
        ema: exponential moving average of the parameters, or None.
        key: u32[...], raw data of the single PRNG key from which all randomness is derived.
    """

    step: jax.Array
    params: Any
    collections: dict[str, Any]
    opt_state: Any
    ema: Any
    key: jax.Array

    @property
    def variables(self) -> Variables:
        """The variables for `task.predict` and `model.apply`, with averaged parameters if available."""
        params = evaluation_params(self.params, self.opt_state) if self.ema is None else self.ema
        return {"params": params, **self.collections}

    @property
    def run_key(self) -> jax.Array:
        """The key itself, of the kind that its data is of, whatever `jax_default_prng_impl` is now."""
        return jax.random.wrap_key_data(self.key, impl=_kind_of(self.key))


def create_state(
    task: Task,
    optimizer: Any,
    key: jax.Array,
    batch: Batch,
    *,
    ema: bool = False,
    variables: Variables | None = None,
) -> TrainState:
    """Creates the initial state, in one compiled program.

    Args:
        task: the task whose variables to initialize.
        optimizer: anything with `init(params) -> opt_state`.
        key: the PRNG key of the run.
        batch: any batch with the shapes of the training batches; its values do not matter.
        ema: keep an exponential moving average of the parameters.
        variables: initial variables, such as pretrained ones; None to draw them from `key`.

    Raises:
        InputError: a key of a kind that its data does not tell, such as "unsafe_rbg" where that is not
            `jax_default_prng_impl`.
    """
    init_key, run_key = jax.random.split(key)
    kind = str(jax.random.key_impl(run_key))
    if kind != _kind_of(jax.random.key_data(run_key)):
        raise InputError(
            f"key is of the kind {kind!r}; set jax_default_prng_impl to it, or give a key of "
            f"{jax.config.jax_default_prng_impl!r}"
        )

    def make(init_key, run_key, variables):
        # Copied, because the state's buffers are donated to its first step; the caller's must not be.
        drawn = task.init(init_key, batch) if variables is None else variables
        collections = jax.tree.map(jnp.copy, dict(drawn))
        params = collections.pop("params")
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            collections=collections,
            opt_state=optimizer.init(params),
            ema=jax.tree.map(jnp.copy, params) if ema else None,
            key=jax.random.key_data(run_key),
        )

    return jax.jit(make)(init_key, run_key, variables)


def _kind_of(data: jax.Array) -> str:
    """JAX's name for the kind of a key, by its data u32[..., size]: the default kind if it fits."""
    kinds = (jax.config.jax_default_prng_impl, *_KEY_SIZES)
    fitting = [kind for kind in kinds if _KEY_SIZES.get(kind) == data.shape[-1]]
    return fitting[0] if fitting else jax.config.jax_default_prng_impl
