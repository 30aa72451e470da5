"""The heads that detectors have in common."""

import math
from typing import Literal

import flax.linen as nn
import jax

from jaxnets.layers import Conv, norm_layer

NORMAL = nn.initializers.normal(0.01)
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
PRIOR = -math.log((1 - 0.01) / 0.01)  # every class has a probability of 0.01 at first: Lin et al. 2017


class ConvTower(nn.Module):
    """3x3 convolutions of one width, each with a ReLU.

    Attributes:
        depth: how many.
        width: channels of each; None for those that come.
        norm: what follows each: None, "batch", "frozen" or "group".
        use_bias: whether convolutions have biases; None for those without a normalization.
        kernel_init: of the convolutions.
    """

    depth: int
    width: int | None = None
    norm: Literal[None, "batch", "frozen", "group"] = None
    use_bias: bool | None = None
    kernel_init: nn.initializers.Initializer = NORMAL

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps [N, H, W, C] to [N, H, W, width]."""
        biased = self.norm is None if self.use_bias is None else self.use_bias
        for i in range(1, self.depth + 1):
            x = Conv(
                self.width or x.shape[-1],
                3,
                padding=1,
                use_bias=biased,
                kernel_init=self.kernel_init,
                name=f"conv{i}",
            )(x)
            if self.norm is not None:
                x = norm_layer(self.norm, train)(name=f"norm{i}")(x)
            x = nn.relu(x)
        return x
