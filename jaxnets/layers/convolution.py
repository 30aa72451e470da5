"""Convolutions. Images are [N, H, W, C], kernels [H, W, in / groups, out].

Models use `Conv` and `ConvTranspose` and nothing below them. `lowering` decides how they are computed on
each platform, with the same parameters and values.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

from jaxnets.errors import InputError, unknown_name
from jaxnets.layers.geometry import (
    Padding,
    Pair,
    check_maps,
    over_channels,
    padding_pairs,
    pair,
    resolved_padding,
    window_taps,
)
from jaxnets.layers.lowering import conv_general_dilated, conv_transpose

Initializer = jax.nn.initializers.Initializer

HE_NORMAL = nn.initializers.he_normal()
MASK_KINDS = ("A", "B")


def Conv(  # noqa: N802  (used like a module)
    features: int,
    kernel_size: int | Pair,
    strides: int | Pair = 1,
    padding: Padding = 0,
    groups: int = 1,
    dilation: int | Pair = 1,
    use_bias: bool = True,
    kernel_init: Initializer = HE_NORMAL,
    bias_init: Initializer = nn.initializers.zeros,
    name: str | None = None,
) -> nn.Conv:
    """A two-dimensional convolution, as Flax's module: parameters `kernel` and `bias`.

    The output has floor((W + low + high - (F - 1) d - 1) / S) + 1 positions along each axis. As
    everywhere in deep learning it is a cross-correlation: the kernel is not flipped.

    Args:
        features: number of output channels.
        kernel_size: an int, or (height, width).
        strides: an int, or (height, width).
        padding: zeros, as an int, a pair over (height, width), or a pair of (low, high) pairs;
            `same_padding` and `full_padding` compute two common ones. Also "VALID" and "SAME", which
            depends on the image and is asymmetric at stride 2.
        groups: number of groups of input and output channels that are convolved separately.
        dilation: step between the kernel's taps, an int or (height, width).
        use_bias: whether a bias is added.
        kernel_init: by default He normal (truncated), fan-in (He et al. 2015, "Delving Deep into
            Rectifiers", section 2.2).
        bias_init: zeros by default.
        name: the module's name in the parameter tree.

    Returns:
        A module from [N, H, W, in] to [N, H', W', features].

    Raises:
        InputError: a size below 1, an unknown padding, or `features` not divisible by `groups`.
    """
    if groups < 1 or features % groups:
        raise InputError(
            f"features {features} cannot be cut into {groups} groups; give a divisor of features"
        )
    return nn.Conv(
        features,
        pair(kernel_size, "kernel_size"),
        strides=pair(strides, "strides"),
        padding=padding_pairs(padding),
        kernel_dilation=pair(dilation, "dilation"),
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


class ConvTranspose(nn.Module):
    """A transposed convolution of output size (H - 1) S - low - high + F, as in torch.

    Every input pixel adds a copy of the kernel to the output, S pixels apart; `padding` is then cut off.
    The parameters are those of Flax's module with `transpose_kernel=False`: the kernel is [H, W, in,
    out], and since Flax correlates the dilated input with it, the copy is the kernel *rotated by 180
    degrees*. A torch weight w[in, out, H, W] is the kernel `w.transpose(2, 3, 0, 1)[::-1, ::-1]` here.

    Attributes:
        features: number of output channels.
        kernel_size: an int, or (height, width).
        strides: an int, or (height, width): the factor by which the map grows.
        padding: an int, a pair, or a pair of (low, high) pairs. Not "SAME" or "VALID", which mean
            different things in different libraries.
        use_bias: whether a bias is added.
        kernel_init: by default He normal with fan-in F * F * in, though only about 1 / S^2 of these
            inputs contribute to one output pixel.

    Raises:
        InputError: a size below 1 or a padding given by name.
    """

    features: int
    kernel_size: int | Pair
    strides: int | Pair = 1
    padding: Padding = 0
    use_bias: bool = True
    kernel_init: Initializer = HE_NORMAL

    def __post_init__(self):
        pair(self.kernel_size, "kernel_size")
        pair(self.strides, "strides")
        if isinstance(padding_pairs(self.padding), str):
            raise InputError(f"padding {self.padding!r} of ConvTranspose; give an int or explicit pairs")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, H, W, in] to [N, H', W', features]."""
        check_maps(x)
        shape = (*pair(self.kernel_size, "kernel_size"), x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias)
        y = conv_transpose(x, kernel, pair(self.strides, "strides"), padding_pairs(self.padding))
        return y if bias is None else y + over_channels(bias, y)


