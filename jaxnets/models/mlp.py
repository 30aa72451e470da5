"""The multi-layer perceptron, the "traditional" network that the others are measured against.

Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors", with
ReLU in place of the sigmoid.
"""

from flax import linen as nn
from jax import Array

from jaxnets.layers import LinearHead
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import CountOrZero, Counts, Probability

PAPER = "Rumelhart et al. 1986, Nature 323"

VARIANTS = {"mlp": {"widths": (280, 280)}}


class MLP(nn.Module):
    """Hidden layers over all pixels at once.

    Attributes:
        widths: units of each hidden layer.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `fc1`, `fc2`, ...: [N, 1, 1, width], after the ReLU."""
        x, out = images.reshape(images.shape[0], 1, 1, -1), {}
        for i, width in enumerate(self.widths, start=1):
            x = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"fc{i}")(x)
            x = out[f"fc{i}"] = nn.relu(x)
        return out


def build(*, num_classes: CountOrZero = 10, widths: Counts, dropout: Probability = 0.0) -> Classifier:
    """A multi-layer perceptron for 28 x 28 gray images; initialized with others, it takes those.

    Args:
        num_classes: 0 for the last hidden layer's units.
        widths: units of each hidden layer.
        dropout: rate before the last dense layer.
    """
    return Classifier(
        backbone=MLP(widths),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(28, 28, 1),
    )
