import jax.numpy as jnp
import numpy as np

from jaxnets.models import create_model


def test_parameter_count(count_parameters):
    assert count_parameters("mlp") == 301_290


def test_other_widths_give_other_layers(count_parameters):
    assert count_parameters("mlp", widths=(30,)) == 784 * 30 + 30 + 30 * 10 + 10


def test_layers_match_numpy(drawn_variables):
    model = create_model("mlp", num_classes=3, widths=(7, 5))
    images = np.random.default_rng(1).normal(size=(2, 4, 3, 2)).astype(np.float32)
    variables = drawn_variables(model, images)
    backbone, fc = variables["params"]["backbone"], variables["params"]["head"]["fc"]
    hidden = images.reshape(2, -1)
    features = model.apply(variables, images, method="features")
    assert list(features) == ["fc1", "fc2"]
    for layer, units in features.items():
        hidden = np.maximum(hidden @ backbone[layer]["kernel"] + backbone[layer]["bias"], 0)
        assert units.shape == (2, 1, 1, hidden.shape[-1])
        np.testing.assert_allclose(units[:, 0, 0], hidden, rtol=1e-5, atol=1e-5)
    want = hidden @ fc["kernel"] + fc["bias"]
    np.testing.assert_allclose(model.apply(variables, images), want, rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_parameter(drawn_variables, train_gradients):
    model = create_model("mlp", widths=(7, 5))
    images = jnp.asarray(np.random.default_rng(1).normal(size=(32, 4, 3, 2)), jnp.float32)
    _, grads, _ = train_gradients(model, drawn_variables(model, images), images, jnp.float32)
    for layer in (grads["backbone"]["fc1"], grads["backbone"]["fc2"], grads["head"]["fc"]):
        assert jnp.all(jnp.isfinite(layer["kernel"]))
        assert jnp.any(layer["kernel"] != 0)
