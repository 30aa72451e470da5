"""Every row of `references.GOLDENS`: the reference's weights make ours the reference's function.

The weights are drawn again by the reference's names and shapes and go through the package's own
converter, so that neither the references nor torch are needed here; see README.md.
"""

from pathlib import Path
from typing import NamedTuple

import draw
import jax
import jax.numpy as jnp
import marks
import numpy as np
import pytest
import slim_rows
from keras_rows import APPLICATIONS
from references import AUXILIARY_WEIGHT, GOLDENS, Reference

from jaxnets.models import create_model, model_info
from jaxnets.models.registry import families
from jaxnets.weights import from_torch, to_torch

DATA = Path(__file__).parent / "data"

LOGITS_TOLERANCE = 1e-4
TRAINING_TOLERANCE = 1e-6

FILES_ALONE = {
    "torchvision_files",
    "torchvision_v1",
}  # names in old checkpoints, which no program writes

# Of these families the small members take long to compile too.
SLOW = (
    *("pnasnet5_large_short", "nasnet_large_short", "polynet_short", "inception_resnet_v2"),
    *("inception_v2", "inception_v3", "inception_v4", "googlenet", "xception", "alexnet_owt"),
    *("mobilenet_v2_narrow", "mobilenet_v3_small"),
)

ROWS = [
    pytest.param(
        name,
        marks=[
            pytest.mark.zoo,
            *([pytest.mark.small] if row.small and name not in SLOW else []),
            *([pytest.mark.deep] if name in marks.LARGEST else []),
        ],
    )
    for name, row in GOLDENS.items()
]
TRAINED_ROWS = [
    pytest.param(name, marks=pytest.mark.zoo)
    for name, row in GOLDENS.items()
    if row.small  # gradients take long to compile
]


class Golden(NamedTuple):
    name: str
    reference: Reference
    answers: dict[str, np.ndarray]
    state_dict: dict[str, np.ndarray]

    @property
    def model(self) -> str:
        return self.reference.model or self.name

    @property
    def images(self) -> np.ndarray:
        return draw.images(self.reference.images, self.reference.size)


@pytest.fixture(scope="module")
def golden(request):
    """A row, what its reference answered, and its reference's weights."""
    name, reference = request.param, GOLDENS[request.param]
    with np.load(DATA / f"{name}.npz") as file:
        answers = dict(file)
    lines = [line.split() for line in str(answers["tensors"]).splitlines()]
    shapes = {key: tuple(map(int, shape)) for key, *shape in lines}
    return Golden(name, reference, answers, draw.state_dict(shapes, reference.quiet))


def variables_of(golden, dtype):
    variables = from_torch(golden.model, golden.state_dict, **golden.reference.overrides)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), variables)


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_logits_equal_the_references(golden, record_property):
    variables = variables_of(golden, np.float32)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == golden.answers["parameters"]
    model = create_model(golden.model, **golden.reference.overrides)
    logits = np.asarray(jax.jit(model.apply)(variables, golden.images))
    wanted = golden.answers["logits"]
    error = float(np.max(np.abs(logits - wanted)) / np.max(np.abs(wanted)))
    record_property("golden", (golden.name, error))
    assert logits.shape == wanted.shape
    assert error <= LOGITS_TOLERANCE


@pytest.mark.parametrize("golden", ROWS, indirect=True)
def test_conversion_there_and_back_changes_no_bit(golden):
    settings = golden.reference.overrides
    variables = variables_of(golden, np.float32)
    back = to_torch(golden.model, variables, golden.reference.library, **settings)
    if settings.get("norm") == "frozen":  # torchvision's counts no batches, but passes over the counts
        back = {name: value for name, value in back.items() if not name.endswith("_tracked")}
    assert set(back) == set(golden.state_dict)
    for name, value in golden.state_dict.items():
        assert back[name].dtype == value.dtype, name
        np.testing.assert_array_equal(back[name], value, err_msg=name)


@pytest.mark.parametrize("golden", TRAINED_ROWS, indirect=True)
def test_training_gives_the_references_gradients_and_statistics(golden, double_precision):
    settings = dict(golden.reference.overrides)
    known = model_info(golden.model).settings
    settings |= {rate: 0.0 for rate in ("dropout", "aux_dropout", "drop_path") if rate in known}
    model = create_model(golden.model, **settings)
    variables = variables_of(golden, np.float64)
    labels = draw.labels(*golden.answers["logits"].shape)

    @jax.jit
    def train(params, statistics, images):
        def loss(params):
            logits, updated = model.apply(
                {"params": params, **statistics},
                images,
                train=True,
                mutable=["batch_stats", "auxiliary"],
            )
            heads = [(1.0, logits)]
            heads += [(AUXILIARY_WEIGHT, other) for other in updated.pop("auxiliary", {}).values()]
            chosen = [
                (weight, jax.nn.log_softmax(scores)[jnp.arange(len(labels)), labels])
                for weight, scores in heads
            ]
            return -sum(weight * jnp.mean(scores) for weight, scores in chosen), updated

        return jax.value_and_grad(loss, has_aux=True)(params)

    statistics = {kind: tree for kind, tree in variables.items() if kind != "params"}
    (loss, updated), gradients = train(variables["params"], statistics, golden.images.astype(np.float64))
    np.testing.assert_allclose(loss, golden.answers["loss"], rtol=TRAINING_TOLERANCE)

    changes = jax.tree.map(jnp.subtract, updated, statistics)
    tensors = to_torch(
        golden.model, {"params": gradients, **changes}, golden.reference.library, **settings
    )
    statistic_names = {name for name in tensors if "running_" in name}
    draw.assert_same_sketch(
        {name: tensors[name] for name in statistic_names}, golden.answers["changes"], TRAINING_TOLERANCE
    )
    draw.assert_same_sketch(
        {
            name: value
            for name, value in tensors.items()
            if name not in statistic_names and not name.endswith("num_batches_tracked")
        },
        golden.answers["gradients"],
        TRAINING_TOLERANCE,
    )


def test_every_table_of_renames_is_used_by_a_row():
    rows = {(row.library, row.model or name) for name, row in GOLDENS.items()}
    rows |= {("keras", row.model or name) for name, row in APPLICATIONS.items()}
    rows |= {("slim", row.model or name) for name, row in slim_rows.GOLDENS.items()}
    rows.add(("transformers", "resnet50"))  # in tests/weights/test_flax_and_numpy_files.py
    for family in families("classification"):
        for library in getattr(family, "RENAMES", {}):
            if library not in FILES_ALONE:
                assert any((library, name) in rows for name in family.VARIANTS), (family, library)


def test_every_row_has_its_golden_and_every_golden_its_row():
    not_of_models = {
        "detection_ops",
        "explain",
        "fcn_tail",
        "preprocessing",
        "augmentation",
        "recurrent",
        "resizing",
        "unpooling",
    }
    assert {path.stem for path in DATA.glob("*.npz")} - not_of_models == set(GOLDENS)


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_is_that_of_its_row_and_bites(name):
    row = GOLDENS[name]
    with np.load(DATA / f"{name}.npz") as file:
        assert str(file["reference"]).split()[0] == row.library
        assert (len(file["logits"]), file["size"]) == (row.images, row.size)
        assert ("gradients" in file) == row.small
        assert file["bite"] >= 0.1
