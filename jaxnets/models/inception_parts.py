"""What the Inception family is built of: a convolution with its norm, and chains side by side.

An Inception module is written as data, the way its paper draws it: a tuple of chains, each a tuple
of steps from the bottom up. All chains read the module's input and their outputs are
concatenated along the channels, in order.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import BatchNorm, Conv, same_padding


class ConvUnit(nn.Module):
    """A convolution (`conv`, He normal), batch normalization (`bn`) and ReLU.

    Attributes:
        features: output channels.
        kernel_size: an int, or (height, width).
        strides: of the convolution.
        padding: as for `Conv`; by default that which keeps the size at stride 1.
        use_bias: whether the convolution has one.
        epsilon: of the norm; None for a unit without it.
    """

    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: int | str | None = None
    use_bias: bool = False
    epsilon: float | None = 1e-3

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, H', W', features]."""
        padding = same_padding(self.kernel_size) if self.padding is None else self.padding
        x = Conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=padding,
            use_bias=self.use_bias,
            name="conv",
        )(x)
        if self.epsilon is not None:
            x = BatchNorm(use_running_average=not train, epsilon=self.epsilon, name="bn")(x)
        return nn.relu(x)


class Layer(NamedTuple):
    """A convolution of a chain: its name in the parameter tree and what `ConvUnit` takes."""

    name: str
    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: int | str | None = None


Pool = Callable[[Array], Array]
Step = Layer | Pool | tuple[Layer, ...]  # a tuple of layers is a fork: side by side, then concatenated
Chains = tuple[tuple[Step, ...], ...]

Unit = Callable[..., ConvUnit]


def branches(x: Array, train: bool, chains: Chains, unit: Unit = ConvUnit) -> Array:
    """Runs the chains of an Inception module, from within a compact module.

    Args:
        x: [N, H, W, C].
        train: as for a backbone.
        chains: each must bring the maps to the same size; an empty one passes them through.
        unit: what makes a layer: `ConvUnit` with the net's settings bound.

    Returns:
        [N, H', W', the sum of the chains' channels].
    """

    def run(x: Array, step: Step) -> Array:
        if isinstance(step, Layer):
            name, *settings = step
            return unit(*settings, name=name)(x, train)
        if isinstance(step, tuple):
            return jnp.concatenate([run(x, layer) for layer in step], axis=-1)
        return step(x)

    outs = []
    for chain in chains:
        y = x
        for step in chain:
            y = run(y, step)
        outs.append(y)
    return jnp.concatenate(outs, axis=-1)


class Inception(nn.Module):
    """An Inception module: chains of layers side by side (see `branches`)."""

    chains: Chains
    unit: Unit = ConvUnit

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, H', W', the sum of the chains' channels]."""
        return branches(x, train, self.chains, self.unit)


def timm_names(chains: Chains) -> dict[str, str]:
    """What timm calls the layers of a module, by their names here.

    It numbers the chains (`branch0`) and, in chains of several steps, those (`branch1.0`); chains
    with a fork are no sequences there (`branch1_0`, `branch1_1a`, `branch1_1b`).
    """
    names = {}
    for number, chain in enumerate(chains):
        forked = not all(isinstance(step, Layer) or callable(step) for step in chain)
        for position, step in enumerate(chain):
            name = f"branch{number}"
            if len(chain) > 1:
                name += f"_{position}" if forked else f".{position}"
            if isinstance(step, Layer):
                names[step.name] = name
            elif isinstance(step, tuple):
                names |= {layer.name: name + side for layer, side in zip(step, "ab", strict=True)}
    return names


def layer_names(chains: Chains) -> list[str]:
    """The names of a module's layers in order."""
    names = []
    for step in (step for chain in chains for step in chain):
        if isinstance(step, Layer):
            names.append(step.name)
        elif isinstance(step, tuple):
            names += [layer.name for layer in step]
    return names


def keras_numbers(units: Sequence[str]) -> list[tuple[str, str]]:
    """The rules for units, by their paths in the backbone and in order, that have no names in Keras."""
    return [
        (f"backbone/{unit}/{ours}", f"{theirs}_{number}" if number else theirs)
        for number, unit in enumerate(units)
        for ours, theirs in (("conv", "conv2d"), ("bn", "batch_normalization"))
    ]


def check_auxiliary(aux: bool, num_classes: int) -> None:
    """Raises InputError for auxiliary classifiers without classes."""
    if aux and num_classes == 0:
        raise InputError(
            "aux: auxiliary classifiers need classes and num_classes is 0; give the number of "
            "classes, or leave aux out"
        )


def check_auxiliary_maps(x: Array, side: int, image_side: int) -> None:
    """Raises InputError for maps [N, H, W, C] too small for an auxiliary classifier."""
    if min(x.shape[1:3]) < side:
        raise InputError(
            f"images: the auxiliary classifier takes at least {image_side} x {image_side} pixels "
            f"(maps of {side} x {side}), got maps of {x.shape[1]} x {x.shape[2]}; give larger "
            "images, or make the model with aux=False"
        )
