"""LeNet-5. LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document
Recognition", section II.B.

In its modern form: ReLU for the scaled tanh, plain max pooling for subsampling with trained
coefficients, all maps of the first pooling connected to all of the second convolution (the paper's
C3 leaves some out, its table I), and a dense layer for the radial basis functions at the end.
"""

from flax import linen as nn
from jax import Array

from jaxnets.layers import Conv, MLPHead, max_pool
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import CountOrZero, Probability

PAPER = "LeCun et al. 1998, Proc. IEEE 86(11)"

VARIANTS = {"lenet5": {}}


class LeNet(nn.Module):
    """The convolutional part of LeNet-5."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, 32, 32, C] to `conv1`, `pool1`, `conv2`, `pool2`: the paper's C1, S2, C3, S4."""
        x, out = images, {}
        x = out["conv1"] = nn.relu(Conv(6, 5, name="conv1")(x))
        x = out["pool1"] = max_pool(x, 2)
        x = out["conv2"] = nn.relu(Conv(16, 5, name="conv2")(x))
        out["pool2"] = max_pool(x, 2)
        return out


def build(*, num_classes: CountOrZero = 10, dropout: Probability = 0.0) -> Classifier:
    """LeNet-5 for 32 x 32 images; its first dense layer (the paper's C5) fits no other size.

    Args:
        num_classes: 0 for the 84 units of the last hidden layer (F6).
        dropout: rate after each hidden dense layer; the paper has none.
    """
    return Classifier(
        backbone=LeNet(),
        head=MLPHead((120, 84), num_classes, dropout),
        num_classes=num_classes,
        input_size=(32, 32, 1),
        min_size=32,
        max_size=32,
    )
