"""The goldens show that the weights come out right; here is what holds around that."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.core import freeze

from jaxnets.errors import InputError
from jaxnets.models import create_model, resnet
from jaxnets.weights import from_torch, libraries, to_torch

TINY = {"depths": (1, 2), "num_classes": 3}
TINY_SHAPES = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1": 64,
    "layer1.0.conv1.weight": (64, 64, 3, 3),
    "layer1.0.bn1": 64,
    "layer1.0.conv2.weight": (64, 64, 3, 3),
    "layer1.0.bn2": 64,
    "layer2.0.conv1.weight": (128, 64, 3, 3),
    "layer2.0.bn1": 128,
    "layer2.0.conv2.weight": (128, 128, 3, 3),
    "layer2.0.bn2": 128,
    "layer2.0.downsample.0.weight": (128, 64, 1, 1),
    "layer2.0.downsample.1": 128,
    "layer2.1.conv1.weight": (128, 128, 3, 3),
    "layer2.1.bn1": 128,
    "layer2.1.conv2.weight": (128, 128, 3, 3),
    "layer2.1.bn2": 128,
    "fc.weight": (3, 128),
    "fc.bias": (3,),
}


@pytest.fixture
def tiny():
    """The state dict of a `resnet18` with `TINY`, written out by hand."""
    rng = np.random.default_rng(0)
    state_dict = {}
    for name, shape in TINY_SHAPES.items():
        if isinstance(shape, tuple):
            state_dict[name] = rng.normal(size=shape).astype(np.float32)
        else:
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                state_dict[f"{name}.{leaf}"] = rng.normal(size=shape).astype(np.float32)
            state_dict[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)
    return state_dict


def drawn(name, **overrides):
    """Variables of a model, each leaf another number."""
    model = create_model(name, **overrides)
    shapes = jax.eval_shape(
        functools.partial(nn.Module.init, model), jax.random.key(0), jnp.zeros((1, *model.input_size))
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_every_tensor_finds_its_place(tiny):
    variables = from_torch("resnet18", tiny, **TINY)
    params, stats = variables["params"], variables["batch_stats"]["backbone"]
    block = params["backbone"]["stage2_block1"]
    np.testing.assert_array_equal(
        block["downsample_conv"]["kernel"],
        tiny["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(block["bn2"]["scale"], tiny["layer2.0.bn2.weight"])
    np.testing.assert_array_equal(block["bn2"]["bias"], tiny["layer2.0.bn2.bias"])
    np.testing.assert_array_equal(stats["stem"]["bn1"]["mean"], tiny["bn1.running_mean"])
    np.testing.assert_array_equal(stats["stage2_block2"]["bn1"]["var"], tiny["layer2.1.bn1.running_var"])
    np.testing.assert_array_equal(params["head"]["fc"]["kernel"], tiny["fc.weight"].T)
    assert len(jax.tree.leaves(variables)) == len([k for k in tiny if "num_batches" not in k])


def test_variables_are_what_the_model_takes(tiny):
    model = create_model("resnet18", **TINY)
    wanted = jax.eval_shape(
        functools.partial(nn.Module.init, model), jax.random.key(0), jnp.zeros((1, *model.input_size))
    )
    came = jax.eval_shape(lambda: from_torch("resnet18", tiny, **TINY))
    assert came == wanted


def test_there_and_back_changes_no_bit(tiny):
    back = to_torch("resnet18", from_torch("resnet18", tiny, **TINY), **TINY)
    assert back.keys() == tiny.keys()
    for name, value in tiny.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_library_is_told_by_the_names(library):
    settings = {"hidden": (8, 8), "num_classes": 3}
    variables = drawn("vgg11", **settings)
    state_dict = to_torch("vgg11", variables, library, **settings)
    assert_same(from_torch("vgg11", state_dict, **settings), variables)
    other = {"torchvision": "timm", "timm": "torchvision"}[library]
    with pytest.raises(InputError, match=f"does not fit vgg11 by {other}'s names: 6 missing"):
        from_torch("vgg11", state_dict, other, **settings)


def test_counts_of_batches_may_be_missing(tiny):
    without = {name: value for name, value in tiny.items() if "num_batches" not in name}
    assert_same(from_torch("resnet18", without, **TINY), from_torch("resnet18", tiny, **TINY))


def test_what_comes_out_is_a_copy(tiny):
    variables = from_torch("resnet18", tiny, **TINY)
    before = jax.tree.map(np.copy, variables)
    back = to_torch("resnet18", variables, **TINY)
    for value in tiny.values():
        value += 1
    assert_same(variables, before)
    for value in back.values():
        value += 1
    assert_same(variables, before)


def test_all_that_numpy_can_read_may_come(tiny):
    class Tensor:
        """As torch's, an array only in that it has a shape and can be turned into one."""

        def __init__(self, value):
            self.shape, self.value = value.shape, value

        def __array__(self, dtype=None, copy=None):
            return np.array(self.value, dtype)

    wrapped = {name: Tensor(value) for name, value in tiny.items()}
    assert_same(from_torch("resnet18", wrapped, **TINY), from_torch("resnet18", tiny, **TINY))
    halves = {name: value.astype(np.float16) for name, value in tiny.items()}
    for leaf in jax.tree.leaves(from_torch("resnet18", halves, **TINY)):
        assert leaf.dtype == np.float32


