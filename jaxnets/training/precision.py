"""Mixed precision without plumbing.

Flax layers whose `dtype` is None follow their inputs. So it is enough to cast the parameters inside
the loss (a task casts its images to match them): matrix products run in bfloat16, while the optimizer
keeps float32 parameters, batch statistics stay float32 and scores return as float32. bfloat16 has the
exponent range of float32, so that losses need no scaling.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.errors import unknown_name

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype that "float32" or "bfloat16" stands for."""
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    return PRECISIONS[name]


def cast(tree: Any, dtype: jnp.dtype) -> Any:
    """Casts the floating-point leaves of a tree; the gradient through it is in their own dtype."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
