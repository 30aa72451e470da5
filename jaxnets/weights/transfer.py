"""Transfer learning: frozen parameters and layer-wise learning rate decay.

    frozen = jaxnets.weights.freeze_mask(model, "stage4")
    optimizer = optax.selective_transform(optax.adamw(1e-3), freeze_mask=frozen)

    optimizer = optax.chain(optax.adamw(1e-3), jaxnets.weights.layerwise_decay(model, 0.7))

The parts of a backbone are taken in the order in which it calls them, in every family. The running
statistics of batch normalization are not parameters: they follow the new images in frozen parts too.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from jaxnets.errors import InputError, unknown_name
from jaxnets.weights.conversion import Variables, abstract_leaves

HEAD = "head"


def freeze_mask(model: nn.Module, first: str = HEAD) -> Variables:
    """A mask of the parameters to freeze: those before the first part that is trained.

    Args:
        model: of `jaxnets.create_model` or `load_pretrained`.
        first: the first part to train: "head" for the heads alone; a part of the backbone, such as
            "stage3_block2"; or the beginning of the names of several, such as "stage3". All parts after
            it are trained too.

    Returns:
        A tree of bools with the structure of the parameters, True where frozen, for
        `optax.selective_transform(..., freeze_mask=...)`.

    Raises:
        InputError: the backbone has no such part.
    """
    parts = backbone_parts(model)
    if first == HEAD:
        start = len(parts)
    else:
        matches = [i for i, part in enumerate(parts) if _belongs(part, first)]
        if not matches:
            raise unknown_name(f"part of {model.model_name}", first, (*parts, HEAD))
        start = matches[0]
    frozen = parts[:start]
    return _tree(model, lambda path: path[0] == "backbone" and path[1] in frozen)


def layerwise_decay(model: nn.Module, decay: float) -> optax.GradientTransformation:
    """Scales updates by decay ** depth: depth is 0 in the heads, 1 in the last part of the backbone, and
    so on to its first.

    Chain it after the optimizer, so that weight decay is scaled too. It works inside and outside of
    `optax.selective_transform`.

    Howard and Ruder 2018, arXiv:1801.06146, section 3.2; Clark et al. 2020, arXiv:2003.10555, appendix
    A.

    Args:
        model: as for `freeze_mask`.
        decay: in (0, 1]; 0.65 to 0.9 is usual.

    Raises:
        InputError: `decay` is out of range.
    """
    if not 0 < decay <= 1:
        raise InputError(f"decay is {decay}; it must be above 0 and at most 1")
    parts = backbone_parts(model)
    depth = {part: len(parts) - i for i, part in enumerate(parts)}
    scales = _tree(model, lambda path: decay ** depth[path[1]] if path[0] == "backbone" else 1.0)

    def masked(update) -> bool:  # left out by optax.masked or selective_transform
        return isinstance(update, optax.MaskedNode)

    def scaled(updates, params):
        del params
        return jax.tree.map(
            lambda update, scale: update if masked(update) else scale * update,
            updates,
            scales,
            is_leaf=masked,
        )

    return optax.stateless(scaled)


@functools.cache
def backbone_parts(model: nn.Module) -> tuple[str, ...]:
    """The parts of a backbone that have parameters, in the order in which it calls them."""
    parts = []

    def initialize() -> None:
        images = jnp.zeros((1, *model.input_size))
        # Flax's own `init` lists modules as they are called; a tree that has been through JAX, as that
        # of the model's `init` has, is sorted by name.
        variables = nn.Module.init(model, jax.random.key(0), images)
        parts.extend(variables["params"]["backbone"])

    jax.eval_shape(initialize)
    return tuple(parts)


def _belongs(part: str, name: str) -> bool:
    """Whether a part has this name, or a name that begins so; "block1" does not begin "block10"."""
    return part.startswith(name) and not (part[len(name) :][:1].isdigit() and name[-1:].isdigit())


def _tree(model: nn.Module, value) -> Variables:
    """A tree with the structure of the parameters, of a function of their paths."""
    paths = (path[1:] for path, _ in abstract_leaves(model) if path[0] == "params")
    return unflatten_dict({path: value(path) for path in paths})
