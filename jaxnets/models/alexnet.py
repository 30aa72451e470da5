"""AlexNet. Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional
Neural Networks"; and the variant of Krizhevsky 2014, "One weird trick for parallelizing
convolutional neural networks", arXiv:1404.5997, that public weights are for.

Departures from the paper: all layers in one tower unless `groups=2`; images of 224 are padded by 2,
without which the 55 x 55 maps that the paper prints are impossible; maps that are not 6 x 6 in
the end are averaged down to that, so that other images fit too; He's initialization.
"""

from flax import linen as nn
from jax import Array

from jaxnets.layers import Conv, MLPHead, local_response_norm, max_pool
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Probability

PAPER = "Krizhevsky et al. 2012, NIPS 25"

VARIANTS = {
    "alexnet": {"widths": (96, 256, 384, 384, 256), "lrn": True},
    "alexnet_owt": {"widths": (64, 192, 384, 256, 256), "lrn": False, "dropout_first": True},
}

WEIGHTS = {
    "alexnet_owt": (published.torchvision("alexnet-owt-7be5be79.pth", "alexnet", 56.52),),
}

RENAMES = {
    "torchvision": (
        ("backbone/conv1", "features.0"),
        ("backbone/conv2", "features.3"),
        ("backbone/conv3", "features.6"),
        ("backbone/conv4", "features.8"),
        ("backbone/conv5", "features.10"),
        ("head/fc1", "classifier.1", "(h6 w6 c) o -> o (c h6 w6)"),
        ("head/fc2", "classifier.4"),
        ("head/fc3", "classifier.6"),
    )
}


class AlexNet(nn.Module):
    """The five convolutions of AlexNet.

    Attributes:
        widths: output channels of each convolution.
        lrn: whether local response normalization follows the first two.
        groups: in how many groups of channels convolutions 2, 4 and 5 are cut.
    """

    widths: tuple[int, int, int, int, int]
    lrn: bool
    groups: int

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1`, `pool1`, `conv2`, `pool2`, `conv3`, `conv4`, `conv5`,
        `pool5`; convolutions after their ReLU. At 224 x 224: 55, 27, 27, 13, 13, 13, 13, 6."""
        w1, w2, w3, w4, w5 = self.widths
        x, out = images, {}
        x = out["conv1"] = nn.relu(Conv(w1, 11, strides=4, padding=2, name="conv1")(x))
        x = out["pool1"] = max_pool(self._normalized(x), 3, strides=2)
        x = out["conv2"] = nn.relu(Conv(w2, 5, padding=2, groups=self.groups, name="conv2")(x))
        x = out["pool2"] = max_pool(self._normalized(x), 3, strides=2)
        x = out["conv3"] = nn.relu(Conv(w3, 3, padding=1, name="conv3")(x))
        x = out["conv4"] = nn.relu(Conv(w4, 3, padding=1, groups=self.groups, name="conv4")(x))
        x = out["conv5"] = nn.relu(Conv(w5, 3, padding=1, groups=self.groups, name="conv5")(x))
        out["pool5"] = max_pool(x, 3, strides=2)
        return out

    def _normalized(self, x: Array) -> Array:
        # The paper's alpha of 1e-4 weighs the sum over 5 channels; ours weighs their mean.
        return local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0) if self.lrn else x


def build(
    *,
    num_classes: CountOrZero = 1000,
    widths: tuple[Count, Count, Count, Count, Count],
    lrn: bool,
    groups: Count = 1,
    dropout: Probability = 0.5,
    dropout_first: bool = False,
) -> Classifier:
    """AlexNet for 224 x 224 images; accepts any of at least 63 x 63.

    Args:
        num_classes: 0 for the 4096 units of the last hidden layer.
        widths: output channels of the five convolutions.
        lrn: whether local response normalization follows the first two convolutions.
        groups: 2 for the paper's split of convolutions 2, 4 and 5 over two GPUs.
        dropout: rate around the hidden dense layers.
        dropout_first: whether dropout comes before each of them and not after.
    """
    return Classifier(
        backbone=AlexNet(widths, lrn, groups),
        head=MLPHead((4096, 4096), num_classes, dropout, pool_size=6, dropout_first=dropout_first),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=63,
    )