class SeparableConv(nn.Module):
    """A depthwise separable convolution: one kernel per channel (`depthwise`), then 1x1 (`pointwise`).

    Howard et al. 2017, "MobileNets", section 3.1; with no norm or activation between the two, as
    in Chollet 2017, "Xception". Arguments as for `Conv`; strides, padding and dilation apply to
    the depthwise part, `use_bias` to both.
    """

    features: int
    kernel_size: int | Pair
    strides: int | Pair = 1
    padding: Padding = 0
    dilation: int | Pair = 1
    use_bias: bool = True
    kernel_init: Initializer = HE_NORMAL

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to [N, H', W', features]."""
        check_maps(x)
        channels = x.shape[-1]
        x = Conv(
            channels,
            self.kernel_size,
            self.strides,
            self.padding,
            groups=channels,
            dilation=self.dilation,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            name="depthwise",
        )(x)
        return Conv(
            self.features,
            1,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            name="pointwise",
        )(x)


class MaskedConv(nn.Module):
    """A causal convolution: an output depends only on pixels above, and to the left in the same row.

    Van den Oord et al. 2016, "Pixel Recurrent Neural Networks", sections 3.4 and 3.5. Kind "A"
    (first layer) excludes the center pixel, kind "B" (later layers) includes it. Parameters are `kernel`
    and `bias` as in `Conv`; the kernel is stored whole and masked in the forward pass.

    Attributes:
        features: number of output channels.
        kernel_size: odd, an int or (height, width).
        kind: "A" or "B".
        colors: number of colors that are predicted in sequence within a pixel. With 3, input and output
            channels are split into three consecutive blocks (R, G, B), and at the center pixel a block
            depends on the blocks of earlier colors, with kind "B" also on its own.
        use_bias: whether a bias is added.
        kernel_init: by default He normal of the unmasked fan-in.
    """

    features: int
    kernel_size: int | Pair
    kind: str
    colors: int = 1
    use_bias: bool = True
    kernel_init: Initializer = HE_NORMAL

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to [N, H, W, features].

        Raises:
            InputError: an unknown kind, an even kernel, or channels not divisible by `colors`.
        """
        check_maps(x)
        mask = causal_mask(self.kernel_size, x.shape[-1], self.features, self.kind, self.colors)
        kernel_size = mask.shape[:2]
        conv = nn.Conv(
            self.features,
            kernel_size,
            padding=tuple((k // 2, k // 2) for k in kernel_size),
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            mask=jnp.where(mask, 1.0, 0.0),  # weakly typed: it takes the kernel's type
            conv_general_dilated=conv_general_dilated,
        )
        nn.share_scope(self, conv)  # `kernel` and `bias` are ours, not a child's
        return conv(x)


def causal_mask(
    kernel_size: int | Pair, channels: int, features: int, kind: str, colors: int = 1
) -> np.ndarray:
    """The mask of `MaskedConv`: bool[H, W, channels, features].

    Raises:
        InputError: an unknown kind, an even kernel, or channels not divisible by `colors`.
    """
    height, width = pair(kernel_size, "kernel_size")
    if kind not in MASK_KINDS:
        raise unknown_name("mask kind", kind, MASK_KINDS)
    if height % 2 == 0 or width % 2 == 0:
        raise InputError(f"kernel_size {kernel_size} has no center pixel; give odd sizes")
    if colors < 1 or channels % colors or features % colors:
        raise InputError(
            f"colors {colors} must divide both the {channels} input channels and the {features} features"
        )
    mask = np.zeros((height, width, channels, features), bool)
    mask[: height // 2] = True
    mask[height // 2, : width // 2] = True
    color_in = np.arange(channels) * colors // channels
    color_out = np.arange(features) * colors // features
    sees = np.less if kind == "A" else np.less_equal
    mask[height // 2, width // 2] = sees(color_in[:, None], color_out[None, :])
    return mask


def im2col(
    images: jax.Array,
    kernel_size: int | Pair,
    strides: int | Pair = 1,
    padding: Padding = 0,
) -> jax.Array:
    """Every window of the images as a row: [N, H, W, C] to [N, H', W', F * F * C].

    A row lists its window in the order (row, column, channel), that of a kernel
    [F, F, C, out] reshaped to [F * F * C, out].

    Raises:
        InputError: wrong rank or type, or a window that does not fit.
    """
    check_maps(images, "images")
    window, strides = pair(kernel_size, "kernel_size"), pair(strides, "strides")
    pads = resolved_padding(padding, images.shape[1:3], window, strides)
    taps = window_taps(images, window, strides, pads)
    return jnp.concatenate(taps, axis=-1)


def conv_by_im2col(
    images: jax.Array,
    kernel: jax.Array,
    strides: int | Pair = 1,
    padding: Padding = 0,
) -> jax.Array:
    """A convolution as one matrix product, to show what `Conv` computes.

    It takes the memory of F * F copies of the images.

    Args:
        images: [N, H, W, C].
        kernel: [F, F, C, out].
        strides: an int or a pair.
        padding: as for `Conv`.

    Returns:
        [N, H', W', out].

    Raises:
        InputError: shapes that do not match, or a window that does not fit.
    """
    check_maps(images, "images")
    if kernel.ndim != 4 or kernel.shape[2] != images.shape[-1]:
        raise InputError(
            f"kernel has shape {kernel.shape}; wanted [height, width, {images.shape[-1]}, out] for "
            f"images of shape {images.shape}"
        )
    columns = im2col(images, kernel.shape[:2], strides, padding)
    return columns @ kernel.reshape(-1, kernel.shape[-1])
