"""Attention inside a feature map: over its channels, and over its positions."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError, unknown_name
from jaxnets.layers.convolution import Conv
from jaxnets.layers.geometry import check_maps

NON_LOCAL_MODES = ("embedded_gaussian", "dot_product", "concatenation")


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole map says of it (Hu et al. 2018, section 3).

    x * gate(fc2(relu(fc1(mean of x)))), where `fc1` and `fc2` are 1x1 convolutions with biases.

    Attributes:
        reduction: `fc1` has the channels divided by this, rounded down, as width.
        width: the width itself, instead.
        gate: a sigmoid in the paper.
    """

    reduction: int = 16
    width: int | None = None
    gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to the same shape.

        Raises:
            InputError: wrong rank or type, or a width below 1.
        """
        check_maps(x)
        channels = x.shape[-1]
        width = channels // self.reduction if self.width is None else self.width
        if width < 1:
            raise InputError(
                f"squeezing {channels} channels by reduction {self.reduction} leaves none; give a "
                "smaller reduction, or width"
            )
        squeezed = jnp.mean(x, axis=(1, 2), keepdims=True)
        hidden = nn.relu(Conv(width, 1, name="fc1")(squeezed))
        return x * self.gate(Conv(channels, 1, name="fc2")(hidden))


class NonLocalBlock(nn.Module):
    """x + out(y), where y at a position is a mean of g(x) over all positions, weighted by f.

    Wang et al. 2018, "Non-local Neural Networks", section 3. `theta`, `phi` and `g` are 1x1
    convolutions to `width` channels, `out` one back. `out` starts at zero, so that the block starts
    as the identity and can be put into a trained network. Departures: the paper has it start at
    zero through the scale of a batch norm behind `out`; we have none. Memory grows with (H W)^2.

    Attributes:
        mode: the weight f of position j seen from i. "embedded_gaussian": softmax over j of
            theta_i . phi_j; "dot_product": theta_i . phi_j / (H W); "concatenation":
            relu(w . [theta_i, phi_j]) / (H W), with a parameter `concatenation` [2 width].
        width: by default half the channels.
    """

    mode: str = "embedded_gaussian"
    width: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to the same shape.

        Raises:
            InputError: wrong rank or type, or an unknown mode.
        """
        check_maps(x)
        if self.mode not in NON_LOCAL_MODES:
            raise unknown_name("non-local mode", self.mode, NON_LOCAL_MODES)
        batch, height, breadth, channels = x.shape
        positions = height * breadth
        width = max(1, channels // 2) if self.width is None else self.width

        def embed(name: str) -> jax.Array:
            return Conv(width, 1, name=name)(x).reshape(batch, positions, width)

        theta, phi, g = embed("theta"), embed("phi"), embed("g")
        if self.mode == "concatenation":
            w = self.param("concatenation", nn.initializers.normal(0.01), (2 * width,), jnp.float32)
            w = w.astype(x.dtype)
            # w . [theta_i, phi_j] is a sum of two parts: no need to build the pairs.
            scores = (theta @ w[:width])[:, :, None] + (phi @ w[width:])[:, None, :]
            weights = nn.relu(scores) / positions
        else:
            scores = jnp.einsum("nid,njd->nij", theta, phi)
            if self.mode == "dot_product":
                weights = scores / positions
            else:
                weights = jax.nn.softmax(at_least_float32(scores)).astype(x.dtype)
        y = jnp.einsum("nij,njd->nid", weights, g).reshape(batch, height, breadth, width)
        return x + Conv(channels, 1, kernel_init=nn.initializers.zeros, name="out")(y)
