"""Network in Network. Lin, Chen and Yan 2013, "Network In Network", arXiv:1312.4400, sections 3, 4.

The paper leaves most sizes out. Those here are of the definitions that its authors published for
Caffe: the net for ImageNet (model zoo, "Network in Network ImageNet Model": 7,595,176 parameters,
the 29 MB that the zoo states) and, with `small_input=True`, the paper's net for CIFAR-10 ("Network
in Network CIFAR10 Model": 966,986 with 10 classes).

Departures from the paper: as in those definitions, the second pooling of the net for CIFAR takes
the mean, not the maximum, and poolings also take the windows that reach over the far edge; He's
initialization in place of fixed deviations of 0.01 and 0.05.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from flax import linen as nn
from jax import Array

from jaxnets.layers import ConfidenceMapHead, Conv, avg_pool, max_pool
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import CountOrZero, Probability

PAPER = "Lin et al. 2013, arXiv:1312.4400"

VARIANTS = {"nin": {}}

_halved_by_max = partial(max_pool, window=3, strides=2, ceil_mode=True)
_halved_by_mean = partial(avg_pool, window=3, strides=2, ceil_mode=True)


class _Row(NamedTuple):
    """One mlpconv layer, and what comes between it and the next."""

    conv: tuple[int, int, int, int]  # output channels, kernel size, stride, padding
    cccp: tuple[int, ...]  # output channels of each 1x1 convolution; the last of all is the head's
    pool: Callable[[Array], Array] | None = None
    dropped: bool = False


_IMAGENET = (
    _Row((96, 11, 4, 0), (96, 96), _halved_by_max),
    _Row((256, 5, 1, 2), (256, 256), _halved_by_max),
    _Row((384, 3, 1, 1), (384, 384), _halved_by_max, dropped=True),
    _Row((1024, 3, 1, 1), (1024,)),
)
_CIFAR = (
    _Row((192, 5, 1, 2), (160, 96), _halved_by_max, dropped=True),
    _Row((192, 5, 1, 2), (192, 192), _halved_by_mean, dropped=True),
    _Row((192, 3, 1, 1), (192,)),
)


class MlpConv(nn.Module):
    """A convolution, and a small perceptron over the channels of each pixel: 1x1 convolutions,
    which the paper also calls cascaded cross channel parametric pooling, `cccp1`, `cccp2`, ...
    ReLU follows each.

    Attributes:
        conv: output channels, kernel size, stride and padding of the convolution.
        cccp: output channels of the 1x1 convolutions.
    """

    conv: tuple[int, int, int, int]
    cccp: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(Conv(*self.conv, name="conv")(x))
        for i, width in enumerate(self.cccp, start=1):
            x = nn.relu(Conv(width, 1, name=f"cccp{i}")(x))
        return x


class NIN(nn.Module):
    """Mlpconv layers with poolings between them; the arguments are those of `build`."""

    small_input: bool
    dropout: float

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `mlpconv1` ... `mlpconv4` (strides 4 to 32), each before its
        pooling; with `small_input` to `mlpconv1` ... `mlpconv3` (strides 1 to 4)."""
        x, out = images, {}
        for i, row in enumerate(_CIFAR if self.small_input else _IMAGENET, start=1):
            x = out[f"mlpconv{i}"] = MlpConv(row.conv, row.cccp, name=f"mlpconv{i}")(x)
            if row.pool is not None:
                x = row.pool(x)
            if row.dropped:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return out


def build(
    *,
    num_classes: CountOrZero = 1000,
    small_input: bool = False,
    dropout: Probability = 0.5,
) -> Classifier:
    """Network in Network for 224 x 224 images; accepts any of at least 39 x 39.

    Args:
        num_classes: 0 for the mean of the last maps.
        small_input: for images of 32 x 32, down to 4 x 4: the paper's net for CIFAR.
        dropout: rate between the mlpconv layers: before the last one, and with `small_input` before
            each but the first.
    """
    side = 32 if small_input else 224
    return Classifier(
        backbone=NIN(small_input, dropout),
        head=ConfidenceMapHead(num_classes),
        num_classes=num_classes,
        input_size=(side, side, 3),
        min_size=4 if small_input else 39,
    )
