"""Regularization: noise on units, weights and whole paths, and penalties on weights.

The modules draw from the random stream "dropout", and are the identity when deterministic.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import Dropout
from flax.linen.module import merge_param

from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError

__all__ = ["DropConnect", "DropPath", "Dropout", "drop_path_rates", "l1_penalty", "l2_penalty"]

Initializer = jax.nn.initializers.Initializer


class DropConnect(nn.Module):
    """A dense layer that drops weights, not units (Wan et al. 2013, section 3).

    In training every example has its own random mask over weights and biases, as in the paper, so
    that a layer of D inputs holds D * features numbers an example. What is kept is divided by the
    keep rate. Departure: in evaluation we use the mean weights; the paper samples activations from
    a Gaussian of matching moments.

    Attributes:
        features: number of outputs.
        rate: the share of weights dropped, at least 0 and below 1.
        use_bias: whether there is a `bias` beside the `kernel` [D, features].
        kernel_init: LeCun normal by default, as Flax's Dense.
        deterministic: may be given at the call instead.
    """

    features: int
    rate: float
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool | None = None) -> jax.Array:
        """Maps [..., D] to [..., features].

        Raises:
            InputError: a rate outside [0, 1).
        """
        deterministic = merge_param("deterministic", self.deterministic, deterministic)
        if not 0 <= self.rate < 1:
            raise InputError(f"rate is {self.rate}; wanted at least 0 and below 1")
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        weights = kernel.astype(x.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            weights = jnp.concatenate([weights, bias.astype(x.dtype)[None]])
            x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        if deterministic or self.rate == 0:
            return x @ weights
        keep = 1 - self.rate
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep, (*x.shape[:-1], *weights.shape))
        return jnp.einsum("...d,...df->...f", x, jnp.where(mask, weights / keep, 0))


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole examples (Huang et al. 2016, section 3).

    What is kept is divided by the keep rate, as in timm, so that evaluation is the plain sum; the
    paper multiplies by it in evaluation instead. The expected values are the same.

    Attributes:
        rate: the chance that an example loses the branch; 1 drops it always.
        deterministic: may be given at the call instead.
    """

    rate: float
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool | None = None) -> jax.Array:
        """Maps [N, ...] to [N, ...], zero for the examples dropped.

        Raises:
            InputError: a rate outside [0, 1].
        """
        deterministic = merge_param("deterministic", self.deterministic, deterministic)
        if not 0 <= self.rate <= 1:
            raise InputError(f"rate is {self.rate}; wanted a probability, 0 to 1")
        if deterministic or self.rate == 0:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        keep = 1 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return jnp.where(mask, x / keep, 0)


def drop_path_rates(max_rate: float, blocks: int) -> tuple[float, ...]:
    """The linear decay rule: block l of L drops with rate l / L * max_rate, l from 1.

    Huang et al. 2016, equation 4. (timm spreads from exactly 0, (l - 1) / (L - 1) * max_rate.)

    Args:
        max_rate: of the last block, 0 to 1.
        blocks: how many residual blocks there are in all.

    Raises:
        InputError: a rate outside [0, 1].
    """
    if not 0 <= max_rate <= 1:
        raise InputError(f"max_rate is {max_rate}; wanted a probability, 0 to 1")
    return tuple(max_rate * l / blocks for l in range(1, blocks + 1))


def l1_penalty(params: Any) -> jax.Array:
    """The sum of |w| over every leaf of `params`, f32[]: hand over the weights, not the biases."""
    return _sum_of_leaves(jnp.abs, params)


def l2_penalty(params: Any) -> jax.Array:
    """The sum of w^2 over every leaf of `params`, f32[]. No half: the gradient is 2 w."""
    return _sum_of_leaves(jnp.square, params)


def _sum_of_leaves(function: Any, params: Any) -> jax.Array:
    parts = [jnp.sum(function(at_least_float32(w))) for w in jax.tree.leaves(params)]
    return sum(parts, start=jnp.zeros((), parts[0].dtype if parts else jnp.float32))
