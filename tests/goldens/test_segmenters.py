"""Every row of `segmenters.SEGMENTERS` and `TRAINED`: the weights of torchvision's segmenters make ours
the same segmenters; see README.md."""

import math
from typing import NamedTuple

import draw
import jax
import marks
import numpy as np
import pytest
import segmenters
from segmenters import DATA, SEGMENTERS, TRAINED, Segmenter
from segmenters_trained import assert_trained_alike

from jaxnets.models import create_model, model_info
from jaxnets.weights import from_torch, to_torch
from jaxnets.weights.conversion import abstract_leaves

TOLERANCE = 1e-4
TRAINING_TOLERANCE = 1e-6

QUICK = ("lraspp_mobilenet_v3_large",)


ROWS = marks.of_segmenters(SEGMENTERS, QUICK)


class Golden(NamedTuple):
    row: Segmenter
    answers: dict[str, np.ndarray]
    state_dict: dict[str, np.ndarray]


def golden_of(name, row):
    with np.load(DATA / f"{name}.npz") as file:
        answers = dict(file)
    return Golden(row, answers, draw.state_dict(segmenters.shapes_of(answers), row.quiet))


@pytest.fixture(scope="module")
def golden(request):
    return golden_of(request.param, SEGMENTERS[request.param])


def auxiliary_scores(model, images):
    """Of the auxiliary head in evaluation, in which the model itself does not ask for them."""
    (name,) = model.auxiliary
    maps = model.backbone(images, False)
    return model._resized(model.auxiliary[name](maps[name], False), images.shape[1:3])


def answered(golden, model, variables):
    """Our scores by the names that the golden has for them."""
    images = segmenters.images(golden.row.size, golden.row.count)

    @jax.jit
    def run(variables, images):
        scores = {"logits": model.apply(variables, images)}
        if "auxiliary" in golden.answers:
            scores["auxiliary"] = model.apply(variables, images, method=auxiliary_scores)
        return scores

    return run(variables, images)


def errors(golden, scores):
    return {key: segmenters.error(value, key, golden.answers) for key, value in scores.items()}


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_scores_equal_the_references(golden, record_property):
    row = golden.row
    variables = from_torch(row.model, golden.state_dict, row.library, **row.overrides)
    scores = answered(golden, create_model(row.model, **row.overrides), variables)
    assert scores["logits"].shape == (row.count, *row.size, 21)
    assert {value.dtype for value in scores.values()} == {np.dtype(np.float32)}
    found = errors(golden, scores)
    record_property("errors", found)
    assert max(found.values()) <= TOLERANCE


@pytest.mark.zoo
@pytest.mark.parametrize(
    "golden", [name for name, row in SEGMENTERS.items() if row.wrong], indirect=True
)
def test_other_geometry_with_the_same_weights_would_be_seen(golden, record_property):
    row = golden.row
    settings = dict(row.overrides) | dict(row.wrong)
    variables = from_torch(row.model, golden.state_dict, row.library, **settings)
    other = errors(golden, answered(golden, create_model(row.model, **settings), variables))
    record_property("wrong", other)
    assert max(other.values()) > 10 * TOLERANCE

    variables = from_torch(row.model, golden.state_dict, row.library, **row.overrides)
    aligned = create_model(row.model, **row.overrides).clone(align_corners=True)
    assert min(errors(golden, answered(golden, aligned, variables)).values()) > 100 * TOLERANCE


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_conversion_there_and_back_changes_no_bit(golden):
    row = golden.row
    variables = from_torch(row.model, golden.state_dict, **row.overrides)
    back = to_torch(row.model, variables, row.library, **row.overrides)
    assert set(back) == set(golden.state_dict)
    for key, value in golden.state_dict.items():
        assert back[key].dtype == value.dtype, key
        np.testing.assert_array_equal(back[key], value, err_msg=key)


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_parameters_are_as_many_as_the_references(golden):
    row = golden.row
    assert golden.answers["parameters"] == row.parameters[0]
    settings = [{}] if row.parameters[0] == row.parameters[1] else [{"aux": True}, {"aux": False}]
    for others, count in zip(settings, row.parameters, strict=False):
        leaves = abstract_leaves(create_model(row.model, **{**row.overrides, **others}))
        assert sum(math.prod(shape) for (kind, *_), shape in leaves if kind == "params") == count


@pytest.mark.zoo
@pytest.mark.parametrize("name", TRAINED)
def test_training_gives_the_references_loss_gradients_and_statistics(
    name, double_precision, record_property
):
    golden = golden_of(f"train_{name}", SEGMENTERS[name])
    known = model_info(name).settings
    model = create_model(name, **{rate: 0.0 for rate in ("dropout", "aux_dropout") if rate in known})
    variables = from_torch(name, golden.state_dict)
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
    off = assert_trained_alike(
        model,
        variables,
        segmenters.images(segmenters.TRAINED_SIZE),
        segmenters.labels(),
        golden.answers,
        lambda tensors: to_torch(name, tensors),
        TRAINING_TOLERANCE,
    )
    record_property("loss", off)


def test_every_segmenter_has_its_golden_and_each_bites():
    for name in SEGMENTERS:
        with np.load(DATA / f"{name}.npz") as file:
            bites = [file[key] for key in file if key.endswith("bite")]
            spreads = [file[key].std() for key in ("logits", "auxiliary") if key in file]
        assert min(bites) >= 0.3
        assert min(spreads) > 0.1
        assert max(spreads) < 20
    for name in TRAINED:
        assert (DATA / f"train_{name}.npz").exists()
