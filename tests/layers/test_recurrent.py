import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import layers
from jaxnets.errors import InputError

RNG = np.random.default_rng(0)
N, T, D, F = 4, 6, 3, 5
X = RNG.normal(size=(N, T, D)).astype(np.float32)
LENGTHS = np.array([6, 1, 4, 3])
MASK = np.arange(T) < LENGTHS[:, None]


def random_params(module):
    v = jax.eval_shape(module.init, jax.random.key(0), X)
    return jax.tree.map(lambda a: RNG.normal(size=a.shape).astype(np.float32), v["params"])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# One step of each network as torch's documentation writes it: (p, x [D], carry) to (carry, h).
def lstm_step(p, x, carry):
    c, h = carry
    i, f, g, o = (
        x @ p[f"i{k}"]["kernel"] + h @ p[f"h{k}"]["kernel"] + p[f"h{k}"]["bias"] for k in "ifgo"
    )
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (c, h), h


def gru_step(p, x, h):
    r, z = (
        sigmoid(x @ p[f"i{k}"]["kernel"] + p[f"i{k}"]["bias"] + h @ p[f"h{k}"]["kernel"]) for k in "rz"
    )
    n = x @ p["in"]["kernel"] + p["in"]["bias"]
    n = np.tanh(n + r * (h @ p["hn"]["kernel"] + p["hn"]["bias"]))
    h = (1 - z) * n + z * h
    return h, h


def rnn_step(p, x, h):
    h = np.tanh(x @ p["i"]["kernel"] + p["i"]["bias"] + h @ p["h"]["kernel"])
    return h, h


STEPS = {layers.LSTM: lstm_step, layers.GRU: gru_step, layers.RNN: rnn_step}


def read_by_hand(step, p, x, carry, reverse):
    """One real sequence [length, D], one direction."""
    outputs = np.zeros((len(x), F))
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        carry, outputs[t] = step(p, x[t], carry)
    return outputs, carry


def network_by_hand(step, params, x, lengths, carries, num_layers, directions):
    outputs, finals = np.zeros((N, T, F * len(directions))), []
    for n in range(N):
        sequence, final = x[n, : lengths[n]], []
        for layer in range(num_layers):
            parts = []
            for direction in directions:
                start = jax.tree.map(lambda a, n=n: a[n], carries[len(final)])
                p = params[f"layer{layer}{direction}"]
                part, carry = read_by_hand(step, p, sequence, start, direction == "_reverse")
                parts.append(part)
                final.append(carry)
            sequence = np.concatenate(parts, -1)
        outputs[n, : lengths[n]] = sequence
        finals.append(final)
    return outputs, jax.tree.map(lambda *a: np.stack(a), *map(tuple, finals))


@pytest.mark.parametrize("network", STEPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
def test_masked_networks_match_each_sequence_read_alone(network, num_layers, bidirectional):
    module = network(F, num_layers, bidirectional)
    p = random_params(module)
    directions = ("", "_reverse") if bidirectional else ("",)
    assert set(p) == {f"layer{l}{d}" for l in range(num_layers) for d in directions}
    state = RNG.normal(size=(len(p), 2, N, F)).astype(np.float32)
    carries = tuple((s[0], s[1]) if network is layers.LSTM else s[0] for s in state)
    x = np.where(MASK[:, :, None], X, 1e6).astype(np.float32)  # whatever is in the padding
    outputs, final = jax.jit(module.apply)({"params": p}, x, MASK, carries)
    expected, final_expected = network_by_hand(
        STEPS[network], p, X, LENGTHS, carries, num_layers, directions
    )
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    for a, e in zip(jax.tree.leaves(final), jax.tree.leaves(final_expected), strict=True):
        np.testing.assert_allclose(a, e, atol=1e-5)


@pytest.mark.parametrize("network", STEPS, ids=lambda f: f.__name__)
def test_without_mask_or_carry_every_step_is_real_and_the_start_is_zero(network):
    module = network(F, bidirectional=True)
    p = random_params(module)
    zeros = np.zeros((N, F), np.float32)
    carries = ((zeros, zeros) if network is layers.LSTM else zeros,) * 2
    outputs, _ = jax.jit(module.apply)({"params": p}, X)
    all_real = np.full(N, T)
    expected, _ = network_by_hand(STEPS[network], p, X, all_real, carries, 1, ("", "_reverse"))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    # The final carry continues a sequence where it was cut.
    one_way = network(F)
    half = {"params": {"layer0": p["layer0"]}}
    _, middle = jax.jit(one_way.apply)(half, X[:, :3])
    rest, _ = jax.jit(one_way.apply)(half, X[:, 3:], initial_carry=middle)
    np.testing.assert_allclose(rest, outputs[:, 3:, :F], atol=1e-6)


def test_rnn_with_relu():
    module = layers.RNN(F, nonlinearity="relu")
    p = random_params(module)
    outputs, _ = module.apply({"params": p}, X[:, :2])
    i, h = p["layer0"]["i"], p["layer0"]["h"]
    first = np.maximum(X[:, 0] @ i["kernel"] + i["bias"], 0)
    second = np.maximum(X[:, 1] @ i["kernel"] + i["bias"] + first @ h["kernel"], 0)
    np.testing.assert_allclose(outputs, np.stack([first, second], 1), rtol=1e-4, atol=1e-5)


def test_gradient_reaches_real_steps_only():
    module = layers.LSTM(F, 2, bidirectional=True)
    p = random_params(module)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(module.apply({"params": p}, x, MASK)[0] ** 2)))(X)
    np.testing.assert_array_equal(np.abs(slope).sum(-1) > 0, MASK)


