"""Normalization. Statistics are taken in float32 at least, whatever the type of the input."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.module import merge_param
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError, unknown_name
from jaxnets.layers.geometry import over_channels

Initializer = jax.nn.initializers.Initializer

DATA_AXIS = "batch"
"""The name of the mapped axis over which a batch is spread (`pmap`, `shard_map`, `vmap`)."""

CONSTANTS = "constants"
"""The collection of what no training changes: neither an optimizer nor a forward pass."""

NORMS = ("batch", "frozen", "group")
"""What `norm_layer` knows."""


class BatchNorm(nn.Module):
    """Batch normalization over every axis but the last (Ioffe and Szegedy 2015, algorithms 1, 2).

    It is used as Flax's, with the same names: parameters `scale` and `bias`, running statistics
    `mean` and `var` in the collection `batch_stats`, float32 whatever the input. It differs in this:

    - Traced under a mapped axis named `axis_name`, the statistics are those of the global batch,
      so that a model gives the same numbers on any number of devices, with no flag to set. Under
      `jit` over sharded arrays that is so anyway.
    - The running variance follows the unbiased estimate, n / (n - 1) times the variance over the
      n values of a channel in the global batch, as in the paper and in torch. The batch itself is
      normalized with the biased one.
    - The variance is the mean of squared deviations from the mean, not E[x^2] - E[x]^2, which
      loses all its digits when the mean is large. Only of half-precision maps, whose own values have
      lost these digits before, is it the latter, which saves a pass over the map.
    - The output has the input's type.

    Attributes:
        use_running_average: True to normalize by the running statistics (evaluation), False by
            those of the batch (training, which updates the running ones). May be given at the
            call instead.
        momentum: the share of the old running statistics that is kept; torch's is 1 minus this.
        epsilon: added to the variance. torch's default is Flax's, 1e-5.
        use_bias: whether there is a `bias`.
        use_scale: whether there is a `scale`.
        bias_init: zeros by default.
        scale_init: ones by default.
        axis_name: the mapped axis to average over where there is one; None for the statistics of
            each device alone. While initializing no axis is looked for.
    """

    use_running_average: bool | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    axis_name: str | None = DATA_AXIS

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        """Maps [..., C] to [..., C].

        Raises:
            InputError: in training, when a channel has a single value in the whole batch: its
                variance is 0 and its output would be the bias, whatever the input.
        """
        use_running_average = merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        shape = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        if use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            spread = self.axis_name is not None and axis_is_bound(self.axis_name)
            axis_name = self.axis_name if spread and not self.is_initializing() else None
            mean, var, count = _batch_statistics(x, axis_name)
            if not self.is_initializing():
                if count < 2:
                    raise InputError(
                        f"BatchNorm in training got one value per channel (x has shape {x.shape}); "
                        "give a larger batch or larger images"
                    )
                keep, unbiased = self.momentum, var * (count / (count - 1))
                for running, seen in ((running_mean, mean), (running_var, unbiased)):
                    seen = seen.astype(running.value.dtype)
                    running.value = keep * running.value + (1 - keep) * seen

        # One multiply-add a pixel: scale (x - mean) / std + bias = x a + (bias - mean a).
        fine = at_least_float32(x)
        mean, var = mean.astype(fine.dtype), var.astype(fine.dtype)
        a = lax.rsqrt(var + self.epsilon)
        if self.use_scale:
            a = a * self.param("scale", self.scale_init, shape, jnp.float32).astype(fine.dtype)
        b = -mean * a
        if self.use_bias:
            b = b + self.param("bias", self.bias_init, shape, jnp.float32).astype(fine.dtype)
        return (fine * over_channels(a, x) + over_channels(b, x)).astype(x.dtype)


class FrozenBatchNorm(nn.Module):
    """Batch normalization whose statistics, scale and bias are constants (torchvision's
    `FrozenBatchNorm2d`): in training as in evaluation it is the same affine map of each channel.

    `scale`, `bias`, `mean` and `var` have the names and places in the tree that they have in
    `BatchNorm`, all four in the collection `constants`. So they are not parameters: no optimizer
    moves them, weight decay does not either, and nobody counts them. `jaxnets.weights.from_torch`
    fills them as it fills those of a `BatchNorm`; `freeze_batch_norms` makes them of variables that
    are there already.

    Attributes:
        epsilon: added to the variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., C] to [..., C], in float32 inside; the output has the input's type."""

        def constant(name: str, initializer: Callable[..., jax.Array]) -> jax.Array:
            given = self.variable(CONSTANTS, name, initializer, x.shape[-1:], jnp.float32).value
            return given.astype(fine.dtype)

        fine = at_least_float32(x)
        mean, var = constant("mean", jnp.zeros), constant("var", jnp.ones)
        a = constant("scale", jnp.ones) * lax.rsqrt(var + self.epsilon)
        b = constant("bias", jnp.zeros) - mean * a
        return (fine * over_channels(a, x) + over_channels(b, x)).astype(x.dtype)


