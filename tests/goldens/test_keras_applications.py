"""Keras's files make ours the functions of Keras's applications, whole and fine-tuned.

The weights are drawn again by Keras's names and shapes and written into files as Keras writes them, so
that Keras is not needed here; see README.md.
"""

import functools
from typing import NamedTuple

import draw
import jax
import marks
import numpy as np
import pytest
from keras_rows import APPLICATIONS, DATA, Application, application, tuned
from keras_writer import Layer, write_archive, write_by_names

import jaxnets
from jaxnets.models import list_models, published_weights

TOLERANCE = 1e-4

ROWS = marks.of_second_library(APPLICATIONS)


class Golden(NamedTuple):
    row: Application
    model: str
    whole: Layer
    tuned: Layer
    answers: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def golden(request):
    """A row, its application with drawn weights, whole and fine-tuned, and what Keras answered."""
    name, row = request.param, APPLICATIONS[request.param]
    with np.load(DATA / f"{name}.npz") as file:
        answers = dict(file)
    whole, dense = application(str(answers["layers"]), row.quiet), str(answers["dense"])
    return Golden(row, row.model or name, whole, tuned(whole, dense), answers)


def probabilities(scores):
    return np.asarray(jax.nn.softmax(np.asarray(scores, np.float64)))


@functools.partial(jax.jit, static_argnums=0)
def last_maps(backbone, variables, images):
    return list(backbone.apply(variables, images).values())[-1]


def assert_same_answers(golden, path, answer, record_property):
    # The whole application and the fine-tuned one share what takes long to compile.
    model, variables = jaxnets.load_pretrained(golden.model, path, **golden.row.overrides)
    wanted = golden.answers[answer]
    backbone = {kind: parts["backbone"] for kind, parts in variables.items() if "backbone" in parts}
    maps = last_maps(model.backbone, backbone, draw.images(len(wanted), golden.row.size))
    scores = np.asarray(model.head.apply({"params": variables["params"]["head"]}, maps))
    error = float(np.max(np.abs(scores - wanted)) / np.max(np.abs(wanted)))
    record_property("golden", (f"{golden.model} {answer}", error))
    assert scores.shape == wanted.shape
    assert error <= TOLERANCE
    np.testing.assert_allclose(probabilities(scores), probabilities(wanted), atol=TOLERANCE)


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_probabilities_equal_keras(golden, tmp_path, record_property):
    write_by_names(tmp_path / "whole.h5", golden.whole)
    assert_same_answers(golden, tmp_path / "whole.h5", "logits", record_property)
    write_archive(tmp_path / "tuned.keras", golden.tuned)
    assert_same_answers(golden, tmp_path / "tuned.keras", "tuned", record_property)


def test_every_application_of_the_table_of_weights_is_a_row():
    with_weights = {
        name
        for name in list_models(pretrained=True)
        if any(row.library == "keras" for row in published_weights(name))
    }
    assert with_weights <= {row.model or name for name, row in APPLICATIONS.items()}


def test_every_row_has_its_golden_and_bites():
    assert {path.stem for path in DATA.glob("*.npz")} == set(APPLICATIONS)
    for name in APPLICATIONS:
        with np.load(DATA / f"{name}.npz") as file:
            for answer in ("logits", "tuned"):
                scores = file[answer]
                spread = np.linalg.norm(scores - scores.mean())
                assert np.linalg.norm(scores - scores.mean(0)) >= 0.1 * spread, (name, answer)
