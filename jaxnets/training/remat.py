"""Rematerialization: blocks of a backbone that are computed again in the backward pass."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
from flax import linen as nn

_LAYERS = ("flax.", "jaxnets.layers.")  # whose modules are too small to be worth it


def rematerialized_blocks() -> AbstractContextManager:
    """While it is entered, models that are applied keep the inputs of their blocks for the backward
    pass, and compute what is inside of them again (Chen et al. 2016, arXiv:1604.06174).

    Blocks are the parts of a module called `backbone`, but for single layers: a residual block, an
    Inception module, a dense layer of a DenseNet. A plain stack of layers, as AlexNet and VGG are, has
    none. Results are the same. XLA's compiler for CPUs takes most of the recomputation away again.
    """
    inside = []

    def intercept(call: Callable, args: Sequence[Any], kwargs: Mapping[str, Any], context: Any) -> Any:
        if inside or not _is_block(context):
            return call(*args, **kwargs)
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

        def block(module: nn.Module, *arrays: jax.Array) -> Any:
            given = iter(arrays)  # in place of those it was called with; flags such as `train` stay
            filled = [next(given) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
            args, kwargs = jax.tree.unflatten(tree, filled)
            inside.append(module)
            try:
                return module(*args, **kwargs)
            finally:
                inside.pop()

        return nn.remat(block)(context.module, *arrays)

    return nn.intercept_methods(intercept)


def _is_block(context: Any) -> bool:
    module = context.module
    return (
        context.method_name == "__call__"
        and module.path[-2:-1] == ("backbone",)
        and not type(module).__module__.startswith(_LAYERS)
    )
