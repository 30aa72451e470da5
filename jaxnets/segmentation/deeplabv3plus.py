"""DeepLab v3+. Chen, Zhu, Papandreou, Schroff and Adam 2018, "Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation", arXiv:1802.02611: an atrous spatial pyramid of separable
convolutions on the last map, joined with a map of stride 4 and refined there (figure 2).

`deeplabv3plus_xception65` is the authors' program at output stride 8. `deeplabv3plus_resnet50` is that
of segmentation_models_pytorch, which has one of the decoder's two separable convolutions before the maps
are joined, no normalization within them, and the rates of output stride 8 whatever the stride.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import BatchNorm, Conv, Dropout, resize_bilinear
from jaxnets.models.settings import Count, CountOrZero, Counts, Probability, takes_fields_of
from jaxnets.models.xception_aligned import AlignedXception
from jaxnets.segmentation.building import (
    Settings,
    backbone_of,
    class_names,  # noqa: F401  (what public weights score)
    last_map,
    map_of,
    resnet_rules,
    shared_parts,
    usual_stride,
)
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Chen et al. 2018, arXiv:1802.02611"

RATES = (12, 24, 36)
"""Of the atrous convolutions at output stride 8; half of them at 16."""

VARIANTS = {
    "deeplabv3plus": {},
    "deeplabv3plus_resnet50": {
        "backbone_settings": {"dilate_first": True},
        "rates": RATES,
        "before": 1,
        "behind": 1,
        "inner_norm": False,
    },
    "deeplabv3plus_xception65": {
        "backbone": "xception65",
        "output_stride": 8,
        "pooled_first": True,
        "dropout": 0.1,
        "min_size": None,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
}


class SeparableLayer(nn.Module):
    """A separable 3x3 convolution with normalization and ReLU.

    Attributes:
        features: channels that come out.
        rate: of the dilation.
        inner_norm: whether normalization and ReLU follow its depthwise part too.
    """

    features: int
    rate: int
    inner_norm: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        channels = x.shape[-1]
        depthwise = {"groups": channels, "padding": self.rate, "dilation": self.rate}
        x = Conv(channels, 3, **depthwise, use_bias=False, name="depthwise")(x)
        if self.inner_norm:
            x = nn.relu(BatchNorm(use_running_average=not train, name="depthwise_bn")(x))
        x = Conv(self.features, 1, use_bias=False, name="pointwise")(x)
        return nn.relu(BatchNorm(use_running_average=not train, name="pointwise_bn")(x))


def _conv1x1(x: Array, features: int, train: bool, name: str) -> Array:
    x = Conv(features, 1, use_bias=False, name=f"{name}_conv")(x)
    return nn.relu(BatchNorm(use_running_average=not train, name=f"{name}_bn")(x))


class Pyramid(nn.Module):
    """A 1x1 convolution, atrous separable ones and the mean of the map, side by side, then a 1x1
    convolution over all of them and dropout.

    Attributes:
        rates: of the atrous convolutions.
        features: channels of each branch and of what comes out.
        dropout: the rate in training.
        inner_norm: see `SeparableLayer`.
        pooled_first: whether the 1x1 convolution reads the mean as the first branch, not the last.
    """

    rates: tuple[int, ...]
    features: int
    dropout: float
    inner_norm: bool
    pooled_first: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        branches = [_conv1x1(x, self.features, train, "conv1x1")]
        for i, rate in enumerate(self.rates, start=1):
            layer = SeparableLayer(self.features, rate, self.inner_norm, name=f"atrous{i}")
            branches.append(layer(x, train))
        pooled = _conv1x1(jnp.mean(x, axis=(1, 2), keepdims=True), self.features, train, "pooled")
        pooled = jnp.broadcast_to(pooled, branches[0].shape)
        branches.insert(0 if self.pooled_first else len(branches), pooled)
        x = _conv1x1(jnp.concatenate(branches, axis=-1), self.features, train, "project")
        return Dropout(self.dropout, name="dropout")(x, deterministic=not train)


class DeepLabV3PlusDecoder(nn.Module):
    """A `Pyramid` on the last map, resized to a finer one and refined beside it.

    Attributes:
        num_classes: of the scores.
        low, high: the names of the finer map and the last one.
        low_features: channels to which the finer map is reduced.
        before, behind: how many separable convolutions there are before the maps are joined and behind.
        rates, features, dropout, inner_norm, pooled_first: see `Pyramid`.
    """

    num_classes: int
    low: str
    high: str
    rates: tuple[int, ...]
    features: int
    low_features: int
    before: int
    behind: int
    dropout: float
    inner_norm: bool
    pooled_first: bool

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        low = maps[self.low]
        own = self.features, self.dropout, self.inner_norm, self.pooled_first
        x = Pyramid(self.rates, *own, name="pyramid")(maps[self.high], train)
        x = self._refined(x, "before", self.before, train)
        x = resize_bilinear(x, low.shape[1:3], align_corners=True)
        x = jnp.concatenate([x, _conv1x1(low, self.low_features, train, "low")], axis=-1)
        x = self._refined(x, "behind", self.behind, train)
        return Conv(self.num_classes, 1, name="scores")(x)

    def _refined(self, x: Array, name: str, count: int, train: bool) -> Array:
        for i in range(1, count + 1):
            x = SeparableLayer(self.features, 1, self.inner_norm, name=f"{name}{i}")(x, train)
        return x


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 21,
    output_stride: Literal[8, 16, 32] | None = None,
    rates: Counts | None = None,
    features: Count = 256,
    low_features: Count = 48,
    before: CountOrZero = 0,
    behind: CountOrZero = 2,
    inner_norm: bool = True,
    pooled_first: bool = False,
    dropout: Probability = 0.5,
    **settings: Any,
) -> Segmenter:
    """A DeepLab v3+ for pictures of any size. In training it takes batches of two pictures at least,
    since the mean of the map is normalized over the batch.

    Args:
        num_classes: the background among them.
        output_stride: of the last map; None for 16, or 32 of a backbone that cannot be dilated.
        rates: of the atrous convolutions; None for those of the output stride, see `RATES`.
        features: channels of the pyramid and the decoder.
        low_features: channels to which the map of stride 4 is reduced.
        before, behind: separable convolutions before the maps are joined, and behind.
        inner_norm: whether normalization and ReLU follow the depthwise parts of separable convolutions.
        pooled_first: the place of the mean of the map among the branches, which the weights depend on.
        dropout: rate behind the pyramid; 0.1 in the authors' program.
        **settings: see `building.Settings`.

    Raises:
        InputError: as of `building.backbone_of`, or it has no map of stride 4.
    """
    shared = Settings(**settings)
    backbone, by_stride, _, smallest = backbone_of(shared, output_stride, usual=16)
    _, last = last_map(by_stride, shared.backbone)
    if rates is None:
        stride = output_stride or usual_stride(shared.backbone, usual=16)
        rates = tuple(rate * 8 // stride for rate in RATES)
    return Segmenter(
        backbone=backbone,
        decoder=DeepLabV3PlusDecoder(
            num_classes,
            low=map_of(by_stride, 4, shared.backbone),
            high=last,
            rates=rates,
            features=features,
            low_features=low_features,
            before=before,
            behind=behind,
            dropout=dropout,
            inner_norm=inner_norm,
            pooled_first=pooled_first,
        ),
        align_corners=True,
        min_size=smallest,
        **shared_parts(shared, num_classes),
    )


def _named(ours: str, *names: tuple[str, str]) -> list[tuple[str, str]]:
    """The rules of layers within a module."""
    return [(f"{ours}{layer}", theirs) for layer, theirs in names]


def _smp_conv(ours: str, convolution: str, norm: str) -> list[tuple[str, str]]:
    names = ("_conv", f"decoder.{convolution}"), ("_bn", f"decoder.{norm}")
    return _named(f"decoder/{ours}", *names)


def _smp_separable(ours: str, convolution: str, norm: str) -> list[tuple[str, str]]:
    parts = ("/depthwise", f"decoder.{convolution}.0"), ("/pointwise", f"decoder.{convolution}.1")
    return _named(f"decoder/{ours}", *parts, ("/pointwise_bn", f"decoder.{norm}"))


def _chainercv(model: Segmenter) -> list[tuple[str, str]]:
    """chainercv's names, without the biases, all 0, that some of its convolutions have."""
    backbone = model.backbone
    if not isinstance(backbone, AlignedXception):
        raise InputError(
            f"library: chainercv has no names for a DeepLab v3+ on {type(backbone).__name__}; its "
            "backbone is xception65"
        )

    def conv(ours: str, theirs: str) -> list[tuple[str, str]]:
        return _named(ours, ("_conv", f"{theirs}.conv"), ("_bn", f"{theirs}.bn"))

    def separable(ours: str, theirs: str) -> list[tuple[str, str]]:
        names = {"depthwise": "depthwise", "depthwise_bn": "dw_bn"}
        names |= {"pointwise": "pointwise", "pointwise_bn": "pw_bn"}
        return _named(ours, *((f"/{layer}", f"{theirs}.{name}") for layer, name in names.items()))

    rules = [
        ("backbone/conv{i}", "feature_extractor.entryflow_conv{i}.conv"),
        ("backbone/bn{i}", "feature_extractor.entryflow_conv{i}.bn"),
    ]
    flows = {"entry": len(backbone.entry), "middle": backbone.middle, "exit": 2}
    blocks = [f"{flow}flow_block{i}" for flow, count in flows.items() for i in range(1, count + 1)]
    for i, block in enumerate(blocks, start=1):
        ours, theirs = f"backbone/block{i}", f"feature_extractor.{block}"
        rules += conv(f"{ours}/shortcut", f"{theirs}.conv")
        rules += separable(f"{ours}/sepconv{{i}}", f"{theirs}.separable{{i}}")
    return [
        *rules,
        *conv("decoder/pyramid/pooled", "aspp.image_pooling_conv"),
        *conv("decoder/pyramid/conv1x1", "aspp.conv1x1"),
        *conv("decoder/pyramid/project", "aspp.proj"),
        *conv("decoder/low", "decoder.feature_proj"),
        *separable("decoder/pyramid/atrous{i}", "aspp.atrous{i}"),
        *separable("decoder/behind{i}", "decoder.conv{i}"),
        ("decoder/scores", "decoder.conv_logits"),
    ]


RENAMES = {
    "smp": resnet_rules(
        "encoder",
        *_smp_conv("pyramid/conv1x1", "aspp.0.convs.0.0", "aspp.0.convs.0.1"),
        *_smp_conv("pyramid/pooled", "aspp.0.convs.4.1", "aspp.0.convs.4.2"),
        *_smp_conv("pyramid/project", "aspp.0.project.0", "aspp.0.project.1"),
        *_smp_conv("low", "block1.0", "block1.1"),
        *_smp_separable("pyramid/atrous{i}", "aspp.0.convs.{i}.0", "aspp.0.convs.{i}.1"),
        *_smp_separable("before1", "aspp.1", "aspp.2"),
        *_smp_separable("behind1", "block2.0", "block2.1"),
        ("decoder/scores", "segmentation_head.0"),
    ),
    "chainercv": _chainercv,
}
