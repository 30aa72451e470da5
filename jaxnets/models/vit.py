"""ViT: the Vision Transformer. Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers
for Image Recognition at Scale", arXiv:2010.11929, section 3.1 and table 1.

Each patch of the image is a token; so is the class token, from whose last state the classifier reads.
The position embedding has one row for each token, so the images have the size that the model was
initialized with.

Departures from the paper: position embedding and kernels start as in its authors' program (normal of
deviation 0.02; Xavier uniform), but biases at zero and the classifier as LeCun normal; there is no
hidden layer in the classifier, as in fine-tuning.
"""

import math
from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError
from jaxnets.layers import Conv, Dropout, DropPath, LayerNorm, LinearHead, drop_path_rates
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Positive, Probability
from jaxnets.models.vit_names import in_timms_names as respelled  # noqa: F401 (read by jaxnets.weights)

PAPER = "Dosovitskiy et al. 2020, arXiv:2010.11929"

VARIANTS = {
    "vit_base_patch16_224": {"depth": 12, "width": 768, "heads": 12, "patch_size": 16},
}

WEIGHTS = {
    "vit_base_patch16_224": (
        published.timm(
            "vit_base_patch16_224.augreg2_in21k_ft_in1k",
            85.11,
            crop=0.9,
            mean=published.HALVES,
            std=published.HALVES,
        ),
    ),
}

RENAMES = {
    "timm": (
        ("backbone/embedding/patches", "patch_embed.proj"),
        ("backbone/embedding", ""),
        ("backbone/block{i}/{layer}", "blocks.{i-1}.{layer}"),
        ("backbone/norm", "norm"),
        ("head/fc", "head"),
    )
}

_XAVIER = nn.initializers.xavier_uniform()


class Embedding(nn.Module):
    """Patches as tokens, behind the class token, with their positions added (equation 1).

    Parameters: the convolution `patches` (LeCun normal), whose windows are the patches; `cls_token`
    [1, 1, width]; `pos_embed` [1, 1 + patches, width].

    Attributes:
        width: channels of a token.
        patch_size: side of a patch.
        dropout: rate in training.
    """

    width: int
    patch_size: int
    dropout: float

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, 1 + H W / patch_size^2, width].

        Raises:
            InputError: the images cannot be cut into patches, or have another size than those the
                model was initialized with.
        """
        side, (height, width) = self.patch_size, images.shape[1:3]
        if height % side or width % side:
            raise InputError(
                f"images: {height} x {width} pixels cannot be cut into patches of {side} x {side}; "
                f"resize or pad them to multiples of {side}"
            )
        x = Conv(
            self.width,
            side,
            strides=side,
            kernel_init=nn.initializers.lecun_normal(),
            name="patches",
        )(images)
        x = x.reshape(x.shape[0], -1, self.width)
        if self.has_variable("params", "pos_embed"):
            known = self.get_variable("params", "pos_embed").shape[1] - 1
            if known != x.shape[1]:
                raise InputError(
                    f"images: {height} x {width} pixels make {x.shape[1]} patches, but the position "
                    f"embedding was made for {known}; resize the images, or initialize the model with "
                    "images like these"
                )
        token = self.param("cls_token", nn.initializers.zeros, (1, 1, self.width), jnp.float32)
        token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.width))
        x = jnp.concatenate([token, x], axis=1)
        shape = (1, *x.shape[1:])
        positions = self.param("pos_embed", nn.initializers.normal(0.02), shape, jnp.float32)
        return Dropout(self.dropout, deterministic=not train)(x + positions.astype(x.dtype))


class Attention(nn.Module):
    """Self-attention with several heads (appendix A): `qkv`, all queries, keys and values in this
    order, and `proj`."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps tokens [N, T, C] to the same shape."""
        batch, count, width = x.shape
        per_head = width // self.heads
        qkv = nn.Dense(3 * width, kernel_init=_XAVIER, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(batch, count, 3, self.heads, per_head), 2, 0)
        scores = jnp.einsum("nqhc,nkhc->nhqk", q / math.sqrt(per_head), k)
        weights = nn.softmax(at_least_float32(scores)).astype(x.dtype)
        x = jnp.einsum("nhqk,nkhc->nqhc", weights, v).reshape(batch, count, width)
        return nn.Dense(width, kernel_init=_XAVIER, name="proj")(x)


