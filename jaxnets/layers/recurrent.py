"""Recurrent networks over padded batches: RNN, LSTM and GRU, stacked and bidirectional.

The equations are torch's, computed by Flax's cells (the LSTM's by `layers.lstm`, which is faster in
training), with Flax's parameters: gates i, f, g, o (LSTM)
and r, z, n (GRU) each have a kernel for the input, `ii`, and one for the state, `hi`. Where torch
adds two biases that always act as their sum, there is one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnets.errors import InputError, unknown_name
from jaxnets.layers.lstm import LSTMLayer

Carry = Any  # of one layer in one direction: h [N, F], and for an LSTM (c, h)
NONLINEARITIES = {"tanh": jax.nn.tanh, "relu": jax.nn.relu}


class Recurrent(nn.Module):
    """Layers of recurrent cells; `RNN`, `LSTM` and `GRU` hand it out.

    The cells are named `layer0`, `layer0_reverse`, `layer1`, ...

    Attributes:
        cell: makes a Flax cell or an `LSTMLayer`, given its name.
        num_layers: how many are stacked.
        bidirectional: each layer also reads backwards, and gives both outputs side by side.
        dropout: the rate between layers in training.
    """

    cell: Callable[..., nn.RNNCellBase | LSTMLayer]
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        initial_carry: tuple[Carry, ...] | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, tuple[Carry, ...]]:
        """Reads sequences.

        Args:
            x: [N, T, D].
            mask: bool[N, T], False where a sequence is padded. A padded step keeps the carry and
                puts out zeros, so that the final carry is that of the last real step, and the
                backward direction begins at it.
            initial_carry: one carry for each layer and direction, in the order of the cells'
                names; zeros by default. The carry returned has the same form.
            train: whether there is dropout.

        Returns:
            The outputs of the last layer, [N, T, F], or [N, T, 2 F] when bidirectional (forward
            first), of x's type; and the final carries.

        Raises:
            InputError: shapes that do not belong together.
        """
        if x.ndim != 3:
            raise InputError(f"x has shape {x.shape}; wanted [N, T, D], batch first")
        if mask is not None and mask.shape != x.shape[:2]:
            raise InputError(f"mask has shape {mask.shape}; wanted {x.shape[:2]}, as x[N, T]")
        directions = ("", "_reverse") if self.bidirectional else ("",)
        names = [f"layer{l}{d}" for l in range(self.num_layers) for d in directions]
        if initial_carry is not None and len(initial_carry) != len(names):
            raise InputError(
                f"initial_carry has {len(initial_carry)} parts; wanted one for each of "
                f"{', '.join(names)}"
            )
        mask = None if mask is None else mask.astype(bool)
        carries = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            outputs = []
            for direction in directions:
                cell = self.cell(name=f"layer{layer}{direction}")
                start = _zero_carry(cell, x)
                if initial_carry is not None:
                    start = _checked_carry(initial_carry[len(carries)], start, cell.name)
                read = cell if isinstance(cell, LSTMLayer) else partial(_read, cell)
                carry, output = read(x, mask, start, reverse=direction == "_reverse")
                outputs.append(output)
                carries.append(carry)
            x = jnp.concatenate(outputs, axis=-1)
        return x, tuple(carries)


def RNN(  # noqa: N802  (it stands where a module stands)
    features: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    nonlinearity: str = "tanh",
    name: str | None = None,
) -> Recurrent:
    """The plain recurrent network (Elman 1990): h' = tanh(W x + U h + b). See `Recurrent`.

    Args:
        features: the size F of the state.
        num_layers: how many are stacked.
        bidirectional: whether each layer also reads backwards.
        dropout: the rate between layers in training.
        nonlinearity: "tanh" or "relu".
        name: the module's name in the parameter tree.

    Raises:
        InputError: an unknown nonlinearity.
    """
    if nonlinearity not in NONLINEARITIES:
        raise unknown_name("nonlinearity", nonlinearity, NONLINEARITIES)
    cell = partial(nn.SimpleCell, features, activation_fn=NONLINEARITIES[nonlinearity])
    return Recurrent(cell, num_layers, bidirectional, dropout, name=name)


def LSTM(  # noqa: N802  (it stands where a module stands)
    features: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    name: str | None = None,
) -> Recurrent:
    """Long short-term memory with forget gates, without peepholes (Gers et al. 2000).

    Carries are (c, h), in this order. Biases start at zero, also the forget gate's. Its gradient is
    taken in reverse mode only (not by `jax.jvp`). Arguments as for `RNN`.
    """
    cell = partial(LSTMLayer, features)
    return Recurrent(cell, num_layers, bidirectional, dropout, name=name)


def GRU(  # noqa: N802  (it stands where a module stands)
    features: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    name: str | None = None,
) -> Recurrent:
    """Gated recurrent units (Cho et al. 2014), the reset gate applied after the matrix product.

    That is torch's and cuDNN's form, n = tanh(W x + b + r * (U h + c)); the paper has U (r * h).
    Arguments as for `RNN`.
    """
    cell = partial(nn.GRUCell, features)
    return Recurrent(cell, num_layers, bidirectional, dropout, name=name)


def _read(
    cell: nn.RNNCellBase, x: jax.Array, mask: jax.Array | None, carry: Carry, reverse: bool
) -> tuple[Carry, jax.Array]:
    """Scans one cell over time, forwards or backwards; outputs stay in the order of x."""

    def step(cell: nn.RNNCellBase, carry: Carry, inputs: tuple) -> tuple[Carry, jax.Array]:
        x_t, real = inputs
        new_carry, output = cell(carry, x_t)
        # A scan's carry keeps its type, also where a float32 parameter meets a bfloat16 input.
        new_carry = jax.tree.map(lambda new, old: new.astype(old.dtype), new_carry, carry)
        output = output.astype(x_t.dtype)
        if real is not None:
            real = real[:, None]
            new_carry = jax.tree.map(partial(jnp.where, real), new_carry, carry)
            output = jnp.where(real, output, 0)
        return new_carry, output

    scan = nn.scan(
        step,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=1,
        out_axes=1,
        reverse=reverse,
    )
    return scan(cell, carry, (x, mask))


def _zero_carry(cell: nn.RNNCellBase | LSTMLayer, x: jax.Array) -> Carry:
    """A cell's zero carry, of x's type, and varying over the same mesh axes under `shard_map`."""
    shapes = jax.eval_shape(lambda: cell.initialize_carry(jax.random.key(0), (x.shape[0], x.shape[-1])))
    return jax.tree.map(lambda a: jnp.zeros_like(x, shape=a.shape), shapes)


def _checked_carry(carry: Carry, like: Carry, name: str) -> Carry:
    shapes, wanted = jax.tree.map(jnp.shape, carry), jax.tree.map(jnp.shape, like)
    if shapes != wanted:
        raise InputError(f"initial_carry of {name} has shape {shapes}; wanted {wanted}")
    return carry
