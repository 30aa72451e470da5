"""From files of every kind to models: small nets, whose weights the tests write themselves."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from huggingface_hub import constants

import jaxnets
from jaxnets import pretrained, weights
from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.weights import files, to_torch

SMALL = {"depths": (1, 1)}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def drawn(name, channels=3, **overrides):
    """Variables of a model, each leaf other numbers."""
    model = create_model(name, **overrides)
    images = jnp.zeros((1, *model.input_size[:2], channels))
    shapes = jax.eval_shape(functools.partial(nn.Module.init, model), jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def written(tmp_path):
    """Writes the weights of a model under a library's names; returns the file and the variables."""

    def written(name, library="torchvision", dtype=np.float32, path=None, **overrides):
        variables = drawn(name, **overrides)
        tensors = to_torch(name, variables, library, **overrides)
        path = path or tmp_path / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        floats = {key: v.astype(dtype) if v.ndim else v for key, v in tensors.items()}
        files.write_safetensors(path, floats)
        return path, variables

    return written


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def without_head(variables):
    return {**variables, "params": {"backbone": variables["params"]["backbone"]}}


def test_a_file_of_a_librarys_names(written):
    path, variables = written("resnet18", num_classes=3, **SMALL)
    model, loaded = jaxnets.load_pretrained("resnet18", path, **SMALL)
    assert_same(loaded, variables)
    assert model == create_model("resnet18", num_classes=3, **SMALL)
    assert jax.eval_shape(model.apply, loaded, jnp.zeros((1, 32, 32, 3))).shape == (1, 3)


def test_another_number_of_classes_swaps_the_head_alone(written):
    path, variables = written("resnet18", num_classes=3, **SMALL)
    model, loaded = jaxnets.load_pretrained("resnet18", path, 5, **SMALL)
    assert_same(without_head(loaded), without_head(variables))
    kernel = loaded["params"]["head"]["fc"]["kernel"]
    assert kernel.shape == (128, 5)
    assert 0.5 < kernel.std() * np.sqrt(128) < 1.5  # LeCun normal: drawn, not zeros and not loaded
    assert not loaded["params"]["head"]["fc"]["bias"].any()
    assert model.num_classes == 5
    other = jaxnets.load_pretrained("resnet18", path, 5, key=jax.random.key(1), **SMALL)[1]
    assert (other["params"]["head"]["fc"]["kernel"] != kernel).all()
    model, loaded = jaxnets.load_pretrained("resnet18", path, 0, **SMALL)
    assert_same(loaded, without_head(variables))


def test_a_new_head_may_have_as_many_classes(written):
    path, variables = written("resnet18", num_classes=3, **SMALL)
    loaded = weights.load("resnet18", path, **SMALL).adapted(new_head=True)
    assert_same(without_head(loaded.variables), without_head(variables))
    kernel = loaded.variables["params"]["head"]["fc"]["kernel"]
    assert kernel.shape == (128, 3)
    assert (kernel != variables["params"]["head"]["fc"]["kernel"]).all()


def test_a_head_is_kept_for_the_same_class_names_alone(written):
    path, variables = written("resnet18", num_classes=3, **SMALL)
    loaded = dataclasses.replace(
        weights.load("resnet18", path, **SMALL), class_names=("cat", "dog", "owl")
    )
    kept = loaded.adapted(class_names=["cat", "dog", "owl"])
    assert kept.class_names == ("cat", "dog", "owl")
    assert_same(kept.variables, variables)
    for names in (
        ("dog", "cat", "owl"),
        ("cat", "dog", "fox"),
        ("cat", "dog"),
        ("cat", "dog", "owl", "fox"),
    ):
        other = loaded.adapted(class_names=names)
        assert other.class_names == names
        assert other.model.num_classes == len(names)
        assert_same(without_head(other.variables), without_head(variables))
        kernel = other.variables["params"]["head"]["fc"]["kernel"]
        assert kernel.shape == (128, len(names))
        assert (kernel[:, 0] != variables["params"]["head"]["fc"]["kernel"][:, 0]).all()
    with pytest.raises(InputError, match="num_classes is 4, but class_names has 3"):
        loaded.adapted(4, class_names=("cat", "dog", "owl"))
    with pytest.raises(InputError, match="num_classes: weights are read with their own"):
        weights.load("resnet18", path, num_classes=3)


