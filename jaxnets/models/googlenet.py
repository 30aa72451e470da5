"""GoogLeNet. Szegedy et al. 2014, "Going Deeper with Convolutions", arXiv:1409.4842, table 1.

`googlenet` is the net that public weights are for, torchvision's. It departs from the paper: batch
normalization (epsilon 1e-3) in place of biases and local response normalization, 3x3 in place of
5x5 convolutions, a last max-pool of 2x2, auxiliary classifiers that average over a 4 x 4 grid, and
dropout of 0.2 before the last layer. TF-Slim's "Inception v1" is this net with `tf_padding=True`.

`googlenet_paper` is the paper's. What the paper leaves open is taken from Caffe's replica: pools
that halve an even side (ceil mode) and the constants of the response normalization. Kernels of both
are drawn by He's rule, about which the paper says nothing.
"""

from functools import partial

from flax import linen as nn
from flax.core import FrozenDict
from jax import Array

from jaxnets.layers import (
    LinearHead,
    adaptive_avg_pool,
    avg_pool,
    local_response_norm,
    max_pool,
)
from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.inception_parts import (
    Chains,
    ConvUnit,
    Inception,
    Layer,
    Unit,
    check_auxiliary,
    check_auxiliary_maps,
)
from jaxnets.models.settings import Count, CountOrZero, Probability

PAPER = "Szegedy et al. 2014, arXiv:1409.4842"

VARIANTS = {
    "googlenet": {},
    "googlenet_paper": {
        "batch_norm": False,
        "lrn": True,
        "large_kernel": 5,
        "last_pool": 3,
        "aux_window": 5,
        "dropout": 0.4,
    },
}

# torchvision turns images normalized as its others are into these before its first convolution.
_AS_THE_AUTHORS = {"mean": published.HALVES, "std": published.HALVES}
WEIGHTS = {
    "googlenet": (
        published.torchvision("googlenet-1378be20.pth", "googlenet", 69.78, **_AS_THE_AUTHORS),
        published.slim(
            "inception_v1_2016_08_28.tar.gz", "inception_v1", 69.8, settings={"tf_padding": True}
        ),
    ),
}

_AUXILIARY_GRID = "(h4 w4 c) o -> o (c h4 w4)"
_TORCHVISION = (
    ("backbone/conv1/{layer}", "conv1.{layer}"),
    ("backbone/conv2_reduce/{layer}", "conv2.{layer}"),
    ("backbone/conv2/{layer}", "conv3.{layer}"),
    ("backbone/inception{module}/1x1/{layer}", "inception{module}.branch1.{layer}"),
    ("backbone/inception{module}/3x3_reduce/{layer}", "inception{module}.branch2.0.{layer}"),
    ("backbone/inception{module}/3x3/{layer}", "inception{module}.branch2.1.{layer}"),
    ("backbone/inception{module}/5x5_reduce/{layer}", "inception{module}.branch3.0.{layer}"),
    ("backbone/inception{module}/5x5/{layer}", "inception{module}.branch3.1.{layer}"),
    ("backbone/inception{module}/pool_proj/{layer}", "inception{module}.branch4.1.{layer}"),
    ("auxiliary_inception4a/fc1", "aux1.fc1", _AUXILIARY_GRID),
    ("auxiliary_inception4a/{layer}", "aux1.{layer}"),
    ("auxiliary_inception4d/fc1", "aux2.fc1", _AUXILIARY_GRID),
    ("auxiliary_inception4d/{layer}", "aux2.{layer}"),
    ("head/fc", "fc"),
)

# Table 1: the channels of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool projection.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}

_pool_keeping_size = partial(max_pool, window=3, strides=1, padding=1)


def _chains(widths: tuple[int, ...], large_kernel: int) -> Chains:
    """Figure 2b, from left to right."""
    n1x1, reduce_3x3, n3x3, reduce_5x5, n5x5, pool_proj = widths
    return (
        (Layer("1x1", n1x1, 1),),
        (Layer("3x3_reduce", reduce_3x3, 1), Layer("3x3", n3x3, 3)),
        (Layer("5x5_reduce", reduce_5x5, 1), Layer("5x5", n5x5, large_kernel)),
        (_pool_keeping_size, Layer("pool_proj", pool_proj, 1)),
    )


def _slim(model: Classifier) -> list[tuple[str, ...]]:
    """TF-Slim counts the max-pool in front of a stage, and letters modules from b on."""
    modules = {f"inception{m}": _chains(w, model.backbone.large_kernel) for m, w in MODULES.items()}
    scopes = {name: f"InceptionV1.Mixed_{name[-2]}{chr(ord(name[-1]) + 1)}" for name in modules}
    return [
        *slim_names.unit("backbone/conv1", "InceptionV1.Conv2d_1a_7x7"),
        *slim_names.unit("backbone/conv2_reduce", "InceptionV1.Conv2d_2b_1x1"),
        *slim_names.unit("backbone/conv2", "InceptionV1.Conv2d_2c_3x3"),
        *slim_names.modules(scopes, modules, {"inception5a": {"5x5": "Branch_2.Conv2d_0a_3x3"}}),
        ("auxiliary_{name}/{layer}", "InceptionV1.Aux_{name}.{layer}"),  # which TF-Slim does not have
        ("head/fc", "InceptionV1.Logits.Conv2d_0c_1x1", "i o -> o i 1 1"),
    ]


