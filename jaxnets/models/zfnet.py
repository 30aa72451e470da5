"""ZFNet. Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks",
arXiv:1311.2901, figure 3; by default with upper convolutions of 512, 1024 and 512 channels, as in
their later nets (table 2, "512,1024,512 maps"), for which `widths=(384, 384, 256)` gives those of
the figure.

Departures from the paper: images are padded by 1, without which the 110 x 110 maps that it prints
are impossible; the max-pools also take the windows that reach over the far edge, which gives its
55 and 13; its "contrast normalization" is AlexNet's local response normalization, with the same
constants; maps that are not 6 x 6 in the end are averaged down to that, so that other images fit
too; He's initialization in place of a fixed 0.01.
"""

from flax import linen as nn
from jax import Array

from jaxnets.layers import Conv, MLPHead, local_response_norm, max_pool
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Probability

PAPER = "Zeiler and Fergus 2013, arXiv:1311.2901"

VARIANTS = {"zfnet": {}}


class ZFNet(nn.Module):
    """The five convolutions of ZFNet.

    Attributes:
        widths: output channels of convolutions 3, 4 and 5.
    """

    widths: tuple[int, int, int]

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1`, `pool1`, `conv2`, `pool2`, `conv3`, `conv4`, `conv5`,
        `pool5`; convolutions after their ReLU. At 224 x 224: 110, 55, 26, 13, 13, 13, 13, 6."""
        x, out = images, {}
        x = out["conv1"] = nn.relu(Conv(96, 7, strides=2, padding=1, name="conv1")(x))
        x = out["pool1"] = max_pool(x, 3, strides=2, ceil_mode=True)
        x = out["conv2"] = nn.relu(Conv(256, 5, strides=2, name="conv2")(_normalized(x)))
        x = out["pool2"] = max_pool(x, 3, strides=2, ceil_mode=True)
        x = _normalized(x)
        for layer, width in enumerate(self.widths, start=3):
            x = nn.relu(Conv(width, 3, padding=1, name=f"conv{layer}")(x))
            out[f"conv{layer}"] = x
        out["pool5"] = max_pool(x, 3, strides=2, ceil_mode=True)
        return out


def _normalized(x: Array) -> Array:
    # AlexNet's paper has an alpha of 1e-4 for the sum over 5 channels; ours weighs their mean.
    return local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0)


def build(
    *,
    num_classes: CountOrZero = 1000,
    widths: tuple[Count, Count, Count] = (512, 1024, 512),
    dropout: Probability = 0.5,
) -> Classifier:
    """ZFNet for 224 x 224 images; accepts any of at least 47 x 47.

    Args:
        num_classes: 0 for the 4096 units of the last hidden layer.
        widths: output channels of convolutions 3, 4 and 5.
        dropout: rate after each hidden dense layer.
    """
    return Classifier(
        backbone=ZFNet(widths),
        head=MLPHead((4096, 4096), num_classes, dropout, pool_size=6),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=47,
    )
