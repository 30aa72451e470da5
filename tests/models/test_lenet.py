import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model

IMAGES = np.random.default_rng(1).normal(size=(4, 32, 32, 1)).astype(np.float32)


def test_parameter_count(count_parameters):
    assert count_parameters("lenet5") == 61_706


def test_maps_have_the_papers_sizes(map_sizes):
    sizes = {"conv1": (28, 6), "pool1": (14, 6), "conv2": (10, 16), "pool2": (5, 16)}
    assert map_sizes("lenet5") == sizes


def test_layers_match_numpy(drawn_variables, numpy_conv, numpy_max_pool):
    model = create_model("lenet5")
    variables = drawn_variables(model, IMAGES)
    backbone, head = variables["params"]["backbone"], variables["params"]["head"]
    x = IMAGES
    for layer in ("conv1", "conv2"):
        x = np.maximum(numpy_conv(x, backbone[layer]["kernel"]) + backbone[layer]["bias"], 0)
        x = numpy_max_pool(x, 2, 2)
    x = x.reshape(4, 400)
    for layer in ("fc1", "fc2"):
        x = np.maximum(x @ head[layer]["kernel"] + head[layer]["bias"], 0)
    assert x.shape == (4, 84)
    want = x @ head["fc3"]["kernel"] + head["fc3"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, IMAGES), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(28, 28), (33, 32), (64, 64)])
def test_images_of_another_size_are_refused(size):
    model = create_model("lenet5")
    message = f"lenet5 takes 32 x 32 pixels, got {size[0]} x {size[1]}; resize or pad"
    with pytest.raises(InputError, match=message):
        model.init(jax.random.key(0), jnp.zeros((1, *size, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_finite_and_reach_every_kernel(dtype, drawn_variables, train_gradients):
    model = create_model("lenet5", dropout=0.1)
    variables = drawn_variables(model, IMAGES)
    logits, grads, _ = train_gradients(model, variables, jnp.asarray(IMAGES), dtype)
    assert logits.dtype == jnp.float32
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert gradient.dtype == jnp.float32
        if path[-1].key == "kernel":
            assert jnp.any(gradient != 0), path
