"""SegNet. Badrinarayanan, Kendall and Cipolla 2015, "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", arXiv:1511.00561.

The encoder is VGG-16's convolutions with batch normalization. The decoder mirrors it: it puts the
values of each map back where the encoder's max-pool of that size found its maxima, and convolves the
sparse map.

As the authors' Caffe models have it, pooling rounds sizes up, so that pictures of any size come back to
it, and convolutions have biases also where batch normalization follows, in SegNet-Basic too, of which
the paper says otherwise. Departures: batch normalization starts with a shift of 0, not 0.001, and has
an epsilon of 1e-5, not 1e-9.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import (
    BatchNorm,
    Conv,
    local_response_norm,
    max_pool_with_indices,
    max_unpool,
    same_padding,
)
from jaxnets.models.settings import Count, Counts, takes_fields_of
from jaxnets.segmentation.building import Pictures, shared_parts
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Badrinarayanan et al. 2015, arXiv:1511.00561"

_VGG16 = {"depths": (2, 2, 3, 3, 3), "widths": (64, 128, 256, 512, 512)}
_CAFFE = {"min_size": None, "mean": (0.0,) * 3, "std": (1 / 255,) * 3, "order": "BGR"}
VARIANTS = {
    "segnet": {**_VGG16, "num_classes": 21},
    "segnet_vgg16": {**_VGG16, **_CAFFE},
    "segnet_basic": {"depths": (1,) * 4, "widths": (64,) * 4, "basic": True, **_CAFFE},
}


class Encoder(nn.Module):
    """Stages of convolutions, each closed by a max-pool that remembers where its maxima were.

    Attributes:
        depths: convolutions in each stage.
        widths: channels of each stage.
        kernel: side of the kernels.
        lrn: whether local response normalization comes first.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    kernel: int
    lrn: bool

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stage1`, `stage2` ... (strides 2, 4 ...), each after its max-pool, and
        `indices1`, `indices2` ..., i32 of the same shapes."""
        x, out = local_response_norm(images) if self.lrn else images, {}
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), start=1):
            for i in range(1, depth + 1):
                x = nn.relu(_conv_bn(x, width, self.kernel, train, f"stage{stage}", i))
            x, indices = max_pool_with_indices(x, 2, ceil_mode=True)
            out |= {f"stage{stage}": x, f"indices{stage}": indices}
        return out


class Decoder(nn.Module):
    """The stages of an `Encoder` backwards, each opened by unpooling; the last of a stage's convolutions
    goes to the channels of the stage before, that of the first stage to the classes.

    SegNet-Basic's has no ReLU, and a 1x1 convolution behind the first stage scores the classes.

    Attributes:
        num_classes: how many.
        depths, widths, kernel: of the encoder.
        basic: whether it is SegNet-Basic's.
    """

    num_classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    kernel: int
    basic: bool

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        last = len(self.depths)
        sizes = [size]  # of what each stage pooled
        for _ in range(last - 1):
            sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
        x = maps[f"stage{last}"]
        for stage in range(last, 0, -1):
            x = max_unpool(x, maps[f"indices{stage}"], sizes[stage - 1], window=2)
            for i in range(self.depths[stage - 1], 0, -1):
                if (stage, i) == (1, 1) and not self.basic:
                    padding = same_padding(self.kernel)
                    return Conv(self.num_classes, self.kernel, padding=padding, name="stage1_conv1")(x)
                width = self.widths[stage - 1 if i > 1 else max(stage - 2, 0)]
                x = _conv_bn(x, width, self.kernel, train, f"stage{stage}", i)
                x = x if self.basic else nn.relu(x)
        return Conv(self.num_classes, 1, name="score")(x)


def _conv_bn(x: Array, width: int, kernel: int, train: bool, stage: str, i: int) -> Array:
    x = Conv(width, kernel, padding=same_padding(kernel), name=f"{stage}_conv{i}")(x)
    return BatchNorm(use_running_average=not train, name=f"{stage}_bn{i}")(x)


@takes_fields_of(Pictures)
def build(
    *,
    num_classes: Count = 11,
    depths: Counts,
    widths: Counts,
    basic: bool = False,
    **settings: Any,
) -> Segmenter:
    """A SegNet for pictures of any size.

    Args:
        num_classes: the background, if there is one, among them.
        depths: convolutions in each stage of the encoder.
        widths: channels of each stage.
        basic: whether it is SegNet-Basic: kernels are 7x7 and not 3x3, local response normalization
            comes first, and the decoder ends in a 1x1 convolution and has no ReLU.
        **settings: of the pictures; see `building.Pictures`.

    Raises:
        InputError: depths and widths of different numbers.
    """
    if len(depths) != len(widths):
        raise InputError(
            f"widths: {len(depths)} depths and {len(widths)} widths; give one of each for every stage"
        )
    encoder = tuple(depths), tuple(widths), 7 if basic else 3
    return Segmenter(
        backbone=Encoder(*encoder, lrn=basic),
        decoder=Decoder(num_classes, *encoder, basic),
        input_size=(360, 480, 3),
        **shared_parts(Pictures(**settings), num_classes),
    )


def _caffe(model: Segmenter) -> tuple[tuple[str, str], ...]:
    """The names of the layers in the authors' models."""
    if model.decoder.basic:
        return (
            ("backbone/stage{s}_conv1", "conv{s}"),
            ("backbone/stage{s}_bn1", "conv{s}_bn"),
            ("decoder/stage{s}_conv1", "conv_decode{s}"),
            ("decoder/stage{s}_bn1", "conv_decode{s}_bn"),
            ("decoder/score", "conv_classifier"),
        )
    return (
        ("backbone/stage{s}_conv{i}", "conv{s}_{i}"),
        ("backbone/stage{s}_bn{i}", "conv{s}_{i}_bn"),
        ("decoder/stage{s}_conv{i}", "conv{s}_{i}_D"),
        ("decoder/stage{s}_bn{i}", "conv{s}_{i}_D_bn"),
    )


RENAMES = {"caffe": _caffe}
