"""Every row of `segmenters_refinenet.SEGMENTERS` and `TRAINED`: weights of the published RefineNets make
ours the same; see README.md."""

import math
from typing import NamedTuple

import jax
import marks
import numpy as np
import pytest
import segmenters
import segmenters_refinenet
from segmenters import DATA, Segmenter
from segmenters_refinenet import SEGMENTERS, TRAINED
from segmenters_trained import assert_trained_alike

from jaxnets.layers import resize_bilinear
from jaxnets.models import create_model
from jaxnets.segmentation import refinenet
from jaxnets.weights import from_torch, to_torch
from jaxnets.weights.conversion import abstract_leaves

TOLERANCE = 1e-4
TRAINING_TOLERANCE = 5e-6  # the shares of a resize are float32, also here; torch's then are float64

QUICK = "refinenet_lw_short"

ROWS = marks.of_segmenters(SEGMENTERS, (QUICK,))


class Golden(NamedTuple):
    row: Segmenter
    answers: dict[str, np.ndarray]
    state_dict: dict[str, np.ndarray]


def golden_of(name, file=None):
    with np.load(DATA / f"{file or name}.npz") as npz:
        answers = dict(npz)
    shapes = segmenters.shapes_of(answers)
    return Golden(SEGMENTERS[name], answers, segmenters_refinenet.drawn(shapes))


@pytest.fixture(scope="module")
def golden(request):
    return golden_of(request.param)


def variables_of(golden, dtype=np.float32):
    row = golden.row
    return from_torch(row.model, golden.state_dict, row.library, dtype, **row.overrides)


def error_of(golden, **changes):
    model = create_model(golden.row.model, **golden.row.overrides).clone(**changes)
    images = segmenters.images(golden.row.size, golden.row.count)
    scores = jax.jit(model.apply)(variables_of(golden), images)
    assert scores.shape == (golden.row.count, *golden.row.size, 21)
    assert scores.dtype == np.float32
    return segmenters.error(scores, "logits", golden.answers)


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_scores_equal_the_references(golden, record_property):
    error = error_of(golden)
    record_property("error", error)
    assert error <= TOLERANCE


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_conversion_there_and_back_changes_no_bit(golden):
    row = golden.row
    back = to_torch(row.model, variables_of(golden), row.library, **row.overrides)
    assert set(back) == set(golden.state_dict)
    for key, value in golden.state_dict.items():
        assert back[key].dtype == value.dtype, key
        np.testing.assert_array_equal(back[key], value, err_msg=key)


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_parameters_are_as_many_as_the_references(golden):
    leaves = abstract_leaves(create_model(golden.row.model, **golden.row.overrides))
    count = sum(math.prod(shape) for (kind, *_), shape in leaves if kind == "params")
    assert count == golden.answers["parameters"] == golden.row.parameters[0]


@pytest.mark.zoo
def test_corners_that_are_aligned_otherwise_would_be_seen(monkeypatch, record_property):
    golden = golden_of("refinenet_lw_short")
    last = error_of(golden, align_corners=True)
    monkeypatch.setattr(
        refinenet,
        "resize_bilinear",
        lambda x, size, align_corners: resize_bilinear(x, size, align_corners=not align_corners),
    )
    jax.clear_caches()
    within = error_of(golden)
    record_property("wrong", (last, within))
    assert min(last, within) > 100 * TOLERANCE


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("name", TRAINED)
def test_training_gives_the_references_loss_gradients_and_statistics(
    name, double_precision, record_property
):
    golden = golden_of(name, f"train_{name}")
    model = create_model(golden.row.model, dropout=0.0, **golden.row.overrides)
    variables = variables_of(golden, np.float64)
    row = golden.row
    off = assert_trained_alike(
        model,
        variables,
        segmenters.images(segmenters.TRAINED_SIZE),
        segmenters.labels(),
        golden.answers,
        lambda tensors: to_torch(row.model, tensors, "drsleep", **row.overrides),
        TRAINING_TOLERANCE,
    )
    record_property("loss", off)


def test_every_row_has_its_golden_and_each_bites():
    for name in SEGMENTERS:
        with np.load(DATA / f"{name}.npz") as file:
            assert file["logits bite"] >= 0.3
            assert 0.1 < file["logits"].std() < 20
    for name in TRAINED:
        assert (DATA / f"train_{name}.npz").exists()
