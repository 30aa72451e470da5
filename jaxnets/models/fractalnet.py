"""FractalNet. Larsson, Maire and Shakhnarovich 2016, "FractalNet: Ultra-Deep Neural Networks
without Residuals", arXiv:1605.07648, figure 1 and section 3.

A block of C columns is the fractal f_C: f_1 is a convolution, f_(c+1) joins two f_c in a row with
one more convolution beside them. So column c has 2^(c-1) convolutions, and through 5 blocks of 4
columns the longest path has 40. The numbers of channels and the order convolution, dropout, batch
normalization, ReLU are those of the authors' published generator of the net for CIFAR, which also
pools each column before the last join of a block, not after it.

Departures: drop-path decides for each image, not for each batch; convolutions have no bias, and
batch normalization has a scale and a bias (in the generator it is the other way round). Kernels are
drawn by Xavier's rule, as in the paper.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.dtypes import at_least_float32
from jaxnets.layers import BatchNorm, Conv, LinearHead, max_pool, xavier_uniform
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, Probability, Share

PAPER = "Larsson et al. 2016, arXiv:1605.07648"

VARIANTS = {"fractalnet": {"widths": (64, 128, 256, 512, 512), "columns": 4}}


def choose_columns(key: Array, images: int, columns: int, share: float) -> Array:
    """To which column global drop-path confines each image, through the whole net.

    Args:
        key: a random key.
        images: how many.
        columns: of the net.
        share: of the images that have global drop-path.

    Returns:
        int[images]: 0 to `columns` - 1; -1 where drop-path is local.
    """
    share_key, column_key = jax.random.split(key)
    is_global = jax.random.bernoulli(share_key, share, (images,))
    return jnp.where(is_global, jax.random.randint(column_key, (images,), 0, columns), -1)


def live_columns(key: Array, chosen: Array, columns: tuple[int, ...], rate: float) -> Array:
    """Which inputs of a join are kept, for each image (section 3): one at least.

    Local drop-path drops each with the same probability; if it would drop all, one is kept.
    Global drop-path keeps the chosen column. A join that the chosen column does not reach is not on
    its path; there everything is kept.

    Args:
        key: a random key.
        chosen: int[N], as from `choose_columns`.
        columns: those that meet here.
        rate: probability that local drop-path drops an input.

    Returns:
        bool[N, len(columns)].
    """
    rate_key, spare_key = jax.random.split(key)
    shape = (len(chosen), len(columns))
    kept = jax.random.bernoulli(rate_key, 1 - rate, shape)
    spare = jax.random.randint(spare_key, shape[:1], 0, shape[1])[:, None] == jnp.arange(shape[1])[None]
    kept = jnp.where(kept.any(axis=1, keepdims=True), kept, spare)
    path = chosen[:, None] == jnp.array(columns)[None]
    path |= ~path.any(axis=1, keepdims=True)
    return jnp.where(chosen[:, None] < 0, kept, path)


def join(inputs: list[Array], live: Array | None = None) -> Array:
    """The mean of the inputs that are live, for each image.

    Args:
        inputs: J maps [N, H, W, C].
        live: bool[N, J], at least one for each image; None for all.

    Returns:
        [N, H, W, C].
    """
    if live is None:
        return sum(inputs) / len(inputs)
    live = live.astype(at_least_float32(inputs[0]).dtype)
    shares = (live / live.sum(axis=1, keepdims=True)).astype(inputs[0].dtype)
    return sum(shares[:, j, None, None, None] * x for j, x in enumerate(inputs))


class FractalBlock(nn.Module):
    """A fractal of convolutions, `column1_conv1`, ..., and a max-pool that halves the maps.

    Attributes:
        features: output channels of each convolution.
        columns: how many; the first is the shortest.
        drop_path: probability that a join drops an input.
        dropout: rate after each convolution.
    """

    features: int
    columns: int
    drop_path: float
    dropout: float

    @nn.compact
    def __call__(self, x: Array, chosen: Array | None, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, H // 2, W // 2, features]; `chosen` is of `choose_columns`, None
        for no drop-path."""
        reached = [x] * self.columns
        # Beside one convolution of column c (from 0) the last column has as many as this.
        lengths = [2 ** (self.columns - 1 - c) for c in range(self.columns)]
        for row in range(1, lengths[0] + 1):
            meeting = tuple(c for c, length in enumerate(lengths) if row % length == 0)
            for c in meeting:
                reached[c] = self._conv(reached[c], c + 1, row // lengths[c], train)
                if row == lengths[0]:
                    reached[c] = max_pool(reached[c], 2)
            if len(meeting) > 1:
                live = None
                if chosen is not None:
                    live = live_columns(self.make_rng("dropout"), chosen, meeting, self.drop_path)
                joined = join([reached[c] for c in meeting], live)
                for c in meeting:
                    reached[c] = joined
        return reached[-1]

    def _conv(self, x: Array, column: int, number: int, train: bool) -> Array:
        conv, bn = (f"column{column}_{layer}{number}" for layer in ("conv", "bn"))
        x = Conv(self.features, 3, padding=1, use_bias=False, kernel_init=xavier_uniform(), name=conv)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.relu(BatchNorm(use_running_average=not train, name=bn)(x))


class FractalNet(nn.Module):
    """Fractal blocks; the arguments are those of `build`."""

    widths: tuple[int, ...]
    columns: int
    drop_path: float
    global_share: float
    dropout: float

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `block1`, `block2`, ... (strides 2, 4, ...)."""
        chosen = None
        if train and self.drop_path > 0:
            key = self.make_rng("dropout")
            chosen = choose_columns(key, len(images), self.columns, self.global_share)
        x, out = images, {}
        for i, width in enumerate(self.widths):
            dropout = self.dropout * i / max(1, len(self.widths) - 1)
            block = FractalBlock(width, self.columns, self.drop_path, dropout, name=f"block{i + 1}")
            x = out[f"block{i + 1}"] = block(x, chosen, train)
        return out


def build(
    *,
    num_classes: CountOrZero = 10,
    widths: Counts,
    columns: Count,
    drop_path: Probability = 0.15,
    global_share: Share = 0.5,
    dropout: Probability = 0.4,
) -> Classifier:
    """A FractalNet for 32 x 32 images; with five blocks it accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        widths: channels of each block.
        columns: of each block.
        drop_path: probability that a join drops an input, for images with local drop-path; 0
            for no drop-path, not global either.
        global_share: of the images that have global drop-path in training, one column through the
            whole net; the others have local drop-path.
        dropout: rate after the convolutions of the last block; it grows linearly from 0 in the
            first one (section 4: 0, 10, 20, 30 and 40 percent).
    """
    return Classifier(
        backbone=FractalNet(widths, columns, drop_path, global_share, dropout),
        head=LinearHead(num_classes),
        num_classes=num_classes,
        input_size=(32, 32, 3),
        min_size=2 ** len(widths),
    )
