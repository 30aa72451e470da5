"""Layers by name, of every family, and what is said of wrong arguments."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import GOLDENS

from jaxnets import explain
from jaxnets.errors import InputError
from jaxnets.explain import tracing
from jaxnets.explain.interpreting import guided
from jaxnets.models import create_model
from jaxnets.models.registry import families

FAMILIES = list(families("classification"))
SMALL = {row.model or name: row for name, row in GOLDENS.items() if row.small}
QUICK = {"lenet5", "mlp", "resnet18", "vgg11_bn", "vit_base_patch16_224", "zfnet"}
UNREAD = {"polynet": 2}  # ReLUs that are called for nothing: of the last terms of its polynomials


def members():
    """A small member of each family; those that take long to trace are of the zoo's tests."""
    for family in FAMILIES:
        name = next((name for name in family.VARIANTS if name in SMALL), next(iter(family.VARIANTS)))
        yield pytest.param(name, marks=() if name in QUICK else pytest.mark.zoo)


@pytest.mark.parametrize("name", list(members()))
def test_every_backbone_is_explained_without_its_knowing(name, monkeypatch):
    row = SMALL.get(name)
    model = create_model(name, **(row.overrides if row else {}))
    side = row.size if row else model.input_size[0]
    images = jax.ShapeDtypeStruct((2, side, side, model.input_size[2]), jnp.float32)
    variables = jax.eval_shape(functools.partial(nn.Module.init, model), jax.random.key(0), images)

    calls = []
    with monkeypatch.context() as patch:
        for relu in (nn.relu, nn.relu6):
            for module in (nn, *FAMILIES):
                if hasattr(module, relu.__name__):
                    counted = lambda x, relu=relu: calls.append(relu) or relu(x)  # noqa: E731
                    patch.setattr(module, relu.__name__, counted)
        features = functools.partial(model.apply, method="features")
        maps = jax.eval_shape(features, variables, images)
        calls.clear()
        jax.eval_shape(model.apply, variables, images)

    program = tracing.trace(model, variables, images)
    assert {name: program.layers[name] for name in program.maps} == {
        name: value.shape for name, value in maps.items()
    }

    ruled = []

    def rule(relu, x, gradient):
        ruled.append(x.shape)
        return guided(relu, x, gradient)

    def total(images, variables):
        return jnp.sum(tracing.run(program, variables, images, relu=rule)[0])

    assert jax.eval_shape(jax.grad(total), images, variables).shape == images.shape
    assert len(ruled) == len(calls) - UNREAD.get(name, 0)
    if name != "mlp":  # it has no maps
        cam = functools.partial(explain.grad_cam, model, classes=1)
        count, height, width = jax.eval_shape(cam, variables, images).shape
        assert count == 2
        assert height * width > 1


def test_layers_are_the_maps_and_then_the_modules(lenet):
    shapes = explain.layer_shapes(*lenet)
    assert list(shapes)[:6] == ["conv1", "pool1", "conv2", "pool2", "backbone/conv1", "backbone/conv2"]
    assert shapes["backbone/conv1"] == shapes["conv1"] == (3, 28, 28, 6)
    assert shapes["head/fc1"] == (3, 120)
    assert shapes["head"] == (3, 10)


def test_relu_is_known_where_nothing_is_compiled(lenet):
    with jax.disable_jit():
        program = tracing.trace(*lenet)
    assert "name=relu" in str(program.jaxpr)


