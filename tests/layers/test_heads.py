import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import layers
from jaxnets.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 6, 3)).astype(np.float32)


def random_params(module, x=X):
    v = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: RNG.normal(size=a.shape).astype(np.float32), v["params"])


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def test_linear_head_is_pool_then_dense():
    head = layers.LinearHead(5, dropout=0.5)
    p = random_params(head)
    assert jax.tree.map(jnp.shape, p) == {"fc": {"kernel": (3, 5), "bias": (5,)}}
    expected = dense(X.mean((1, 2)), p["fc"])
    np.testing.assert_allclose(head.apply({"params": p}, X), expected, rtol=1e-5, atol=1e-6)


def test_linear_head_drops_pooled_features_in_training():
    head = layers.LinearHead(5, dropout=1.0)
    p = random_params(head)
    logits = head.apply({"params": p}, X, train=True, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_allclose(logits, np.broadcast_to(p["fc"]["bias"], (2, 5)))


def test_confidence_map_head_averages_the_rectified_scores_of_all_pixels():
    head = layers.ConfidenceMapHead(5, dropout=0.5)
    p = random_params(head)
    assert jax.tree.map(jnp.shape, p) == {"fc": {"kernel": (3, 5), "bias": (5,)}}
    maps = np.maximum(dense(X, p["fc"]), 0)
    assert (maps == 0).any()  # otherwise the order of ReLU and mean would not show
    np.testing.assert_allclose(head.apply({"params": p}, X), maps.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_confidence_map_head_drops_units_of_single_pixels_in_training():
    head = layers.ConfidenceMapHead(2, dropout=0.5)
    x = np.ones((1, 40, 50, 1), np.float32)
    # One class reads the unit, the other its absence.
    p = {"fc": {"kernel": np.array([[1.0, -1.0]]), "bias": np.array([0.0, 1.0])}}
    logits = head.apply({"params": p}, x, train=True, rngs={"dropout": jax.random.key(1)})
    # About half of the pixels are kept, and doubled.
    assert logits[0, 0] == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(logits[0, 1], 1 - logits[0, 0] / 2, rtol=1e-5)


@pytest.mark.parametrize("head", [layers.LinearHead(0), layers.ConfidenceMapHead(0)])
def test_no_classes_means_pooled_features(head):
    np.testing.assert_allclose(head.apply({}, X), X.mean((1, 2)), atol=1e-6)


def test_no_classes_means_hidden_units():
    head = layers.MLPHead((7, 6), 0)
    p = random_params(head)
    assert set(p) == {"fc1", "fc2"}
    hidden = np.maximum(dense(X.reshape(2, -1), p["fc1"]), 0)
    expected = np.maximum(dense(hidden, p["fc2"]), 0)
    np.testing.assert_allclose(head.apply({"params": p}, X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dropout_first", [False, True])
def test_mlp_head_flattens_rows_columns_channels(dropout_first):
    head = layers.MLPHead((7, 6), 5, 0.5, pool_size=(2, 3), dropout_first=dropout_first)
    p = random_params(head)
    assert jax.tree.map(jnp.shape, p) == {
        "fc1": {"kernel": (18, 7), "bias": (7,)},
        "fc2": {"kernel": (7, 6), "bias": (6,)},
        "fc3": {"kernel": (6, 5), "bias": (5,)},
    }
    bins = X.reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    hidden = np.maximum(dense(bins.reshape(2, 18), p["fc1"]), 0)
    hidden = np.maximum(dense(hidden, p["fc2"]), 0)
    logits = jax.jit(head.apply)({"params": p}, X)
    np.testing.assert_allclose(logits, dense(hidden, p["fc3"]), rtol=1e-4, atol=1e-4)


def test_mlp_head_puts_dropout_where_alexnet_or_vgg_has_it():
    p = random_params(layers.MLPHead((7, 6), 5))
    rngs = {"dropout": jax.random.key(1)}

    def forgetful(dropout_first):
        head = layers.MLPHead((7, 6), 5, dropout=1.0, dropout_first=dropout_first)
        return head.apply({"params": p}, X, train=True, rngs=rngs)

    # After each ReLU: the last layer sees zeros. Before each hidden layer: it sees fc2's bias.
    np.testing.assert_allclose(forgetful(False)[0], p["fc3"]["bias"], rtol=1e-6)
    seen = np.maximum(p["fc2"]["bias"], 0)
    np.testing.assert_allclose(forgetful(True)[0], dense(seen, p["fc3"]), rtol=1e-4, atol=1e-5)


def test_mlp_head_without_hidden_layers_is_one_dense_layer_on_any_rank():
    x = X.reshape(2, -1)
    p = random_params(layers.MLPHead((), 4), x)
    assert set(p) == {"fc1"}
    logits = layers.MLPHead((), 4).apply({"params": p}, x)
    np.testing.assert_allclose(logits, dense(x, p["fc1"]), rtol=1e-4, atol=1e-4)


def test_hidden_layers_start_as_he_normal_and_the_last_as_lecun_normal():
    init = jax.jit(layers.MLPHead((400,), 300).init)
    p = init(jax.random.key(0), jnp.zeros((1, 500)))["params"]
    assert np.var(p["fc1"]["kernel"]) == pytest.approx(2 / 500, rel=0.03)
    assert np.var(p["fc2"]["kernel"]) == pytest.approx(1 / 400, rel=0.03)


@pytest.mark.parametrize(
    "head",
    [layers.LinearHead(5), layers.ConfidenceMapHead(5), layers.MLPHead((7,), 5, pool_size=2)],
)
def test_logits_are_float32_in_bfloat16_too(head):
    p = jax.tree.map(lambda a: a.astype(jnp.bfloat16), random_params(head))
    assert head.apply({"params": p}, X.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("head", "features"),
    [
        (layers.LinearHead(5), X[0]),
        (layers.ConfidenceMapHead(5), X[0]),
        (layers.MLPHead((7,), 5, pool_size=2), X[0]),
    ],
)
def test_features_without_a_batch_are_refused(head, features):
    with pytest.raises(InputError, match="N, H, W, C"):
        head.init(jax.random.key(0), features)
