"""Models of another task than classification, in the registry, weights, summaries and commands: a small
detector that stands in for all."""

import dataclasses
import functools
import types
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

import jaxnets
from jaxnets import cli, detection, explain, weights
from jaxnets.captioning import create_captioner
from jaxnets.errors import InputError
from jaxnets.layers import Conv
from jaxnets.layers.initialization import InitializedAtOnce
from jaxnets.models import (
    create_classifier,
    create_model,
    list_models,
    model_info,
    published,
    register,
    registry,
    resnet,
)
from jaxnets.models.settings import Count, Counts, NonNegative
from jaxnets.weights import conversion, files, matching

ANCHORS = 3


class Found(NamedTuple):
    boxes: jax.Array
    scores: jax.Array
    masks: jax.Array | None


class Detector(InitializedAtOnce):
    """A box for each anchor of each place, in the order of the scores."""

    backbone: nn.Module
    num_classes: int
    input_size: tuple[int, int, int]
    min_size: int = 1
    class_names: tuple[str, ...] = ()
    resizing: detection.Resizing = detection.Resizing(48, 96)
    model_name: str = "the model"

    @nn.compact
    def __call__(self, images, train=False):
        *_, x = self.backbone(images, train).values()
        x = nn.relu(Conv(8, 1, name="fpn")(x))
        scores = Conv(ANCHORS * self.num_classes, 3, padding=1, name="cls_logits")(x)
        scores = scores.reshape(len(images), -1, self.num_classes).max(-1)
        boxes = Conv(ANCHORS * 4, 3, padding=1, name="bbox_reg")(x).reshape(len(images), -1, 4)
        kept, _ = jax.vmap(functools.partial(detection.nms, iou=0.5, k=2))(boxes, scores)
        boxes, scores = (jnp.take_along_axis(a, kept[..., None], 1) for a in (boxes, scores[..., None]))
        return Found(boxes, scores, None)


def build(
    *,
    num_classes: Count = 91,
    depths: Counts = (1, 1),
    epsilon: NonNegative = 1e-5,
    norm: Literal["batch", "frozen"] = "frozen",
) -> Detector:
    backbone = create_classifier("resnet18", 0, depths=depths, epsilon=epsilon, norm=norm).backbone
    return Detector(backbone, num_classes, (48, 64, 3))


def renames(fpn):
    body = [(ours, f"backbone.body.{theirs}") for ours, theirs in resnet.RENAMES["torchvision"][:-1]]
    return (*body, ("fpn", fpn), ("{layer}", "head.{layer}"))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", {})
    family = types.ModuleType("stand_in")
    row = published.torchvision_detector(
        "dots_coco-01234567.pth", "dots", 37.0, 34.6, library="torchvision_v1", settings={"epsilon": 0.0}
    )
    vars(family).update(
        TASK="detection",
        build=build,
        VARIANTS={"any_dots": {}, "dots": {}},  # the same net, as of a kind for any backbone
        PAPER="none",
        WEIGHTS={"dots": (row,)},
        RENAMES={"torchvision": renames("fpn.0"), "torchvision_v1": renames("fpn")},
        class_names=lambda count: tuple(f"thing {k}" for k in range(count)),
    )
    register(family)


def drawn(model):
    """Variables, each leaf other numbers."""
    leaves = conversion.abstract_leaves(model)
    rng = np.random.default_rng(0)
    return conversion.filled(
        [conversion.Place(path, shape, "/".join(path), None) for path, shape in leaves],
        {"/".join(path): rng.uniform(0.5, 1, shape) for path, shape in leaves},
        np.float32,
    )


@pytest.fixture
def written(tmp_path):
    """A file by the older names, of 5 classes, and its variables."""
    variables = drawn(create_model("dots", 5))
    path = tmp_path / "dots.safetensors"
    files.write_safetensors(path, weights.to_torch("dots", variables, "torchvision_v1", num_classes=5))
    return path, variables


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_registry_knows_a_detector_as_any_model():
    assert {"any_dots", "dots"} <= set(list_models(task="detection"))
    assert "dots" in list_models(pretrained=True)
    assert "dots" not in list_models(task="classification")
    assert model_info("dots").task == "detection"
    assert create_model("dots", 3).model_name == "dots"
    with pytest.raises(InputError, match="num_classes: wanted an integer, 1 or more"):
        create_model("dots", 0)


def test_state_dicts_are_read_and_written_by_either_librarys_names():
    variables = drawn(create_model("dots", 5))
    assert set(variables) == {"params", "constants"}
    for library, name in (("torchvision", "fpn.0.weight"), ("torchvision_v1", "fpn.weight")):
        tensors = weights.to_torch("dots", variables, library, num_classes=5)
        assert name in tensors
        assert "backbone.body.layer1.0.bn1.running_var" in tensors
        assert_same(weights.from_torch("dots", tensors, num_classes=5), variables)


def test_a_file_tells_its_number_of_classes_and_its_rows_settings(written):
    path, variables = written
    loaded = weights.load("dots", path)
    assert_same(loaded.variables, variables)
    assert loaded.model == create_model("dots", 5, epsilon=0.0)
    assert loaded.class_names == ("thing 0", "thing 1", "thing 2", "thing 3", "thing 4")
    assert loaded.preprocessing is None
    with pytest.raises(weights.UnknownImagesError, match="dots is no classifier"):
        weights.preprocessing_of(loaded)
    with pytest.raises(weights.UnknownImagesError):
        weights.preprocessing("dots")


