"""The LSTM over whole sequences, with its backward pass written out.

One matrix product for the inputs of all steps comes before the scan. What automatic differentiation
would do at every step of the backward scan, the gradient of the recurrent weights, is one matrix
product after it. The gradient of the input weights comes to XLA from differentiation in a form that its
CPU backend computes at half the speed; here it is written in a fast one. So it beats Flax's `nn.RNN`
(benchmarks/lstm.md); unrolling does not.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

GATES = "ifgo"


class LSTMLayer(nn.Module):
    """One LSTM in one direction, with the parameters of Flax's `OptimizedLSTMCell`.

    Attributes:
        features: the size F of the state.
    """

    features: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None,
        carry: tuple[jax.Array, jax.Array],
        reverse: bool = False,
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Reads x [N, T, D] from carry (c, h); see `layers.recurrent.Recurrent`.

        Returns:
            The last carry and the outputs [N, T, F] in the order of x, of x's type.
        """
        read = [_Gate(self.features, name=f"i{gate}")(x.shape[-1]) for gate in GATES]
        recur = [_Gate(self.features, True, name=f"h{gate}")(self.features) for gate in GATES]
        input_kernel = jnp.concatenate([kernel for kernel, _ in read], axis=1)
        kernel, bias = (jnp.concatenate(part, axis=-1) for part in zip(*recur, strict=True))
        steps, *weights = nn.dtypes.promote_dtype(jnp.swapaxes(x, 0, 1), input_kernel, bias, kernel)
        start = jax.tree.map(lambda leaf: leaf.astype(steps.dtype), carry)
        real = None if mask is None else jnp.swapaxes(mask, 0, 1)[..., None]
        outputs, last = lstm(reverse, steps, *weights, start, real)
        outputs, last = jax.tree.map(lambda leaf: leaf.astype(x.dtype), (outputs, last))
        return last, jnp.swapaxes(outputs, 0, 1)

    def initialize_carry(self, key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Zeros (c, h) for inputs of shape (N, D)."""
        zeros = jnp.zeros((shape[0], self.features))
        return zeros, zeros


class _Gate(nn.Module):
    """Kernel and bias of one gate, initialized as Flax's cell does."""

    features: int
    recurrent: bool = False

    @nn.compact
    def __call__(self, inputs: int) -> tuple[jax.Array, jax.Array | None]:
        draw = nn.initializers.orthogonal() if self.recurrent else nn.initializers.lecun_normal()
        kernel = self.param("kernel", draw, (inputs, self.features), jnp.float32)
        if not self.recurrent:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def lstm(
    reverse: bool,
    x: jax.Array,
    input_kernel: jax.Array,
    bias: jax.Array,
    kernel: jax.Array,
    carry: tuple[jax.Array, jax.Array],
    real: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """An LSTM, time first; reverse-mode differentiable, any number of times.

    Args:
        reverse: read from the last step to the first.
        x: [T, N, D].
        input_kernel, bias: [D, 4F] and [4F], of the gates in the order i, f, g, o.
        kernel: [F, 4F], what the state is multiplied by.
        carry: (c, h) [N, F] before the first step.
        real: bool[T, N, 1]; a step that is not real keeps the carry and puts out zeros.

    Returns:
        Outputs [T, N, F], each where its input is, and the last carry.
    """
    (outputs, last), _ = _forward(reverse, x, input_kernel, bias, kernel, carry, real)
    return outputs, last


def _forward(reverse, x, input_kernel, bias, kernel, carry, real):
    # sigmoid(z) = tanh(z / 2) / 2 + 1 / 2, so that all gates are one formula, and one pass over them.
    is_g = jnp.arange(4 * len(kernel)) // len(kernel) == GATES.index("g")
    scale = jnp.where(is_g, 1, 0.5).astype(x.dtype)[None]

    def step(carry, now):
        (c, h), (z, real) = carry, now
        gates = jnp.tanh((z + h @ kernel) * scale) * scale + (1 - scale)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new_c = f * c + i * g
        new_h = o * jnp.tanh(new_c)
        if real is None:  # then the states are the outputs, which are kept once
            return (new_c, new_h), (new_h, new_c, None, gates)
        output = jnp.where(real, new_h, 0)
        new_c, new_h = jnp.where(real, new_c, c), jnp.where(real, new_h, h)
        return (new_c, new_h), (output, new_c, new_h, gates)

    inputs = x @ input_kernel + bias[None, None]
    last, (outputs, cs, hs, gates) = lax.scan(step, carry, (inputs, real), reverse=reverse)
    hs = outputs if real is None else hs
    return (outputs, last), (x, input_kernel, kernel, carry, real, cs, hs, gates)


def _backward(reverse, kept, cotangents):
    x, input_kernel, kernel, carry, real, cs, hs, gates = kept
    d_outputs, d_last = cotangents
    before_c, before_h = (
        jnp.concatenate([states[1:], first[None]] if reverse else [first[None], states[:-1]])
        for first, states in zip(carry, (cs, hs), strict=True)
    )
    back = kernel.T

    def step(carry, now):
        (d_c, d_h), (d_output, c, before, gates, real) = carry, now
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        tanh_c = jnp.tanh(c)
        d_new_h = d_h + d_output
        d_new_c = d_c + d_new_h * o * (1 - tanh_c**2)
        d_z = jnp.concatenate(
            [
                d_new_c * g * i * (1 - i),
                d_new_c * before * f * (1 - f),
                d_new_c * i * (1 - g**2),
                d_new_h * tanh_c * o * (1 - o),
            ],
            axis=-1,
        )
        if real is None:
            return (d_new_c * f, d_z @ back), d_z
        d_z = jnp.where(real, d_z, 0)
        return (jnp.where(real, d_new_c * f, d_c), jnp.where(real, d_z @ back, d_h)), d_z

    given = d_outputs, cs, before_c, gates, real
    d_carry, d_z = lax.scan(step, d_last, given, reverse=not reverse)
    read, states, slopes = (a.reshape(-1, a.shape[-1]) for a in (x, before_h, d_z))
    return d_z @ input_kernel.T, read.T @ slopes, slopes.sum(0), states.T @ slopes, d_carry, None


lstm.defvjp(_forward, _backward)