def freeze_batch_norms(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a net with `BatchNorm` as those of the same net with `FrozenBatchNorm`.

    Args:
        variables: `params` and `batch_stats`.

    Returns:
        `params` without the scales and biases of batch normalizations, and `constants`.
    """
    flat = flatten_dict(dict(variables))
    norms = {path[1:-1] for path in flat if path[0] == "batch_stats"}
    return unflatten_dict(
        {(CONSTANTS if path[1:-1] in norms else path[0], *path[1:]): x for path, x in flat.items()}
    )


def norm_layer(norm: str, train: bool, epsilon: float = 1e-5) -> Callable[..., nn.Module]:
    """A normalization by its name, for a net that leaves the choice open.

    Args:
        norm: "batch", "frozen" (batch normalization that is not trained, as detectors keep that of
            their backbones) or "group" (32 groups of channels).
        train: whether `BatchNorm` uses the statistics of the batch.
        epsilon: added to the variance.

    Returns:
        `layer(name=...)`, a module.

    Raises:
        InputError: an unknown name.
    """
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    layers = {
        "batch": partial(BatchNorm, use_running_average=not train),
        "frozen": FrozenBatchNorm,
        "group": GroupNorm,
    }
    return partial(layers[norm], epsilon=epsilon)


def LayerNorm(  # noqa: N802  (it stands where a module stands)
    epsilon: float = 1e-5,
    use_bias: bool = True,
    use_scale: bool = True,
    name: str | None = None,
) -> nn.LayerNorm:
    """Normalizes each vector of channels by itself (Ba et al. 2016), as Flax's module.

    The epsilon is torch's 1e-5, not Flax's 1e-6; the variance is computed as in `BatchNorm`.
    """
    return nn.LayerNorm(
        epsilon=epsilon, use_bias=use_bias, use_scale=use_scale, use_fast_variance=False, name=name
    )


def GroupNorm(  # noqa: N802  (it stands where a module stands)
    num_groups: int = 32,
    epsilon: float = 1e-5,
    use_bias: bool = True,
    use_scale: bool = True,
    name: str | None = None,
) -> nn.GroupNorm:
    """Normalizes groups of consecutive channels of each image (Wu and He 2018), as Flax's module.

    The epsilon is torch's 1e-5, not Flax's 1e-6. Flax raises a ValueError when the channels cannot
    be cut into `num_groups`.
    """
    return nn.GroupNorm(
        num_groups=num_groups,
        epsilon=epsilon,
        use_bias=use_bias,
        use_scale=use_scale,
        use_fast_variance=False,
        name=name,
    )


def InstanceNorm(  # noqa: N802  (it stands where a module stands)
    epsilon: float = 1e-5,
    use_bias: bool = True,
    use_scale: bool = True,
    name: str | None = None,
) -> nn.InstanceNorm:
    """Normalizes each channel of each image by itself (Ulyanov et al. 2016), as Flax's module.

    The epsilon is torch's 1e-5, not Flax's 1e-6. torch's InstanceNorm2d has neither scale nor bias
    unless asked (`affine=True`); here both are there unless declined.
    """
    return nn.InstanceNorm(
        epsilon=epsilon, use_bias=use_bias, use_scale=use_scale, use_fast_variance=False, name=name
    )


def local_response_norm(
    x: jax.Array,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> jax.Array:
    """Damps a channel by its neighbors: x / (k + alpha / size * sum of their squares)^beta.

    Krizhevsky et al. 2012, section 3.3, with torch's meaning of alpha, which is divided by `size`.
    The paper's is not: its n = 5, k = 2, alpha = 1e-4, beta = 0.75 are `size=5, alpha=5e-4, k=2`.

    Args:
        x: [..., C].
        size: how many neighboring channels are summed, size // 2 of them before and
            (size - 1) // 2 after; beyond the first and the last there are zeros.
        alpha: the weight of the mean square.
        beta: the exponent.
        k: the constant.

    Raises:
        InputError: a size below 1.
    """
    if size < 1:
        raise InputError(f"size is {size}; wanted at least 1 channel")
    fine = at_least_float32(x)
    squares = lax.square(fine)
    channels = x.shape[-1]
    edges = [(0, 0)] * (x.ndim - 1) + [(size // 2, (size - 1) // 2)]
    padded = jnp.pad(squares, edges)
    total = sum(padded[..., i : i + channels] for i in range(size))
    total = k + alpha / size * total
    if beta == 0.75:  # everyone's: two roots in place of a logarithm and an exponential
        root = lax.rsqrt(total)
        return (fine * (root * jnp.sqrt(root))).astype(x.dtype)
    return (fine * total**-beta).astype(x.dtype)


def axis_is_bound(axis_name: str) -> bool:
    """Whether we are traced under a mapped axis of that name (`pmap`, `shard_map`, `vmap`)."""
    try:
        lax.axis_size(axis_name)
    except NameError:
        return False
    return True


def _batch_statistics(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array, int]:
    """Mean and biased variance of each channel, float[C], and the number of values behind them.

    In two passes, and across devices in two: every device measures from the global mean. Of bfloat16 and
    float16 in one, which XLA computes along with the convolution before it: the 24 bits of float32 hold
    the squares of their 8 or 11 to twice as many digits, so that E[x^2] - E[x]^2 is as good as they are.
    """
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    fine = at_least_float32(x)

    def over_devices(mean: Any) -> Any:
        return mean if axis_name is None else lax.pmean(mean, axis_name)

    if fine.dtype.itemsize > x.dtype.itemsize:
        mean, square = over_devices((jnp.mean(fine, axes), jnp.mean(lax.square(fine), axes)))
        var = jnp.maximum(square - lax.square(mean), 0)
    else:
        mean = over_devices(jnp.mean(fine, axes))
        var = over_devices(_mean_squared_deviation(fine, mean))
    return mean, var, count if axis_name is None else count * lax.axis_size(axis_name)


@jax.custom_jvp
def _mean_squared_deviation(x: jax.Array, mean: jax.Array) -> jax.Array:
    """Mean of (x - mean)^2 over every axis but the last; `mean` must be that of the global batch.

    Then its derivative by the mean is 0 over the global batch. It is left out, since XLA would make two
    more passes over the map to find that.
    """
    # As a matrix: had the derivative the same difference, XLA would write it down for both, not fuse it.
    return jnp.mean(lax.square(x.reshape(-1, x.shape[-1]) - mean[None]), 0)


@_mean_squared_deviation.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (x, mean), (dx, _) = primals, tangents
    slope = 2 * jnp.mean((x - over_channels(mean, x)) * dx, tuple(range(x.ndim - 1)))
    return _mean_squared_deviation(x, mean), slope
