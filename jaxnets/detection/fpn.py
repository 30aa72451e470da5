"""Feature pyramids. Lin et al. 2017, "Feature Pyramid Networks for Object Detection",
arXiv:1612.03144."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax

from jaxnets.layers import Conv, norm_layer, resize_nearest

TOPS = ("pool", "convs", "convs_of_last")

_UNIFORM = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class FPN(nn.Module):
    """Maps of one width from those of a backbone: each is added to the coarser one, enlarged (figure 3).

    Attributes:
        channels: of every map.
        top: coarser maps on top of the last: "pool", one of every second place (section 4.1's footnote);
            "convs", two by 3x3 convolutions of stride 2 of the last map (Lin et al. 2017,
            arXiv:1708.02002, section 4); "convs_of_last", the same of the backbone's last map.
        norm: None for biases, or "batch", "frozen" or "group".
    """

    channels: int = 256
    top: Literal[TOPS] = "pool"
    norm: str | None = None

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], train: bool = False) -> list[jax.Array]:
        """Maps [N, h, w, c] from fine to coarse to [N, h, w, channels] of the same sizes, and those of
        the top."""

        def conv(x: jax.Array, kernel: int, name: str) -> jax.Array:
            settings = {"padding": kernel // 2, "kernel_init": _UNIFORM, "use_bias": self.norm is None}
            x = Conv(self.channels, kernel, name=f"{name}_conv", **settings)(x)
            return x if self.norm is None else norm_layer(self.norm, train)(name=f"{name}_bn")(x)

        x, out = None, []
        for level in range(len(maps), 0, -1):
            lateral = conv(maps[level - 1], 1, f"inner{level}")
            x = lateral if x is None else lateral + resize_nearest(x, lateral.shape[1:3])
            out.insert(0, conv(x, 3, f"layer{level}"))
        if self.top == "pool":
            return [*out, out[-1][:, ::2, ::2]]
        down = {"strides": 2, "padding": 1, "kernel_init": _UNIFORM}
        last = maps[-1] if self.top == "convs_of_last" else out[-1]
        p6 = Conv(self.channels, 3, name="p6", **down)(last)
        return [*out, p6, Conv(self.channels, 3, name="p7", **down)(nn.relu(p6))]
