"""Files of torchvision's segmenters, whose auxiliary heads come and go."""

import jax
import numpy as np
import pytest

import jaxnets
from jaxnets import weights
from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.segmentation.building import VOC_CLASSES
from jaxnets.weights import conversion, files, matching

ROWS = {
    "fcn_resnet50": {"backbone_settings": {"depths": (1, 1, 1, 1)}},
    "deeplabv3_resnet50": {"backbone_settings": {"depths": (1, 1, 1, 1)}, "features": 32},
    "deeplabv3_mobilenet_v3_large": {"features": 16},
    "lraspp_mobilenet_v3_large": {},
}


def drawn(model):
    """Variables, each leaf other numbers."""
    rng = np.random.default_rng(0)
    leaves = conversion.abstract_leaves(model)
    return conversion.filled(
        [conversion.Place(path, shape, "/".join(path), None) for path, shape in leaves],
        {"/".join(path): rng.uniform(0.5, 1, shape) for path, shape in leaves},
        np.float32,
    )


@pytest.fixture(params=ROWS)
def written(request, tmp_path):
    """The name of a row, settings that make it small, a file by torchvision's names, its variables."""
    name, settings = request.param, ROWS[request.param]
    variables = drawn(create_model(name, **settings))
    path = tmp_path / "segmenter.safetensors"
    files.write_safetensors(path, weights.to_torch(name, variables, **settings))
    return name, settings, path, variables


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def without_auxiliary(variables):
    return {
        kind: {part: tree for part, tree in parts.items() if not part.startswith("auxiliary_")}
        for kind, parts in variables.items()
    }


def test_a_file_of_torchvision_is_read_with_its_auxiliary_head_or_without(written):
    name, settings, path, variables = written
    tensors = files.read_safetensors(path)[0]
    assert {key.partition(".")[0] for key in tensors} - {"aux_classifier"} == {"backbone", "classifier"}
    loaded = weights.load(name, path, **settings)
    assert_same(loaded.variables, variables)
    assert loaded.class_names == loaded.model.class_names == VOC_CLASSES
    if not loaded.model.auxiliary:
        return
    loaded = weights.load(name, path, aux=False, **settings)
    assert_same(loaded.variables, without_auxiliary(variables))
    assert loaded.model == create_model(name, aux=False, **settings)
    assert_same(weights.from_torch(name, tensors, aux=True, **settings), variables)

    bare = {key: value for key, value in tensors.items() if not key.startswith("aux_classifier")}
    assert_same(weights.from_torch(name, bare, **settings), without_auxiliary(variables))
    files.write_safetensors(path, bare)
    again = weights.load(name, path, **settings)  # the head that the file lacks is drawn
    assert_same(without_auxiliary(again.variables), without_auxiliary(variables))
    assert jax.tree.structure(again.variables) == jax.tree.structure(variables)


def test_other_classes_draw_the_scoring_layers_anew_and_these_alone(written):
    name, settings, path, variables = written
    model, loaded = jaxnets.load_pretrained(name, path, num_classes=4, **settings)
    assert model.num_classes == 4
    assert model.class_names == ()
    named = weights.load(name, path, **settings).adapted(class_names=list("abcd"))
    assert named.model.class_names == named.class_names == tuple("abcd")
    places = dict(conversion.abstract_leaves(model))
    changed = {
        path for path, shape in conversion.abstract_leaves(create_model(name, **settings))
        if shape != places[path]
    }  # fmt: skip
    heads = {"/".join(path[1:-1]) for path in changed}
    if name.startswith("lraspp"):
        assert heads == {"decoder/low_scores", "decoder/high_scores"}
    else:
        auxiliary = "stage3_block1" if "mobilenet" in name else "stage3"
        decoder = "decoder/head/conv2" if name.startswith("fcn") else "decoder/conv2"
        assert heads == {decoder, f"auxiliary_{auxiliary}/conv2"}
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    for keys, value in leaves:
        path = tuple(key.key for key in keys)
        found = loaded
        for key in path:
            found = found[key]
        assert np.array_equal(found, value) == (path not in changed), path


@pytest.mark.slow
def test_a_library_without_names_for_a_backbone_is_not_what_is_told_of_other_files(
    tmp_path, monkeypatch
):
    """chainercv's DeepLab v3+ stands on Xception alone; another library has one on ResNet."""
    monkeypatch.setattr(matching, "recognized_model", lambda shapes: None)  # which takes its time
    settings = {"depths": (1, 1, 1, 1)}
    path = tmp_path / "resnet18.safetensors"
    variables = drawn(create_model("resnet18", **settings))
    files.write_safetensors(path, weights.to_torch("resnet18", variables, **settings))
    with pytest.raises(InputError, match="does not fit deeplabv3plus_resnet50 by smp's names"):
        weights.load("deeplabv3plus_resnet50", path)