RENAMES = {"torchvision": _TORCHVISION, "slim": _slim}


class GoogLeNet(nn.Module):
    """Two plain convolutions and nine Inception modules; the arguments are those of `build`."""

    batch_norm: bool
    lrn: bool
    large_kernel: int
    last_pool: int
    tf_padding: bool

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1` (stride 2), `conv2` (4), `inception3a`, `inception3b` (8),
        `inception4a` ... `inception4e` (16) and `inception5a`, `inception5b` (32)."""
        unit = _unit(self.batch_norm)
        pool = partial(max_pool, strides=2, ceil_mode=True)
        if self.tf_padding:
            pool = partial(max_pool, strides=2, padding="SAME")
        out = {}
        padding = "SAME" if self.tf_padding else None
        x = out["conv1"] = unit(64, 7, strides=2, padding=padding, name="conv1")(images, train)
        x = self._normalized(pool(x, 3))
        x = unit(64, 1, name="conv2_reduce")(x, train)
        x = out["conv2"] = unit(192, 3, name="conv2")(x, train)
        x = pool(self._normalized(x), 3)
        for module, widths in MODULES.items():
            name = f"inception{module}"
            x = Inception(_chains(widths, self.large_kernel), unit, name=name)(x, train)
            out[name] = x
            if module == "3b":
                x = pool(x, 3)
            elif module == "4e":
                x = pool(x, self.last_pool)
        return out

    def _normalized(self, x: Array) -> Array:
        return local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0) if self.lrn else x


class AuxiliaryHead(nn.Module):
    """A classifier on the maps of 4a or 4d (section 5): average pooling to 4 x 4, a 1x1 convolution
    `conv`, and the dense layers `fc1`, with ReLU, and `fc2`.

    Attributes:
        num_classes: of `fc2`.
        batch_norm: as for the backbone.
        window: side of the windows of the average pool, 3 apart; 0 for a grid of 4 x 4 bins.
        dropout: rate before `fc2`.
    """

    num_classes: int
    batch_norm: bool
    window: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [N, H, W, C] to logits [N, num_classes].

        Raises:
            InputError: the maps are smaller than a window.
        """
        if self.window:
            check_auxiliary_maps(x, self.window, image_side=16 * self.window - 1)
            x = avg_pool(x, self.window, strides=3)  # 14 x 14 becomes 4 x 4
        x = adaptive_avg_pool(x, 4)
        x = _unit(self.batch_norm)(128, 1, name="conv")(x, train)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(1024, kernel_init=nn.initializers.he_normal(), name="fc1")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="fc2")(x)


def _unit(batch_norm: bool) -> Unit:
    return ConvUnit if batch_norm else partial(ConvUnit, use_bias=True, epsilon=None)


def build(
    *,
    num_classes: CountOrZero = 1000,
    batch_norm: bool = True,
    lrn: bool = False,
    large_kernel: Count = 3,
    last_pool: Count = 2,
    tf_padding: bool = False,
    aux: bool = False,
    aux_window: CountOrZero = 0,
    aux_dropout: Probability = 0.7,
    dropout: Probability = 0.2,
) -> Classifier:
    """GoogLeNet for 224 x 224 images; accepts any of at least 15 x 15 (with a last pool of 3x3,
    31 x 31).

    Args:
        num_classes: 0 for the mean of the last maps.
        batch_norm: whether batch normalization follows each convolution, which has no bias then.
        lrn: whether local response normalization goes before and after the second convolution.
        large_kernel: kernel size of what the paper has as 5x5 convolutions.
        last_pool: window of the last max-pool.
        tf_padding: pads as TensorFlow's "SAME" where maps are halved: those with an even side more, or
            only, below and right.
        aux: whether there are auxiliary classifiers on `inception4a` and `inception4d`.
        aux_window: side of the windows over which these average their maps, 3 apart, as in the
            paper; 0 for a grid of 4 x 4 bins, which any maps fit.
        aux_dropout: rate before their last dense layer.
        dropout: rate before the dense layer.

    Raises:
        InputError: auxiliary classifiers without classes.
    """
    check_auxiliary(aux, num_classes)
    read_by = ("inception4a", "inception4d") if aux else ()
    auxiliary = {
        name: AuxiliaryHead(num_classes, batch_norm, aux_window, aux_dropout) for name in read_by
    }
    return Classifier(
        backbone=GoogLeNet(batch_norm, lrn, large_kernel, last_pool, tf_padding),
        head=LinearHead(num_classes, dropout),
        auxiliary=FrozenDict(auxiliary),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=16 * max(last_pool - 1, 1) - 1,
    )
