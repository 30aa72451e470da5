"""Every row of `detectors.DETECTORS` and `detectors.TRAINED`: the weights of torchvision's detectors
make ours the same detectors, of pictures of any size and in training; see README.md."""

import math
from typing import NamedTuple

import detectors
import draw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import DATA, DETECTORS, TRAINED, Detector

from jaxnets.detection import detect, matching
from jaxnets.detection.detector import Truths
from jaxnets.models import create_model
from jaxnets.models.published import IMAGENET_MEAN, IMAGENET_STD
from jaxnets.weights import from_torch, to_torch
from jaxnets.weights.conversion import abstract_leaves

BOX_TOLERANCE = 0.01  # pixels of the picture
SCORE_TOLERANCE = 1e-4
MASK_OVERLAP = 0.999  # or a pixel, whose probability is a half but for rounding
TRAINING_TOLERANCE = 1e-6

QUICK = "fcos_resnet50_fpn"
EVERY_PICTURE = "maskrcnn_resnet50_fpn"
ROWS = [
    pytest.param(name, marks=[pytest.mark.zoo, *([pytest.mark.small] if name == QUICK else [])])
    for name in DETECTORS
]
# Each size of picture is compiled anew: one row has all of them, the others the smallest one.
ROWS_AND_PICTURES = [
    pytest.param(
        name,
        i,
        marks=[pytest.mark.zoo, *([pytest.mark.small] if (name, i) == (QUICK, 0) else [])],
    )
    for name in DETECTORS
    for i in range(len(detectors.PICTURES) if name == EVERY_PICTURE else 1)
]

TERMS = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "rpn_box",
    "loss_classifier": "classification",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "classification": "classification",
    "bbox_regression": "box",
    "bbox_ctrness": "centerness",
}
"""The terms of the loss, by torchvision's names."""


class Golden(NamedTuple):
    """A row, the settings by which ours is torchvision's, its answers, and its weights."""

    row: Detector
    settings: dict[str, object]
    answers: dict[str, np.ndarray]
    state_dict: dict[str, np.ndarray]


def golden_of(name, row):
    with np.load(DATA / f"{name}.npz") as file:
        answers = dict(file)
    lines = [line.split() for line in str(answers["tensors"]).splitlines()]
    shapes = {key: tuple(map(int, shape)) for key, *shape in lines}
    settings = {} if row.epsilon is None else {"norm": "frozen", "epsilon": row.epsilon}
    return Golden(row, settings, answers, detectors.drawn(shapes, row.seed, answers))


@pytest.fixture(scope="module")
def golden(request):
    return golden_of(request.param, DETECTORS[request.param])


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(("golden", "picture"), ROWS_AND_PICTURES, indirect=["golden"])
def test_the_references_objects_are_found(golden, picture, record_property):
    boxes, scores, labels = (golden.answers[f"{key} {picture}"] for key in ("boxes", "scores", "labels"))
    model = create_model(golden.row.model, **golden.settings)
    variables = from_torch(golden.row.model, golden.state_dict, **golden.settings)
    (found,) = detect(model, variables, [detectors.pictures()[picture]])
    np.testing.assert_array_equal(found.labels, labels)
    assert len(labels) > 0
    errors = [np.max(abs(found.boxes - boxes)), np.max(abs(found.scores - scores))]
    overlap = 1.0
    assert (found.masks is not None) == (f"masks {picture}" in golden.answers)
    if found.masks is not None:
        masks = np.unpackbits(golden.answers[f"masks {picture}"], axis=-1)
        masks = masks[..., : found.masks.shape[-1]].astype(bool)
        assert masks.any((1, 2)).mean() > 0.5
        either = (found.masks | masks).sum((1, 2))
        apart = (found.masks ^ masks).sum((1, 2))
        overlap = 1 - np.max(np.where(apart > 1, apart, 0) / np.maximum(either, 1))
    record_property("errors", [len(labels), *map(float, errors), float(overlap)])
    assert errors[0] <= BOX_TOLERANCE
    assert errors[1] <= SCORE_TOLERANCE
    assert overlap >= MASK_OVERLAP


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_conversion_there_and_back_changes_no_bit(golden):
    name, settings = golden.row.model, golden.settings
    variables = from_torch(name, golden.state_dict, **settings)
    back = to_torch(name, variables, "torchvision", **settings)
    if golden.row.epsilon is not None:  # torchvision's counts no batches, but passes over the counts
        back = {key: value for key, value in back.items() if not key.endswith("_tracked")}
    assert set(back) == set(golden.state_dict)
    for key, value in golden.state_dict.items():
        assert back[key].dtype == value.dtype, key
        np.testing.assert_array_equal(back[key], value, err_msg=key)
    if not name.endswith("_v2"):
        old = detectors.old_names(golden.state_dict)
        assert_same(from_torch(name, old, "torchvision_v1", **settings), variables)


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_parameters_are_as_many_as_the_references(golden):
    leaves = abstract_leaves(create_model(golden.row.model, norm="batch"))
    ours = sum(math.prod(shape) for (kind, *_), shape in leaves if kind == "params")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    theirs = {key: value for key, value in golden.state_dict.items() if not key.endswith(statistics)}
    assert ours == sum(value.size for value in theirs.values())