def test_only_the_last_of_several_dense_layers_is_swapped(written):
    settings = {"hidden": (8, 8), "num_classes": 8}  # as wide as the hidden ones
    path, variables = written("vgg11", **settings)
    _, loaded = jaxnets.load_pretrained("vgg11", path, 2, hidden=(8, 8))
    for layer in ("fc1", "fc2"):
        assert_same(loaded["params"]["head"][layer], variables["params"]["head"][layer])
    assert loaded["params"]["head"]["fc3"]["kernel"].shape == (8, 2)


def test_one_channel_takes_the_sum_and_four_repeat(written):
    path, variables = written("resnet18", num_classes=3, **SMALL)
    kernel = variables["params"]["backbone"]["stem"]["conv1"]["kernel"]
    model, loaded = jaxnets.load_pretrained("resnet18", path, in_channels=1, **SMALL)
    gray = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
    colored = create_model("resnet18", num_classes=3, **SMALL)
    np.testing.assert_allclose(
        jax.jit(model.apply)(loaded, gray),
        jax.jit(colored.apply)(variables, np.repeat(gray, 3, axis=3)),
        rtol=1e-3,
    )
    _, loaded = jaxnets.load_pretrained("resnet18", path, in_channels=4, **SMALL)
    four = loaded["params"]["backbone"]["stem"]["conv1"]["kernel"]
    np.testing.assert_allclose(four[:, :, 3], kernel[:, :, 0] * 3 / 4, rtol=1e-6)
    np.testing.assert_allclose(four[:, :, 1], kernel[:, :, 1] * 3 / 4, rtol=1e-6)
    with pytest.raises(InputError, match="in_channels is 0"):
        jaxnets.load_pretrained("resnet18", path, in_channels=0, **SMALL)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_halves_are_cast_or_kept_as_asked(written, dtype):
    path, variables = written("resnet18", num_classes=3, dtype=dtype, **SMALL)
    _, loaded = jaxnets.load_pretrained("resnet18", path, dtype=None, **SMALL)
    assert_same(loaded, jax.tree.map(lambda leaf: leaf.astype(dtype), variables))
    _, loaded = jaxnets.load_pretrained("resnet18", path, **SMALL)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}
    _, loaded = jaxnets.load_pretrained("resnet18", path, 2, dtype=None, **SMALL)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(dtype)}


@pytest.mark.slow
def test_auxiliary_heads_of_the_file_are_dropped_unless_wanted(written):
    path, variables = written("googlenet", num_classes=3, aux=True)
    model, loaded = jaxnets.load_pretrained("googlenet", path)
    assert set(loaded["params"]) == {"backbone", "head"}
    assert model == create_model("googlenet", num_classes=3)
    _, loaded = jaxnets.load_pretrained("googlenet", path, aux=True)
    assert_same(loaded, variables)


def test_names_of_a_library_bring_the_settings_of_its_weights(written):
    path, _ = written("seresnet50", "timm", num_classes=3, **SMALL)
    model, _ = jaxnets.load_pretrained("seresnet50", path, **SMALL)
    as_timm = {"padded_pool": True, "stride_in_1x1": False}
    assert model == create_model("seresnet50", num_classes=3, **as_timm, **SMALL)
    path, _ = written("seresnet50", "timm_legacy", num_classes=3, **SMALL)
    model, _ = jaxnets.load_pretrained("seresnet50", path, **SMALL)
    assert model == create_model("seresnet50", num_classes=3, **SMALL)


