"""Activations. JAX's own where it has them; here are those with parameters or several inputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import elu, glu, leaky_relu, relu, relu6, sigmoid, tanh

from jaxnets.errors import InputError
from jaxnets.layers.geometry import over_channels

__all__ = [
    "PReLU",
    "elu",
    "glu",
    "leaky_relu",
    "maxout",
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
]


class PReLU(nn.Module):
    """max(0, x) + alpha min(0, x) with a learned slope (He et al. 2015, section 2.1).

    Parameter `alpha`, f32[C], or f32[1] when shared. (Flax's PReLU has one scalar,
    `negative_slope`, starting at 0.01.)

    Attributes:
        shared: one slope for all channels, torch's default, instead of one for each, the paper's.
        init_value: the slopes at first; 0.25 in the paper and in torch.
    """

    shared: bool = False
    init_value: float = 0.25

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., C] to [..., C]."""
        shape = (1 if self.shared else x.shape[-1],)
        alpha = self.param("alpha", nn.initializers.constant(self.init_value), shape, jnp.float32)
        return jnp.where(x > 0, x, x * over_channels(alpha.astype(x.dtype), x))


def maxout(x: jax.Array, pieces: int) -> jax.Array:
    """The largest of each `pieces` consecutive channels: [..., C] to [..., C / pieces].

    Goodfellow et al. 2013, "Maxout Networks", section 3: the layer before gives `pieces` linear
    functions for each output unit.

    Raises:
        InputError: pieces do not divide the channels.
    """
    channels = x.shape[-1]
    if pieces < 1 or channels % pieces:
        raise InputError(f"pieces {pieces} do not divide the {channels} channels; give a divisor")
    return jnp.max(x.reshape(*x.shape[:-1], channels // pieces, pieces), axis=-1)
