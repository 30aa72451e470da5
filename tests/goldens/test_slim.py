"""Every row of `slim_rows.GOLDENS`: the variables of TF-Slim's net make ours its function.

The variables are drawn again by slim's names and shapes and go the way of those of a checkpoint, so that
TensorFlow is not needed; see README.md.
"""

from pathlib import Path

import draw
import jax
import marks
import numpy as np
import pytest
import slim_rows

from jaxnets.models import create_model, published_weights
from jaxnets.models.registry import families
from jaxnets.weights import from_torch, slim

DATA = Path(__file__).parent / "data" / "slim"
TOLERANCE = 1e-4

ROWS = marks.of_second_library(slim_rows.GOLDENS)


def golden_of(name):
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def settings_of(name):
    """The settings that the published weights of a row bring, and its own."""
    row = slim_rows.GOLDENS[name]
    model = row.model or name
    (published,) = (of for of in published_weights(model) if of.library == "slim")
    return model, {**published.settings, **row.overrides, "num_classes": row.classes}


def logits_of(name, **changed):
    row = slim_rows.GOLDENS[name]
    lines = [line.split() for line in str(golden_of(name)["variables"]).splitlines()]
    shapes = {key: tuple(map(int, shape)) for key, *shape in lines}
    model, settings = settings_of(name)
    tensors = slim.state_dict(slim_rows.drawn(shapes, row.quiet))
    variables = from_torch(model, tensors, "slim", **settings)
    applied = create_model(model, **settings | changed).apply
    return np.asarray(jax.jit(applied)(variables, draw.images(slim_rows.IMAGES, row.size)))


def error_of(logits, wanted):
    return float(np.max(np.abs(logits - wanted)) / np.max(np.abs(wanted)))


@pytest.mark.parametrize("name", ROWS)
def test_logits_equal_slims(name, record_property):
    wanted = golden_of(name)["logits"]
    error = error_of(logits_of(name), wanted)
    record_property("golden", (f"slim {name}", error))
    assert error <= TOLERANCE


@pytest.mark.zoo
@pytest.mark.parametrize(
    ("name", "setting", "other"),
    [
        ("mobilenet_v1_025", "tf_padding", False),
        ("mobilenet_v1_025", "epsilon", 1e-5),
        ("mobilenet_v2_100", "tf_padding", False),
        ("googlenet", "tf_padding", False),
        ("inception_v2", "pool_padding", "in_means"),
        ("inception_v3", "pool_padding", "in_means"),
        ("resnet50", "stride_last", False),
        ("resnet50", "tf_padding", False),
        ("resnetv2_50", "stride_last", False),
        ("resnetv2_50", "tf_padding", False),
    ],
)
def test_another_setting_gives_other_logits(name, setting, other):
    assert error_of(logits_of(name, **{setting: other}), golden_of(name)["logits"]) > 10 * TOLERANCE


def test_every_row_has_its_golden_and_bites():
    assert {path.stem for path in DATA.glob("*.npz")} == set(slim_rows.GOLDENS)
    for name, row in slim_rows.GOLDENS.items():
        golden = golden_of(name)
        assert golden["size"] == row.size
        assert golden["logits"].shape == (slim_rows.IMAGES, row.classes)
        assert golden["bite"] >= 0.1


def test_every_published_row_is_compared():
    names = {name for family in families("classification") for name in family.VARIANTS}
    published = {name for name in names if any(row.library == "slim" for row in published_weights(name))}
    assert {row.model or name for name, row in slim_rows.GOLDENS.items()} == published