def test_what_is_added_to_a_layer_is_read_by_the_next(lenet, scores):
    _, variables, images = lenet
    program = tracing.trace(*lenet)

    @jax.jit
    def run(images, added):
        return tracing.run(program, variables, images, added=added)

    nothing = {"pool2": jnp.zeros((3, 5, 5, 16)), "head/fc3": jnp.zeros((3, 10))}
    found, layers = run(images, nothing)
    np.testing.assert_allclose(found, scores(images), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        run(images, nothing | {"head/fc3": jnp.full((3, 10), 2.0)})[0], found + 2, rtol=1e-5, atol=1e-5
    )
    less = run(images, nothing | {"pool2": -layers["pool2"]})[1]
    bias = np.broadcast_to(variables["params"]["head"]["fc1"]["bias"], (3, 120))
    np.testing.assert_allclose(less["head/fc1"], bias, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, v, x: explain.feature_maps(m, v, x, "conv9"), ["'conv9'", "conv1, pool1"]),
        (lambda m, v, x: explain.grad_cam(m, v, x, 1, "nothing"), ["unknown layer 'nothing'"]),
        (lambda m, v, x: explain.grad_cam(m, v, x, 1, "head/fc1"), ["(3, 120)", "no maps"]),
        (lambda m, v, x: explain.deconvnet(m, v, x, "conv2", 16), ["unit 16", "0 to 15"]),
        (lambda m, v, x: explain.deconvnet(m, v, x, "conv2", -1), ["unit -1"]),
        (lambda m, v, x: explain.top_images(m, v, x, "conv2", 16), ["count is 9", "3 images"]),
        (lambda m, v, x: explain.top_images(m, v, x, "conv2", 16, 2), ["unit 16"]),
        (lambda m, v, x: explain.receptive_field(m, v, x, "conv2", 10, 0), ["row 10", "10 x 10"]),
        (lambda m, v, x: explain.receptive_field(m, v, x, "head", 0, 0), ["no maps"]),
        (lambda m, v, x: explain.filters(m, v, x, "head/fc1"), ["no convolution", "backbone/conv1"]),
        (lambda m, v, x: explain.filters(m, v, x, "backbone/conv7"), ["unknown layer"]),
        (lambda m, v, x: explain.saliency(m, v, x, 10), ["10 is not one", "0 to 9"]),
        (lambda m, v, x: explain.saliency(m, v, x, -1), ["-1 is not one"]),
        (lambda m, v, x: explain.saliency(m, v, x, 1.0), ["1.0 is not one"]),
        (lambda m, v, x: explain.saliency(m, v, x, [1, 2]), ["each of 3 images", "(2,)"]),
        (lambda m, v, x: explain.saliency(m, v, x[0]), ["images[None]"]),
        (lambda m, v, x: explain.saliency(m, v, x.astype(int)), ["floats"]),
        (lambda m, v, x: explain.saliency(m, v, x[:, :20]), ["takes 32 x 32"]),
        (lambda m, v, x: explain.saliency(create_model("lenet5", 0), v, x), ["no classes"]),
        (lambda m, v, x: explain.smoothgrad(m, v, x, jax.random.key(0), samples=0), ["samples is 0"]),
        (lambda m, v, x: explain.integrated_gradients(m, v, x, steps=0), ["steps is 0"]),
        (lambda m, v, x: explain.integrated_gradients(m, v, x, baseline=np.ones(3)), ["(3,)"]),
        (lambda m, v, x: explain.occlusion(m, v, x, size=33), ["33 x 33", "32 x 32"]),
        (lambda m, v, x: explain.occlusion(m, v, x, size=(0, 4)), ["0 x 4"]),
        (lambda m, v, x: explain.occlusion(m, v, x, size=4, stride=5), ["stride", "left out"]),
        (lambda m, v, x: explain.occlusion(m, v, x, size=4, value=np.ones(2)), ["value", "(2,)"]),
        (lambda m, v, x: explain.occlusion(m, v, x, size=4, batch_size=0), ["batch_size"]),
        (lambda m, v, x: explain.occlusion(m, v, x[0], size=4), ["images[None]"]),
    ],
)  # fmt: skip
def test_wrong_arguments_are_explained(lenet, call, words):
    with pytest.raises(InputError) as refused:
        call(*lenet)
    message = str(refused.value)
    assert len(message.splitlines()) <= 2
    for word in words:
        assert word in message


def test_of_many_layers_the_nearest_are_named():
    model = create_model("resnet18")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(functools.partial(nn.Module.init, model), jax.random.key(0), images)
    program = tracing.trace(model, variables, images)
    with pytest.raises(InputError, match="'backbone/stage1_block1/conv1'") as refused:
        tracing.check_layer(program, "stage1_block1/conv1")
    assert "maps stem, stage1, stage2, stage3, stage4 and" in str(refused.value)
    assert len(str(refused.value)) < 400