def first_by_index(key, positive, negative, count, share):
    """`matching.sample` without chance, as the reference was run."""
    chosen = positive & (jnp.cumsum(positive) <= int(count * share))
    return chosen, negative & (jnp.cumsum(negative) <= count - chosen.sum())


def batch_of(batch):
    """Normalized images and truths, padded to as many objects."""
    images = np.stack(detectors.training_pictures()).astype(np.float32) / np.float32(255)
    images = (images.astype(np.float64) - IMAGENET_MEAN) / IMAGENET_STD
    most = max(len(truth["labels"]) for truth in batch)

    def padded(key):
        values = [truth[key] for truth in batch]
        return np.stack([np.pad(x, [(0, most - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in values])

    valid = np.arange(most) < np.array([[len(truth["labels"])] for truth in batch])
    boxes, labels = padded("boxes").astype(np.float64), padded("labels").astype(np.int32)
    return images, Truths(boxes, labels, valid, padded("masks"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.zoo) for name in TRAINED])
def test_training_gives_the_references_losses_and_gradients(
    name, double_precision, monkeypatch, record_property
):
    golden = golden_of(f"train_{name}", TRAINED[name])
    monkeypatch.setattr(matching, "sample", first_by_index)
    height, width = detectors.TRAINED_SIZE
    model = create_model(name, min_size=height, max_size=width, **golden.settings)
    variables = from_torch(name, golden.state_dict, **golden.settings)
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
    rest = {kind: tree for kind, tree in variables.items() if kind != "params"}

    @jax.jit
    def train(params, images, truths):
        def loss(params):
            terms = model.apply(
                {"params": params, **rest}, images, None, truths, jax.random.key(0), method="losses"
            )
            terms = {key: top.sum() / jnp.maximum(down.sum(), 1) for key, (top, down) in terms.items()}
            return sum(terms.values()), terms

        return jax.grad(loss, has_aux=True)(params)

    for i, batch in enumerate(detectors.training_batches()):
        gradients, terms = train(variables["params"], *batch_of(batch))
        wanted = {
            TERMS[key.removeprefix(f"{i} loss ")]: float(value)
            for key, value in golden.answers.items()
            if key.startswith(f"{i} loss ")
        }
        assert set(terms) == set(wanted)
        record_property(f"errors {i}", [abs(float(terms[key]) / wanted[key] - 1) for key in wanted])
        for key, value in wanted.items():
            np.testing.assert_allclose(terms[key], value, rtol=TRAINING_TOLERANCE, err_msg=key)
        tensors = to_torch(name, {"params": gradients, **rest}, "torchvision", **golden.settings)
        names = str(golden.answers[f"{i} gradient_names"]).splitlines()
        draw.assert_same_sketch(
            {key: tensors[key] for key in names}, golden.answers[f"{i} gradients"], TRAINING_TOLERANCE
        )


def test_every_detector_has_its_golden_and_every_golden_its_detector():
    names = {*DETECTORS, *(f"train_{name}" for name in TRAINED)}
    assert {path.stem for path in DATA.glob("*.npz")} == names
