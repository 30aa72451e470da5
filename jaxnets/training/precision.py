"""Mixed precision by casting the parameters.

Flax layers whose `dtype` is None compute in the dtype of their inputs. It is therefore enough to cast
the parameters inside the loss (a task casts its images to match): matrix products run in bfloat16,
while the optimizer keeps float32 parameters, batch statistics stay float32 and logits are returned as
float32. bfloat16 has the exponent range of float32, so the loss needs no scaling.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.dtypes import at_least_float32
from jaxnets.errors import unknown_name

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype that "float32" or "bfloat16" stands for."""
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    return PRECISIONS[name]


def cast(tree: Any, dtype: jnp.dtype) -> Any:
    """Casts the floating-point leaves of a tree; gradients through it have the original dtype.

    To float32, float64 leaves are left alone: who has them wants more than float32, not less.
    """

    def cast_leaf(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return at_least_float32(leaf) if dtype == jnp.float32 else leaf.astype(dtype)

    return jax.tree.map(cast_leaf, tree)