def test_what_jax_has_made_may_go(tiny):
    variables = from_torch("resnet18", tiny, **TINY)
    device = freeze(jax.tree.map(jnp.asarray, variables))
    for name, value in to_torch("resnet18", device, **TINY).items():
        np.testing.assert_array_equal(value, tiny[name])
    halves = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), variables)
    assert to_torch("resnet18", halves, **TINY)["fc.weight"].dtype == jnp.bfloat16


def test_auxiliary_heads_come_and_go_one_by_one():
    settings = {"num_classes": 3, "aux": True}
    variables = drawn("googlenet", **settings)
    state_dict = to_torch("googlenet", variables, **settings)
    assert_same(from_torch("googlenet", state_dict, **settings), variables)
    without = {k: v for k, v in state_dict.items() if not k.startswith("aux1.")}
    fewer = from_torch("googlenet", without, **settings)
    assert set(variables["params"]) - set(fewer["params"]) == {"auxiliary_inception4a"}
    assert to_torch("googlenet", fewer, **settings).keys() == without.keys()
    del without["aux2.fc1.bias"]
    with pytest.raises(InputError, match=r"1 missing \(aux2.fc1.bias\)"):
        from_torch("googlenet", without, **settings)


def test_misfits_are_listed(tiny):
    tiny["fc.bias"] = np.zeros(4, np.float32)
    for name in ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_var"):
        del tiny[name]
    tiny["fc.scale"] = np.zeros(3, np.float32)
    with pytest.raises(InputError) as refusal:
        from_torch("resnet18", tiny, **TINY)
    text = str(refusal.value)
    assert text.startswith("state_dict: it does not fit resnet18 by torchvision's names: 4 missing (")
    assert ", ...)" in text
    assert "1 left over (fc.scale); 1 mis-shaped (fc.bias is (4,), wanted (3,)); give" in text


def test_the_nearest_library_is_the_one_complained_of():
    settings = {"hidden": (8, 8), "num_classes": 3}
    state_dict = to_torch("vgg11", drawn("vgg11", **settings), "timm", **settings)
    del state_dict["features.0.bias"]
    with pytest.raises(InputError, match=r"vgg11 by timm's names: 1 missing \(features.0.bias\)"):
        from_torch("vgg11", state_dict, **settings)


def test_dense_layer_of_a_net_with_another_grid():
    settings = {"hidden": (4,), "num_classes": 3}
    variables = drawn("vgg16_gap", **settings)
    state_dict = to_torch("vgg16_gap", variables, **settings)
    np.testing.assert_array_equal(
        state_dict["classifier.0.weight"], variables["params"]["head"]["fc1"]["kernel"].T
    )


def test_variables_of_another_model_are_refused(tiny):
    variables = from_torch("resnet18", tiny, **TINY)
    with pytest.raises(InputError, match=r"2 mis-shaped \(params/head/fc/bias is \(3,\), wanted"):
        to_torch("resnet18", variables, depths=(1, 2))
    with pytest.raises(InputError, match=r"variables: they do not fit resnet18: .* left over"):
        to_torch("resnet18", variables, depths=(1, 1), num_classes=3)


def test_names_that_are_unknown(tiny):
    with pytest.raises(InputError, match="unknown model 'resnet81'; did you mean"):
        from_torch("resnet81", tiny)
    with pytest.raises(InputError, match="unknown library of resnet18 'timmm'; did you mean 'timm'"):
        from_torch("resnet18", tiny, library="timmm", **TINY)
    with pytest.raises(InputError, match="unknown library of alexnet_owt 'timm'; known: torchvision"):
        to_torch("alexnet_owt", {}, library="timm")
    with pytest.raises(InputError, match="there is no reference for lenet5"):
        to_torch("lenet5", {})
    with pytest.raises(InputError, match="does not fit lenet5 by jaxnets's names"):
        from_torch("lenet5", {})
    assert libraries("lenet5") == ()
    assert libraries("resnet50") == ("torchvision", "timm", "keras", "slim", "transformers")
    assert libraries("resnet18") == ("torchvision", "timm", "transformers")


def test_a_library_whose_names_do_not_suit_a_model_is_passed_over():
    """Files of before 2022 have one name for both convolutions of the newer region proposals."""
    with pytest.raises(InputError, match="fasterrcnn_resnet50_fpn_v2 by torchvision's names: .*missing"):
        from_torch("fasterrcnn_resnet50_fpn_v2", {"weight": np.zeros(1)})


@pytest.mark.parametrize(
    ("rules", "mistake"),
    [
        ((("backbone/stem/{layer}", "{layer}"),), "no rename covers backbone/stage1_block1/bn1"),
        ((("{module}/{layer}", "{module}"),), "has one backbone.weight for"),
    ],
)
def test_a_table_with_a_mistake_is_found_out(rules, mistake, tiny, monkeypatch):
    monkeypatch.setitem(resnet.RENAMES, f"the library of {mistake}", rules)
    with pytest.raises(ValueError, match=mistake):
        from_torch("resnet18", tiny, library=f"the library of {mistake}", **TINY)
