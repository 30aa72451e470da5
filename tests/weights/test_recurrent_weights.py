"""RNN, LSTM and GRU equal torch's on its weights; goldens by make_recurrent_goldens.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import layers, weights
from jaxnets.errors import InputError

GOLDENS = np.load(Path(__file__).parents[1] / "goldens/data/recurrent.npz")
NETWORKS = {"rnn": layers.RNN, "lstm": layers.LSTM, "gru": layers.GRU}
SHAPES = {"plain": {}, "deep": {"num_layers": 2, "bidirectional": True}}


def golden(kind, shape, what):
    prefix = f"{kind}/{shape}/{what}/"
    return {name.removeprefix(prefix): GOLDENS[name] for name in GOLDENS if name.startswith(prefix)}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_outputs_and_gradients_equal_torchs(kind, shape):
    network = NETWORKS[kind](4, **SHAPES[shape])
    params = weights.recurrent_from_torch(kind, golden(kind, shape, "weights"))
    x = GOLDENS[f"{kind}/{shape}/x"]
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)

    @jax.jit
    def run(params):
        outputs, _ = network.apply({"params": params}, x)
        return jnp.sum(outputs**2), outputs

    slopes, outputs = jax.grad(run, has_aux=True)(params)
    np.testing.assert_allclose(outputs, GOLDENS[f"{kind}/{shape}/outputs"], atol=2e-6)
    assert np.std(outputs) > 0.1
    mine = weights.recurrent_to_torch(kind, jax.device_get(slopes))
    for name, slope in golden(kind, shape, "gradients").items():
        # Of two biases that add up ours is one: where torch's is zero here, it has the same slope.
        if name.startswith("bias") and not mine[name].any():
            continue
        gates = np.split(mine[name], len(mine[name]) // 4)
        for gate, wanted in zip(gates, np.split(slope, len(gates)), strict=True):
            if gate.any():
                np.testing.assert_allclose(gate, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_weights_go_to_torch_and_back_bit_for_bit(kind, shape):
    given = golden(kind, shape, "weights")
    params = weights.recurrent_from_torch(kind, given)
    exported = weights.recurrent_to_torch(kind, params)
    assert {name: a.shape for name, a in exported.items()} == {n: a.shape for n, a in given.items()}
    again = weights.recurrent_from_torch(kind, exported)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    for name in given:
        if name.startswith("weight"):
            np.testing.assert_array_equal(exported[name], given[name])
    for suffix in {name.removeprefix("bias_ih") for name in given if name.startswith("bias_ih")}:
        both = [sum(d[f"bias_{side}h{suffix}"] for side in "ih") for d in (exported, given)]
        np.testing.assert_allclose(*both, rtol=1e-6)


def test_what_is_no_recurrent_network_is_named():
    given = golden("lstm", "deep", "weights")
    with pytest.raises(InputError, match="unknown recurrent network 'lstn'"):
        weights.recurrent_from_torch("lstn", given)
    with pytest.raises(InputError, match="not those of gru"):
        weights.recurrent_from_torch("gru", given)
    with pytest.raises(InputError, match="left over is fc.weight"):
        weights.recurrent_from_torch("lstm", {**given, "fc.weight": np.zeros((2, 2))})
    with pytest.raises(InputError, match="has no 'weight_hh_l1'"):
        weights.recurrent_from_torch("lstm", {n: a for n, a in given.items() if n != "weight_hh_l1"})
    with pytest.raises(InputError, match="left over is nothing"):
        weights.recurrent_from_torch("rnn", {})
