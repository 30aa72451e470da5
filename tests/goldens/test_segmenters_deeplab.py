"""Every row of `segmenters_deeplab.py`: the weights of the references make ours the same segmenters."""

import math

import jax
import marks
import numpy as np
import pytest
import segmenters
from segmenters import DATA
from segmenters_deeplab import SEGMENTERS, TRAINED
from segmenters_trained import assert_trained_alike
from test_segmenters import TOLERANCE, TRAINING_TOLERANCE, answered, errors, golden_of

from jaxnets.models import create_model, model_info
from jaxnets.weights import from_torch, to_torch
from jaxnets.weights.conversion import abstract_leaves

QUICK = ("unet_resnet34",)


def rows(names):
    return marks.of_segmenters(names, QUICK)


@pytest.fixture(scope="module")
def golden(request):
    return golden_of(request.param, SEGMENTERS[request.param])


def scores_of(golden, settings, **changes):
    row = golden.row
    variables = from_torch(row.model, golden.state_dict, row.library, **settings)
    return answered(golden, create_model(row.model, **settings).clone(**changes), variables)


@pytest.mark.parametrize("golden", rows(SEGMENTERS), indirect=True)
def test_scores_equal_the_references(golden, record_property):
    row = golden.row
    scores = scores_of(golden, row.overrides)
    assert scores["logits"].shape == (row.count, *row.size, 21)
    assert scores["logits"].dtype == np.float32
    found = errors(golden, scores)
    record_property("errors", found)
    assert max(found.values()) <= TOLERANCE


@pytest.mark.zoo
@pytest.mark.parametrize(
    "golden", [name for name, row in SEGMENTERS.items() if row.wrong], indirect=True
)
def test_other_geometry_with_the_same_weights_would_be_seen(golden, record_property):
    row = golden.row
    other = errors(golden, scores_of(golden, dict(row.overrides) | dict(row.wrong)))
    unaligned = errors(golden, scores_of(golden, row.overrides, align_corners=False))
    record_property("wrong", (other, unaligned))
    assert other["logits"] > 10 * TOLERANCE
    assert unaligned["logits"] > 10 * TOLERANCE


@pytest.mark.parametrize("golden", rows(SEGMENTERS), indirect=True)
def test_conversion_there_and_back_changes_no_bit(golden):
    row = golden.row
    variables = from_torch(row.model, golden.state_dict, **row.overrides)
    back = to_torch(row.model, variables, row.library, **row.overrides)
    assert set(back) == set(golden.state_dict)
    for key, value in golden.state_dict.items():
        assert back[key].dtype == value.dtype, key
        np.testing.assert_array_equal(back[key], value, err_msg=key)


@pytest.mark.parametrize("golden", rows(SEGMENTERS), indirect=True)
def test_parameters_are_as_many_as_the_references(golden):
    row = golden.row
    leaves = abstract_leaves(create_model(row.model, **row.overrides))
    counts = (math.prod(shape) for (kind, *_), shape in leaves if kind == "params")
    # A frozen normalization has its scales and biases among the statistics.
    frozen = sum(
        math.prod(shape)
        for (kind, *_, leaf), shape in leaves
        if kind != "params" and leaf in ("scale", "bias")
    )
    assert sum(counts) + frozen == golden.answers["parameters"] == row.parameters[0]


@pytest.mark.zoo
@pytest.mark.parametrize("name", TRAINED)
def test_training_gives_the_references_loss_gradients_and_statistics(
    name, double_precision, record_property
):
    golden = golden_of(f"train_{name}", SEGMENTERS[name])
    known = model_info(name).settings
    model = create_model(name, **({"dropout": 0.0} if "dropout" in known else {}))
    variables = from_torch(name, golden.state_dict)
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
    off = assert_trained_alike(
        model,
        variables,
        segmenters.images(TRAINED[name]),
        segmenters.labels(TRAINED[name]),
        golden.answers,
        lambda tensors: to_torch(name, tensors, SEGMENTERS[name].library),
        TRAINING_TOLERANCE,
    )
    record_property("loss", off)


def test_every_segmenter_has_its_golden_and_each_bites():
    for name in SEGMENTERS:
        with np.load(DATA / f"{name}.npz") as file:
            assert file["logits bite"] >= 0.3
            assert 0.1 < file["logits"].std() < 20
    for name in TRAINED:
        assert (DATA / f"train_{name}.npz").exists()
