"""The same JPEG file through ours and through torchvision's and timm's transforms."""

from pathlib import Path

import draw
import jax
import numpy as np
import pytest
from references import PREPROCESSED

from jaxnets.models import create_model
from jaxnets.models.published import resized_side
from jaxnets.weights import Preprocessing, from_torch, to_torch

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def answers():
    with np.load(DATA / "preprocessing.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def probabilities():
    """Of a ResNet-18 with the weights that the reference had."""
    model = create_model("resnet18")
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    shapes = {name: value.shape for name, value in to_torch("resnet18", zeros).items()}
    weights = from_torch("resnet18", draw.state_dict(shapes, "layer*.bn2.weight"))
    scores = jax.jit(model.apply)
    return lambda image: np.asarray(jax.nn.softmax(scores(weights, image[None])[0]))


@pytest.mark.parametrize("picture", ["tall", "wide"])
@pytest.mark.parametrize("case", PREPROCESSED)
def test_a_jpeg_gives_the_references_probabilities(picture, case, answers, probabilities):
    _, about = PREPROCESSED[case]
    resize = about["resize"] if "resize" in about else resized_side(about["size"], about["crop"])
    preprocess = Preprocessing(
        resize, about["size"], about["interpolation"], about["mean"], about["std"]
    )
    image = preprocess(DATA / f"{picture}.jpg")
    # The norm, and products with drawn vectors: another filter moves them by 1e-2 and more.
    sketch = draw.sketch({case: image.transpose(2, 0, 1)})
    norm = answers[f"{picture} {case} image"][0, 0]
    assert np.abs(sketch - answers[f"{picture} {case} image"]).max() / norm < 1e-5
    wanted = answers[f"{picture} {case} probabilities"]
    found = probabilities(image)
    assert np.abs(found - wanted).max() < 1e-3
    assert list(found.argsort()[-5:]) == list(wanted.argsort()[-5:])
