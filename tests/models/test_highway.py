import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.models import create_model

SMALL = {"widths": ((6, 6, 6), (8, 8))}
IMAGES = np.random.default_rng(1).normal(size=(3, 8, 10, 3)).astype(np.float32)


def test_net_has_the_size_and_the_layers_of_the_papers_19(count_parameters, shapes_of):
    assert count_parameters("highway") == 2_342_406  # "about 2.3 million"
    parts = shapes_of("highway")["params"]
    assert len(parts["backbone"]) + len(parts["head"]) == 19
    plain = [name for name, layer in parts["backbone"].items() if "kernel" in layer]
    assert plain == ["stage1_layer1", "stage1_layer4", "stage2_layer1", "stage3_layer1"]


def test_maps_at_32(map_sizes):
    assert map_sizes("highway") == {"stage1": (32, 48), "stage2": (16, 80), "stage3": (8, 128)}


def test_gates_mix_state_and_input_as_equation_3(drawn_variables, numpy_conv, numpy_max_pool):
    model = create_model("highway", num_classes=4, **SMALL)
    variables = drawn_variables(model, IMAGES)
    layers = variables["params"]["backbone"]

    def conv(x, layer):
        return numpy_conv(x, layer["kernel"], padding=1) + layer["bias"]

    def highway(x, layer):
        state = np.maximum(conv(x, layer["block_state"]), 0)
        gate = 1 / (1 + np.exp(-conv(x, layer["transform_gate"])))
        return state * gate + x * (1 - gate)

    x = np.maximum(conv(IMAGES, layers["stage1_layer1"]), 0)
    stage1 = highway(highway(x, layers["stage1_layer2"]), layers["stage1_layer3"])
    x = np.maximum(conv(numpy_max_pool(stage1, 2, 2), layers["stage2_layer1"]), 0)
    stage2 = highway(x, layers["stage2_layer2"])
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, IMAGES)
    assert list(maps) == ["stage1", "stage2"]
    np.testing.assert_allclose(maps["stage1"], stage1, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps["stage2"], stage2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("settings", "bias"), [({}, -1.0), ({"gate_bias": -3.0}, -3.0)])
def test_transform_gates_start_negative(settings, bias):
    model = create_model("highway", widths=((6, 6),), **settings)
    layer = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]["backbone"]["stage1_layer2"]
    np.testing.assert_array_equal(layer["transform_gate"]["bias"], np.full(6, bias))
    np.testing.assert_array_equal(layer["block_state"]["bias"], np.zeros(6))


@pytest.mark.slow
def test_a_deep_net_with_closed_gates_carries_its_input(numpy_conv):
    deep = create_model("highway", widths=((6,) * 10,), gate_bias=-30.0)

    @jax.jit
    def run(key):
        maps, variables = deep.init_with_output(key, IMAGES, method="features")
        return maps["stage1"], variables

    carried, variables = run(jax.random.key(0))
    kernel = variables["params"]["backbone"]["stage1_layer1"]["kernel"]
    start = np.maximum(numpy_conv(IMAGES, kernel, padding=1), 0)
    np.testing.assert_allclose(carried, start, rtol=1e-4, atol=1e-5)


def test_any_size_from_4_fits_the_same_parameters(shapes_of):
    model = create_model("highway")
    for size in ((4, 4), (30, 50)):
        images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        assert jax.eval_shape(model.apply, shapes_of("highway"), images).shape == (1, 10)


@pytest.mark.zoo
def test_gradients_in_bfloat16_are_finite_and_reach_every_parameter(drawn_variables, train_gradients):
    model = create_model("highway", num_classes=3, **SMALL)
    variables = drawn_variables(model, IMAGES)
    logits, grads, _ = train_gradients(model, variables, jnp.asarray(IMAGES), jnp.bfloat16)
    assert logits.dtype == jnp.float32
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path
