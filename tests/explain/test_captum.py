"""Attributions equal captum's, on the same weights; see tests/goldens/make_explain_goldens.py.

In float64, as captum's were: in float32 a ReLU may by rounding fall to the other side.
"""

from pathlib import Path

import draw
import numpy as np
import pytest
from explained import BASELINE, EXPLAINED, OCCLUDER, STEPS, STRIDE

from jaxnets import explain
from jaxnets.models import create_model
from jaxnets.weights import from_torch

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def answers():
    with np.load(Path(__file__).parents[1] / "goldens" / "data" / "explain.npz") as file:
        return dict(file)


# The VGG takes long to compile: the default run has the ResNet, `pytest -m zoo` both.
SMALL_FIRST = [
    pytest.param(name, marks=[pytest.mark.zoo, *([pytest.mark.small] if name == "resnet" else [])])
    for name in EXPLAINED
]


@pytest.fixture(scope="module")
def explained(request, answers):
    """What captum says of a network, the network, its variables and the images."""
    reference = EXPLAINED[request.param]
    prefix = f"{request.param}/"
    golden = {k.removeprefix(prefix): v for k, v in answers.items() if k.startswith(prefix)}
    lines = [line.split() for line in str(golden["tensors"]).splitlines()]
    shapes = {key: tuple(map(int, shape)) for key, *shape in lines}
    drawn = draw.state_dict(shapes, reference.quiet)
    variables = from_torch(
        reference.model, drawn, reference.library, dtype=np.float64, **reference.overrides
    )
    model = create_model(reference.model, **reference.overrides)
    images = draw.images(2, reference.size).astype(np.float64)
    return reference, golden, (model, variables, images)


def assert_equal_captums(golden, name, values):
    values = np.asarray(values)
    step = -(-values.shape[1] // 16)
    wanted = golden[name]
    error = np.linalg.norm(values[:, ::step, ::step] - wanted) / np.linalg.norm(wanted)
    assert error <= TOLERANCE, name
    drawn = draw.sketch({name: values})  # norm, and products that differ by about what the values do
    wanted = golden[f"{name} sketch"]
    assert np.max(np.abs(drawn - wanted)) <= TOLERANCE * wanted[0, 0], name


@pytest.mark.slow
@pytest.mark.parametrize("explained", SMALL_FIRST, indirect=True)
def test_attributions_of_a_class(explained, double_precision):
    _, golden, network = explained
    target = int(golden["class"])
    found = {
        "saliency": explain.saliency(*network, target),
        "guided_backprop": explain.guided_backprop(*network, target),
        "integrated_gradients": explain.integrated_gradients(
            *network, target, baseline=BASELINE, steps=STEPS
        ),
        "occlusion": explain.occlusion(
            *network, target, size=OCCLUDER, stride=STRIDE, value=BASELINE, batch_size=8
        )[..., None],
    }
    for name, values in found.items():
        assert_equal_captums(golden, name, values)


@pytest.mark.parametrize("explained", SMALL_FIRST, indirect=True)
def test_deconvolution_of_a_unit(explained, double_precision):
    reference, golden, network = explained
    strengths, positions, pixels = explain.deconvnet(*network, reference.layer, int(golden["unit"]))
    np.testing.assert_array_equal(positions, golden["positions"])
    np.testing.assert_allclose(strengths, golden["strengths"], rtol=1e-6)
    # Ours begins with the activation, captum's with 1.
    assert_equal_captums(golden, "deconvnet", pixels / strengths[:, None, None, None])


@pytest.mark.parametrize("explained", SMALL_FIRST, indirect=True)
def test_grad_cam_of_a_layer(explained, double_precision):
    reference, golden, network = explained
    cam = np.asarray(explain.grad_cam(*network, int(golden["class"]), reference.layer))
    wanted = np.maximum(golden["grad_cam"][..., 0], 0)  # captum's is before the rectification
    assert (wanted > 0).any(axis=(1, 2)).all()
    assert np.linalg.norm(cam - wanted) <= TOLERANCE * np.linalg.norm(wanted)
