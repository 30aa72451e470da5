"""The heads of detectors: towers of convolutions, and what is made of the features of regions."""

import math
from typing import Literal

import flax.linen as nn
from jax import Array

from jaxnets.layers import Conv, ConvTranspose, norm_layer

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
    def __call__(self, x: Array, train: bool = False) -> Array:
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


class BoxHead(nn.Module):
    """A vector for each region: two dense layers, or four convolutions and a dense layer.

    Attributes:
        hidden: units of a dense layer.
        convs: 3x3 convolutions before them, with batch normalization; with any there is one layer.
    """

    hidden: int = 1024
    convs: int = 0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps regions [R, 7, 7, C] to [R, hidden]."""
        if self.convs:
            settings = {"norm": "batch", "kernel_init": HE_FAN_OUT}
            x = ConvTower(self.convs, name="tower", **settings)(x, train)
        x = nn.relu(nn.Dense(self.hidden, name="fc6")(x.reshape(x.shape[0], -1)))
        return x if self.convs else nn.relu(nn.Dense(self.hidden, name="fc7")(x))


class BoxPredictor(nn.Module):
    """Logits of each class, the background first, and its own regression outputs."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps [R, C] to [R, K] and [R, K, 4]."""
        k = self.num_classes
        logits = nn.Dense(k, kernel_init=nn.initializers.normal(0.01), name="cls_score")(x)
        deltas = nn.Dense(4 * k, kernel_init=nn.initializers.normal(0.001), name="bbox_pred")(x)
        return logits, deltas.reshape(x.shape[0], k, 4)


class MaskHead(nn.Module):
    """Logits of a mask for each class of each region (He et al. 2017, figure 4, right).

    Attributes:
        num_classes: masks of each region.
        norm: of the four convolutions; None for biases.
    """

    num_classes: int
    norm: Literal[None, "batch"] = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps regions [R, 14, 14, C] to [R, 28, 28, K]."""
        x = ConvTower(4, norm=self.norm, kernel_init=HE_FAN_OUT, name="tower")(x, train)
        x = nn.relu(ConvTranspose(x.shape[-1], 2, strides=2, name="conv5_mask")(x))
        return Conv(self.num_classes, 1, kernel_init=HE_FAN_OUT, name="mask_fcn_logits")(x)