def test_other_classes_draw_the_scoring_layers_anew_and_these_alone(written):
    path, variables = written
    for options in ({"num_classes": 3}, {"new_head": True}):
        model, loaded = jaxnets.load_pretrained("dots", path, **options)
        classes = options.get("num_classes", 5)
        assert model == create_model("dots", classes, epsilon=0.0)
        scores = loaded["params"].pop("cls_logits")
        assert scores["kernel"].shape == (3, 3, 8, ANCHORS * classes)
        assert 0.5 < scores["kernel"].std() * np.sqrt(72) < 1.5  # LeCun normal: drawn
        rest = {**variables["params"]}
        rest.pop("cls_logits")
        assert_same(loaded, {**variables, "params": rest})


def test_the_scoring_layers_may_be_missing_where_they_are_drawn_anew(written, monkeypatch):
    monkeypatch.setattr(matching, "recognized_model", lambda shapes: None)  # which takes its time
    path, variables = written
    tensors = {key: np.asarray(value) for key, value in files.read_safetensors(path)[0].items()}
    rest = {f"model.{key}": value for key, value in tensors.items() if "cls_logits" not in key}
    assert len(rest) == len(tensors) - 2
    files.write_safetensors(path, rest)
    for options in ({"num_classes": 3}, {"new_head": True}):
        model, loaded = jaxnets.load_pretrained("dots", path, **options)
        assert model.num_classes == options.get("num_classes", 91)
        kernel = loaded["params"].pop("cls_logits")["kernel"]
        assert 0.5 < kernel.std() * np.sqrt(72) < 1.5
        rest = {key: value for key, value in variables["params"].items() if key != "cls_logits"}
        assert_same(loaded, {**variables, "params": rest})
    with pytest.raises(
        InputError, match=r"2 missing \(head.cls_logits.* give num_classes for a new one"
    ):
        jaxnets.load_pretrained("dots", path)


def test_another_setting_is_no_reason_to_draw_layers_anew(written):
    with pytest.raises(InputError, match="stage2_block2.* came"):
        weights.load("dots", written[0]).adapted(3, depths=(1, 2))


def test_our_own_files_hold_detectors(written, tmp_path):
    loaded = weights.load("dots", written[0])
    named = loaded.model.clone(class_names=("a", "b", "c", "d"))
    loaded = dataclasses.replace(loaded, model=named)
    weights.save(tmp_path / "ours.safetensors", loaded)
    again = weights.load(tmp_path / "ours.safetensors")
    assert_same(again.variables, loaded.variables)
    assert again.model == named
    assert again.adapted(3).model.class_names == ()
    assert again.class_names == loaded.class_names


def test_convert_rewrites_older_names_as_todays(written, capsys):
    path, _ = written
    out = path.with_name("new.safetensors")
    cli.main(["convert", "dots", str(path), "-o", str(out), "--library", "torchvision"])
    assert "fpn.0.weight" in files.read_safetensors(out)[0]


def test_weights_of_a_detector_are_recognized_for_another_model(written):
    with pytest.raises(InputError, match="it looks like dots"):
        weights.load("resnet18", written[0])


def test_the_list_of_weights_says_what_a_detector_claims(capsys):
    cli.main(["models", "dots", "--pretrained"])
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.startswith("dots   37.00 box AP, 34.60 mask AP  800-1333")
    assert line.endswith("torchvision:dots_coco-01234567.pth")
    cli.main(["models", "dots"])
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["dots", "detection", "48x64x3"]


def test_what_needs_a_classifier_refuses_a_detector(written, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(written[0])
    for words in (
        ["train", "--model", "dots"],
        ["train", "--pretrained", f"dots={path}"],
        ["predict", f"dots={path}", "p.png"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 2, words
        assert "dots is" in capsys.readouterr().err, words
    with pytest.raises(InputError, match="dots is a model of detection; wanted one of classification"):
        create_captioner("lrcn", "dots", 10)


def test_a_summary_of_a_detector_adds_up():
    found = jaxnets.summary("dots", num_classes=5)
    leaves = conversion.abstract_leaves(create_model("dots", 5))
    params = sum(int(np.prod(shape)) for (kind, *_), shape in leaves if kind == "params")
    assert found.params == params
    rows = {row.path: row for row in found.folded(1)}
    assert rows["fpn"].output_shape == (1, 6, 8, 8)
    assert rows["cls_logits"].multiply_adds == 6 * 8 * 9 * 8 * ANCHORS * 5
    assert rows["backbone/stem"].receptive_field.stride == (2, 2)
    assert sum(row.parameters for row in found.folded()) == params
    assert "dots on 1x48x64x3" in found.table(1)


def test_the_backbone_of_a_detector_is_looked_into(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = weights.load("dots", written[0])
    inside = weights.inside(loaded)
    assert inside.preprocessing == weights.Preprocessing(48, 48)
    backbones = {kind: parts["backbone"] for kind, parts in loaded.variables.items()}
    assert_same({kind: parts["backbone"] for kind, parts in inside.variables.items()}, backbones)
    images = jax.ShapeDtypeStruct((1, 48, 48, 3), jnp.float32)
    assert "backbone/stage2_block1" in explain.layer_shapes(inside.model, inside.variables, images)
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save("p.png")
    drawn = []
    monkeypatch.setattr("jaxnets.explain.show_filters", lambda kernels, *rest: drawn.append(kernels))
    cli.main(["explain", "filters", "p.png", "--model", f"dots={written[0]}", "-o", "filters.png"])
    kernel = backbones["params"]["stem"]["conv1"]["kernel"]
    np.testing.assert_array_equal(drawn[0], np.moveaxis(kernel, -1, 0))
