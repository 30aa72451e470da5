"""Convolutional highway network. Srivastava, Greff and Schmidhuber 2015, "Training Very Deep
Networks", arXiv:1507.06228, sections 2 and 4; "Highway Networks", arXiv:1505.00387, table 1.

The papers describe their 19 layers for CIFAR by the likeness to FitNet 4 (Romero et al. 2014,
arXiv:1412.6550, appendix) and the size of about 2.3 million parameters. Ours has 2,342,406: three
stages of 3x3 convolutions with the channels of FitNet 4, each a highway layer but for the plain
ones that change the number of channels, as in the paper; a hidden dense layer of 500; the last.

Departures from what is known of it: ReLU, where FitNet has maxout; the last maps are averaged, so
that images of any size fit; He's initialization.
"""

from flax import linen as nn
from jax import Array

from jaxnets.layers import Conv, MLPHead, max_pool, sigmoid
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import CountOrZero, Counts, Probability

PAPER = "Srivastava et al. 2015, arXiv:1507.06228"

VARIANTS = {"highway": {"widths": ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6)}}


class HighwayLayer(nn.Module):
    """y = H(x) T(x) + x (1 - T(x)), equation 3: a gate for each unit lets H through or carries x.

    H (`block_state`) is a 3x3 convolution and ReLU, T (`transform_gate`) one and a sigmoid.

    Attributes:
        gate_bias: where the biases of the gate start; below 0 the layer mostly carries at first.
    """

    gate_bias: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [N, H, W, C] to the same shape."""
        channels = x.shape[-1]
        closed = nn.initializers.constant(self.gate_bias)
        state = nn.relu(Conv(channels, 3, padding=1, name="block_state")(x))
        gate = Conv(channels, 3, padding=1, bias_init=closed, name="transform_gate")(x)
        gate = sigmoid(gate)
        return state * gate + x * (1 - gate)


class Highway(nn.Module):
    """Stages of highway layers, with max-pools between them; the arguments are those of `build`."""

    widths: tuple[tuple[int, ...], ...]
    gate_bias: float

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stage1`, `stage2`, ... (strides 1, 2, 4), each before its
        max-pool."""
        x, out = images, {}
        before = None
        for stage, widths in enumerate(self.widths, start=1):
            if stage > 1:
                x = max_pool(x, 2)
            for layer, width in enumerate(widths, start=1):
                name = f"stage{stage}_layer{layer}"
                if width == before:
                    x = HighwayLayer(self.gate_bias, name=name)(x)
                else:
                    x = nn.relu(Conv(width, 3, padding=1, name=name)(x))
                before = width
            out[f"stage{stage}"] = x
        return out


def build(
    *,
    num_classes: CountOrZero = 10,
    widths: tuple[Counts, ...],
    gate_bias: float = -1.0,
    dropout: Probability = 0.0,
) -> Classifier:
    """A highway network for 32 x 32 images; accepts any of at least 4 x 4.

    Args:
        num_classes: 0 for the 500 units of the hidden layer.
        widths: channels of each layer of each stage. A layer that has as many as the one before is
            a highway layer.
        gate_bias: where the biases of the transform gates start, -1, -3, ... (section 2.2); the
            deeper the net, the lower.
        dropout: rate after the hidden layer; the paper has none.
    """
    return Classifier(
        backbone=Highway(widths, gate_bias),
        head=MLPHead((500,), num_classes, dropout, pool_size=1),
        num_classes=num_classes,
        input_size=(32, 32, 3),
        min_size=2 ** (len(widths) - 1),
    )
