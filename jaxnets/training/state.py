"""The state of a training run: one pytree, donated to each step and returned by it."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxnets.training.task import Batch, Task, Variables


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes.

    Attributes:
        step: i32[], steps taken.
        params: float32 parameters.
        collections: the other variables, such as `batch_stats`.
        opt_state: the optimizer's.
        ema: exponential moving average of the parameters, or None.
        key: u32[...], the raw data of the one key from which all randomness is derived.
    """

    step: jax.Array
    params: Any
    collections: dict[str, Any]
    opt_state: Any
    ema: Any
    key: jax.Array

    @property
    def variables(self) -> Variables:
        """What `task.predict` and `model.apply` take: the averaged parameters where there are any."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, **self.collections}


def create_state(
    task: Task,
    optimizer: Any,
    key: jax.Array,
    batch: Batch,
    *,
    ema: bool = False,
    variables: Variables | None = None,
) -> TrainState:
    """Makes the initial state, in one compiled program.

    Args:
        task: whose variables to draw.
        optimizer: whose state to make: anything with `init(params) -> opt_state`.
        key: the run's key.
        batch: any batch of the shape to come; only shapes matter.
        ema: keep a moving average of the parameters.
        variables: where to begin, such as pretrained ones; drawn from `key` where None.
    """
    init_key, run_key = jax.random.split(key)

    def make(init_key, run_key, variables):
        # Copied: the state's buffers are donated to its first step, and the caller's must not be.
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