class MLP(nn.Module):
    """Two dense layers, `fc1` and `fc2`, with a GELU between them, "exact" or by "tanh"."""

    hidden: int
    gelu: str
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps tokens [N, T, C] to the same shape."""
        y = nn.Dense(self.hidden, kernel_init=_XAVIER, name="fc1")(x)
        y = Dropout(self.dropout, deterministic=not train)(nn.gelu(y, approximate=self.gelu == "tanh"))
        return nn.Dense(x.shape[-1], kernel_init=_XAVIER, name="fc2")(y)


class Block(nn.Module):
    """An encoder layer: attention and MLP, each normalized before and with a shortcut around (figure
    1, right; equations 2 and 3).

    Attributes:
        heads: of the attention.
        mlp_ratio: the MLP's hidden units for each channel of a token.
        drop_path: probability of dropping the attention branch, and the MLP branch.
        dropout: rate behind every dense layer but `qkv` in training.
        epsilon, gelu: see `build`.
    """

    heads: int
    mlp_ratio: int
    epsilon: float
    gelu: str
    drop_path: float
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps tokens [N, T, C] to the same shape."""

        def shortcut(x: Array, y: Array, number: int) -> Array:
            y = Dropout(self.dropout, deterministic=not train)(y)
            return x + DropPath(self.drop_path, name=f"drop_path{number}")(y, not train)

        y = LayerNorm(self.epsilon, name="norm1")(x)
        x = shortcut(x, Attention(self.heads, name="attn")(y), 1)
        y = LayerNorm(self.epsilon, name="norm2")(x)
        y = MLP(self.mlp_ratio * x.shape[-1], self.gelu, self.dropout, name="mlp")(y, train)
        return shortcut(x, y, 2)


class VisionTransformer(nn.Module):
    """Tokens, encoder layers and a last normalization; the arguments are those of `build`."""

    depth: int
    width: int
    heads: int
    patch_size: int
    mlp_ratio: int
    epsilon: float
    gelu: str
    drop_path: float
    dropout: float

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to the patches' tokens in their places, [N, H / patch_size,
        W / patch_size, width]: `embedding`, `block1` ... and, normalized, `norm`; and to
        `class_token`, normalized, as a map of one pixel."""
        batch, height, width, _ = images.shape
        grid = height // self.patch_size, width // self.patch_size

        def places(x: Array) -> Array:
            return x[:, 1:].reshape(batch, *grid, self.width)

        x = Embedding(self.width, self.patch_size, self.dropout, name="embedding")(images, train)
        out = {"embedding": places(x)}
        block = partial(Block, self.heads, self.mlp_ratio, self.epsilon, self.gelu)
        for i, rate in enumerate(drop_path_rates(self.drop_path, self.depth), start=1):
            x = block(rate, self.dropout, name=f"block{i}")(x, train)
            out[f"block{i}"] = places(x)
        x = LayerNorm(self.epsilon, name="norm")(x)
        return out | {"norm": places(x), "class_token": x[:, None, :1]}


def build(
    *,
    num_classes: CountOrZero = 1000,
    depth: Count,
    width: Count,
    heads: Count,
    patch_size: Count,
    mlp_ratio: Count = 4,
    image_size: Count = 224,
    epsilon: Positive = 1e-6,
    gelu: Literal["exact", "tanh"] = "exact",
    drop_path: Probability = 0.0,
    dropout: Probability = 0.0,
) -> Classifier:
    """A Vision Transformer for images of the size it is initialized with.

    Args:
        num_classes: 0 for the last state of the class token.
        depth: encoder layers.
        width: channels of a token.
        heads: of each attention; they share the width.
        patch_size: side of a patch; it divides the sides of the images.
        mlp_ratio: hidden units of the MLPs for each channel of a token.
        image_size: side of the images it is made for, which `input_size` tells; a multiple of
            patch_size.
        epsilon: of the normalizations; 1e-12 in Hugging Face's program.
        gelu: "tanh" for the approximation in Google's programs, in which most public weights were
            trained; timm evaluates them with the "exact" function.
        drop_path: probability of dropping the last layer's attention branch, and its MLP
            branch; it grows linearly from the first layer (Huang et al. 2016, arXiv:1603.09382).
        dropout: rate behind the position embedding and every dense layer but those of queries, keys
            and values; 0.1 in the paper's training on ImageNet (table 3).

    Raises:
        InputError: heads that do not divide the width, or patches that do not divide the images.
    """
    if image_size % patch_size:
        raise InputError(
            f"image_size: {image_size} cannot be cut into patches of {patch_size}; give a multiple"
        )
    if width % heads:
        raise InputError(f"heads: {heads} do not divide the width {width}; give a divisor")
    backbone = VisionTransformer(
        depth, width, heads, patch_size, mlp_ratio, epsilon, gelu, drop_path, dropout
    )
    return Classifier(
        backbone=backbone,
        head=LinearHead(num_classes),
        num_classes=num_classes,
        input_size=(image_size, image_size, 3),
        min_size=patch_size,
    )