def test_dropout_lies_between_layers_only():
    rngs = {"dropout": jax.random.key(1)}
    single = layers.GRU(F, dropout=1.0)
    p = random_params(single)
    trained, _ = single.apply({"params": p}, X, train=True, rngs=rngs)
    np.testing.assert_array_equal(trained, single.apply({"params": p}, X)[0])

    stacked = layers.GRU(F, 2, dropout=1.0)
    p = random_params(stacked)
    trained, _ = stacked.apply({"params": p}, X, train=True, rngs=rngs)
    nothing = np.zeros((N, T, F), np.float32)
    expected, _ = layers.GRU(F).apply({"params": {"layer0": p["layer1"]}}, nothing)
    np.testing.assert_allclose(trained, expected, atol=1e-6)
    assert np.abs(stacked.apply({"params": p}, X)[0] - trained).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_the_lstms_own_backward_pass_is_that_of_flaxs_cell(reverse):
    """Values, gradients and gradients of gradients, with padding and a carry."""
    import flax.linen as nn

    from jaxnets.layers.lstm import LSTMLayer

    cell = nn.OptimizedLSTMCell(F)
    flax_layer = nn.RNN(cell, return_carry=True, reverse=reverse, keep_order=True)
    ours = LSTMLayer(F)
    p = random_params(layers.LSTM(F))["layer0"]
    carry = tuple(RNG.normal(size=(2, N, F)).astype(np.float32))
    drawn = [jax.jit(module.init)(jax.random.key(3), *a)["params"] for module, a in (
        (ours, (X, None, carry)), (cell, (carry, X[:, 0])))]  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, *drawn)

    def by_flax(p, x, carry):
        last, outputs = flax_layer.apply(
            {"params": {"cell": p}}, x, initial_carry=carry, seq_lengths=LENGTHS
        )
        return jnp.where(MASK[..., None], outputs, 0), last

    def by_us(p, x, carry):
        last, outputs = ours.apply({"params": p}, x, MASK, carry, reverse)
        return outputs, last

    weights = [RNG.normal(size=s).astype(np.float32) for s in ((N, T, F), (N, F), (N, F))]

    def both(read):
        def total(p, x, carry):
            outputs, (c, h) = read(p, x, carry)
            return sum(jnp.sum(w * a) for w, a in zip(weights, (outputs, c, h), strict=True))

        def steepness(p, x, carry):
            slopes = jax.grad(total, argnums=(0, 1, 2))(p, x, carry)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slopes)), slopes

        # One direction is enough for gradients of gradients, which compile long.
        run = jax.grad(steepness, argnums=(0, 1, 2), has_aux=True) if reverse else steepness
        return jax.jit(lambda *a: (read(*a), run(*a)))(p, X, carry)

    for mine, theirs in zip(*(jax.tree.leaves(both(read)) for read in (by_us, by_flax)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("network", STEPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("params_type", [jnp.bfloat16, jnp.float32])
def test_outputs_and_carries_follow_bfloat16(network, params_type):
    module = network(F, 2)
    p = jax.tree.map(lambda a: jnp.asarray(a, params_type), random_params(module))
    x = jnp.asarray(X, jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):  # float32 meets bfloat16 on purpose
        outputs, final = jax.eval_shape(module.apply, {"params": p}, x, MASK)
    assert {a.dtype for a in jax.tree.leaves((outputs, final))} == {np.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layers.RNN(F, nonlinearity="sigmoid"), "nonlinearity 'sigmoid'"),
        (lambda: layers.GRU(F).init(jax.random.key(0), X[0]), "x has shape"),
        (lambda: layers.GRU(F).init(jax.random.key(0), X, MASK[:, :3]), "mask has shape"),
        (lambda: layers.GRU(F, 2).init(jax.random.key(0), X, None, (X[:, 0],)), "1 parts"),
        (
            lambda: layers.LSTM(F).init(jax.random.key(0), X, None, (np.zeros((N, F)),)),
            "initial_carry of layer0",
        ),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
