"""SqueezeNet. Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
and <0.5MB model size", arXiv:1602.07360, table 1; and the cheaper version 1.1 of its authors.

Departures from the paper: as in torchvision and in the released nets, the first convolution has no
padding, and the max-pools also take the windows that reach over the far edge. Kernels are drawn by
He's rule, those of the last layer from a normal distribution of standard deviation 0.01.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import ConfidenceMapHead, Conv, max_pool
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, Probability

PAPER = "Iandola et al. 2016, arXiv:1602.07360"

VARIANTS = {
    "squeezenet1_0": {"stem_width": 96, "stem_kernel": 7, "pooled": (1, 4, 8)},
    "squeezenet1_1": {"stem_width": 64, "stem_kernel": 3, "pooled": (1, 3, 5)},
}

WEIGHTS = {
    "squeezenet1_0": (published.torchvision("squeezenet1_0-b66bff10.pth", "squeezenet1_0", 58.09),),
    "squeezenet1_1": (published.torchvision("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1", 58.18),),
}

_LAST_INIT = nn.initializers.normal(0.01)
_SQUEEZE = (16, 16, 32, 32, 48, 48, 64, 64)  # channels of fire2 ... fire9 between their layers


class Fire(nn.Module):
    """A 1x1 convolution that squeezes, then a 1x1 and a 3x3 that expand, side by side.

    Attributes:
        squeeze: channels of the first; each of the others has four times as many.
    """

    squeeze: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [N, H, W, C] to [N, H, W, 8 * squeeze]."""
        expand = 4 * self.squeeze
        x = nn.relu(Conv(self.squeeze, 1, name="squeeze")(x))
        ones = nn.relu(Conv(expand, 1, name="expand1x1")(x))
        threes = nn.relu(Conv(expand, 3, padding=1, name="expand3x3")(x))
        return jnp.concatenate([ones, threes], axis=-1)


class SqueezeNet(nn.Module):
    """A convolution and eight fire modules.

    Attributes:
        stem_width: channels of the convolution.
        stem_kernel: its kernel size; its stride is 2.
        pooled: after which layers the maps are halved; the convolution is layer 1.
    """

    stem_width: int
    stem_kernel: int
    pooled: tuple[int, ...]

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1` and `fire2` ... `fire9`, each before its max-pool (strides 2
        to 16)."""
        out = {}
        x = Conv(self.stem_width, self.stem_kernel, strides=2, name="conv1")(images)
        x = out["conv1"] = nn.relu(x)
        for layer, squeeze in enumerate(_SQUEEZE, start=2):
            if layer - 1 in self.pooled:
                x = max_pool(x, 3, strides=2, ceil_mode=True)
            x = out[f"fire{layer}"] = Fire(squeeze, name=f"fire{layer}")(x)
        return out


def build(
    *,
    num_classes: CountOrZero = 1000,
    stem_width: Count,
    stem_kernel: Count,
    pooled: Counts,
    dropout: Probability = 0.5,
) -> Classifier:
    """A SqueezeNet for 224 x 224 images; accepts any of at least 21 x 21 (version 1.1: 17 x 17).

    Args:
        num_classes: 0 for the mean of the last maps.
        stem_width: channels of the first convolution.
        stem_kernel: its kernel size.
        pooled: after which layers (1 to 8) a max-pool halves the maps.
        dropout: rate before the last layer, a convolution whose maps are averaged.

    Raises:
        InputError: there is no such layer to pool after.
    """
    if max(pooled) > len(_SQUEEZE):
        raise InputError(f"pooled: wanted layers from 1 to {len(_SQUEEZE)}, got {pooled}")
    halvings = len(set(pooled))
    return Classifier(
        backbone=SqueezeNet(stem_width, stem_kernel, pooled),
        head=ConfidenceMapHead(num_classes, dropout, _LAST_INIT),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=stem_kernel + 2 * (2**halvings - 1),
    )


def _torchvision(model: Classifier) -> list[tuple[str, ...]]:
    """Convolution, ReLU, fire modules and max-pools are numbered through there."""
    rules = [("backbone/conv1", "features.0")]
    position = 2
    for layer in range(2, len(_SQUEEZE) + 2):
        position += layer - 1 in model.backbone.pooled
        rules.append((f"backbone/fire{layer}/{{conv}}", f"features.{position}.{{conv}}"))
        position += 1
    return [*rules, ("head/fc", "classifier.1", "i o -> o i 1 1")]


RENAMES = {"torchvision": _torchvision}
