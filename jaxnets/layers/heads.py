"""Heads: from the last feature map to logits, f32[N, num_classes].

`num_classes=0` leaves out the last layer and returns what would have been its input.
"""

import flax.linen as nn
import jax

from jaxnets.dtypes import at_least_float32
from jaxnets.layers.geometry import Pair
from jaxnets.layers.pooling import adaptive_avg_pool, global_avg_pool


class LinearHead(nn.Module):
    """Global average pooling, dropout, and a dense layer `fc` (LeCun normal).

    Attributes:
        num_classes: 0 for the pooled features [N, C].
        dropout: the rate in training.
    """

    num_classes: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
        """Maps [N, H, W, C] to f32[N, num_classes]; InputError as for `global_avg_pool`."""
        x = global_avg_pool(features)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return at_least_float32(nn.Dense(self.num_classes, name="fc")(x))


class ConfidenceMapHead(nn.Module):
    """Dropout, a map of scores for each class, ReLU, and the mean of each map.

    Lin et al. 2013, "Network in Network", section 3.2; the classifier of NIN and SqueezeNet. The
    dense layer `fc` is the same at each pixel: a 1x1 convolution, stored as a matrix [C, K].

    Attributes:
        num_classes: 0 for the pooled features [N, C].
        dropout: the rate in training.
        kernel_init: of `fc`.
    """

    num_classes: int
    dropout: float = 0.0
    kernel_init: jax.nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
        """Maps [N, H, W, C] to f32[N, num_classes]; InputError as for `global_avg_pool`."""
        if self.num_classes == 0:
            return global_avg_pool(features)
        x = nn.Dropout(self.dropout, deterministic=not train)(features)
        x = nn.relu(nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="fc")(x))
        return global_avg_pool(at_least_float32(x))


class MLPHead(nn.Module):
    """The dense layers of AlexNet and VGG: `fc1`, `fc2`, ... with ReLU and dropout between them.

    The features are flattened in the order (H, W, C); a reference that keeps channels first
    flattens (C, H, W), so the rows of its first weight must be put in order. Hidden layers start as
    He normal, the last one as LeCun normal.

    Attributes:
        widths: of the hidden layers.
        num_classes: of the last layer; 0 for the last hidden activations [N, widths[-1]].
        dropout: the rate in training.
        pool_size: averages the features over so many bins first (see `adaptive_avg_pool`), which
            lets images of any size in.
        dropout_first: dropout before each hidden layer, as in torchvision's AlexNet, instead of
            after its ReLU, as in VGG.
    """

    widths: tuple[int, ...]
    num_classes: int
    dropout: float = 0.0
    pool_size: int | Pair | None = None
    dropout_first: bool = False

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
        """Maps [N, ...] ([N, H, W, C] where there is a pool_size) to f32[N, num_classes].

        Raises:
            InputError: as for `adaptive_avg_pool`.
        """
        x = features if self.pool_size is None else adaptive_avg_pool(features, self.pool_size)
        x = x.reshape(x.shape[0], -1)

        def drop(x: jax.Array) -> jax.Array:
            return nn.Dropout(self.dropout, deterministic=not train)(x)

        for layer, width in enumerate(self.widths, start=1):
            if self.dropout_first:
                x = drop(x)
            dense = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"fc{layer}")
            x = nn.relu(dense(x))
            if not self.dropout_first:
                x = drop(x)
        if self.num_classes == 0:
            return x
        last = nn.Dense(self.num_classes, name=f"fc{len(self.widths) + 1}")
        return at_least_float32(last(x))