def test_the_hubs_config_names_the_model_and_its_images(written, tmp_path):
    config = {
        "architecture": "mobilenetv2_100",
        "label_names": ["cat", "dog"],
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "test_input_size": [3, 256, 256],
            "crop_pct": 0.9,
            "test_crop_pct": 0.95,
            "interpolation": "bilinear",
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
        },
    }
    folder = tmp_path / "repository"
    _, variables = written("mobilenet_v2_100", "timm", path=folder / "model.safetensors", num_classes=2)
    (folder / "config.json").write_text(json.dumps(config))
    loaded = weights.load(folder)
    assert_same(loaded.variables, variables)
    assert loaded.class_names == ("cat", "dog")
    for labels, names in (({"1": "dog", "0": "cat"}, ("cat", "dog")), (["cat"], ("0", "1"))):
        (folder / "config.json").write_text(json.dumps(config | {"label_names": labels}))
        assert weights.load(folder).class_names == names
    (folder / "config.json").write_text(json.dumps(config))
    wanted = weights.Preprocessing(269, 256, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert loaded.preprocessing == weights.preprocessing(folder) == wanted

    for changed, message in (
        ({"architecture": "convnext_tiny"}, "is of 'convnext_tiny', which is none of ours; give the na"),
        ({}, "does not name its model; give the name of the model before it"),
    ):
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            weights.load(folder)
        assert weights.load("mobilenet_v2_100", folder).preprocessing.size == 224


def test_what_is_saved_is_loaded_without_a_name(written, tmp_path):
    path, variables = written("resnet18", num_classes=3, **SMALL)
    loaded = weights.load("resnet18", path, **SMALL)
    ours = tmp_path / "mine.safetensors"
    weights.save(ours, loaded)
    again = weights.load(ours)
    assert_same(again.variables, variables)
    assert again.model == loaded.model
    assert again.preprocessing == loaded.preprocessing == weights.preprocessing(ours)
    assert weights.load("resnet18", ours).adapted(7).variables["params"]["head"]["fc"]["bias"].shape == (
        7,
    )
    with pytest.raises(InputError, match="holds weights of resnet18, not of resnet50"):
        weights.load("resnet50", ours)
    theirs = tmp_path / "theirs.safetensors"
    weights.save(theirs, again, "torchvision")
    assert files.read_safetensors(theirs)[0].keys() == files.read_safetensors(path)[0].keys()
    with pytest.raises(InputError, match="must end in .safetensors, or in .pth"):
        weights.save(tmp_path / "mine.npz", loaded)


def test_a_net_for_gray_images_comes_and_goes(written, tmp_path):
    path, _ = written("resnet18", num_classes=3, **SMALL)
    gray = weights.load("resnet18", path, **SMALL).adapted(in_channels=1)
    assert gray.preprocessing.mean == pytest.approx([np.mean((0.485, 0.456, 0.406))])
    for library in ("jaxnets", "torchvision"):
        weights.save(tmp_path / "gray.safetensors", gray, library)
        again = weights.load("resnet18", tmp_path / "gray.safetensors", **SMALL)
        assert_same(again.variables, gray.variables)
        assert again.model == gray.model
        assert again.preprocessing == gray.preprocessing


def test_settings_that_change_other_layers_are_refused(written, tmp_path):
    path, _ = written("resnext50_32x4d", num_classes=3, depths=(1,))
    ours = tmp_path / "mine.safetensors"
    weights.save(ours, weights.load("resnext50_32x4d", path, depths=(1,)))
    said = r"stage1_block1/conv2/kernel is \(3, 3, 8, 128\) .* \(3, 3, 4, 128\) came"
    with pytest.raises(InputError, match=said):
        weights.load(ours, groups=16, width_per_group=8)


def test_a_path_may_have_an_equals_sign(written, tmp_path):
    path, variables = written("resnet18", num_classes=3, **SMALL)
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    ours = folder / "mine.safetensors"
    weights.save(ours, weights.load("resnet18", path, **SMALL))
    assert weights.model_named_by(ours) == "resnet18"
    assert_same(pretrained.named(ours).variables, variables)
    assert_same(pretrained.named(f"resnet18={ours}").variables, variables)


def test_weights_of_another_architecture_are_named(written):
    path, _ = written("squeezenet1_1", num_classes=3)
    with pytest.raises(InputError, match=r"does not fit squeezenet1_0 .*; it looks like squeezenet1_1$"):
        jaxnets.load_pretrained("squeezenet1_0", path)
    with pytest.raises(InputError, match=r"does not fit alexnet_owt .*; it looks like squeezenet1_1$"):
        jaxnets.load_pretrained("alexnet_owt", path)


@pytest.mark.slow
def test_weights_of_no_architecture_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    files.write_safetensors(path, {"encoder.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(InputError) as refusal:
        jaxnets.load_pretrained("squeezenet1_0", path)
    assert "does not fit squeezenet1_0" in str(refusal.value)
    assert "looks like" not in str(refusal.value)


def test_names_that_lead_nowhere():
    with pytest.raises(InputError, match="unknown model 'resnet5'; did you mean"):
        jaxnets.load_pretrained("resnet5")
    with pytest.raises(InputError, match="unknown model 'resnet5'; did you mean"):
        jaxnets.load_pretrained("resnet5", "weights.safetensors")
    with pytest.raises(InputError, match="there are no public weights for lenet5"):
        jaxnets.load_pretrained("lenet5")
    with pytest.raises(InputError, match=r"hf:timm/resnet50.a1_in1k is not in the cache"):
        jaxnets.load_pretrained("resnet50")
    with pytest.raises(InputError, match="no such file"):
        jaxnets.load_pretrained("resnet50", "none.safetensors")
