"""State dicts as training scripts leave them: a small net's, wrapped in every way that we know of."""

import argparse
import functools
import logging
import pickle
import zipfile

import jax
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_stand_in import installed, tensors_of

import jaxnets
from jaxnets import weights
from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.weights import files, formats, matching, recognition, sources, to_torch
from jaxnets.weights.unwrapping import flattened

SMALL = {"depths": (1, 1)}
ONE = np.ones((), np.int64)


@functools.cache
def variables_of(name, num_classes=3, seed=0, **overrides):
    """Variables of a model, each leaf other numbers."""
    model = create_model(name, num_classes=num_classes, **overrides)
    images = np.zeros((1, *model.input_size), np.float32)
    shapes = jax.eval_shape(functools.partial(nn.Module.init, model), jax.random.key(0), images)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def state_dict_of(seed=0):
    return to_torch("resnet18", variables_of("resnet18", 3, seed, **SMALL), num_classes=3, **SMALL)


PLAIN, OTHER = state_dict_of(), state_dict_of(1)
PARAMETERS = {key: value for key, value in PLAIN.items() if "running" not in key and value.ndim}


def prefixed(prefix, state=PLAIN):
    return {prefix + key: value for key, value in state.items()}


def within(wrapper, part, state=PLAIN):
    """With what a wrapper around a part of the model adds to the names."""
    return {key.replace(part, part + wrapper, 1): value for key, value in state.items()}


def by_modules(state):
    nested = {}
    for key, value in state.items():
        *parents, leaf = key.split(".")
        functools.reduce(lambda tree, part: tree.setdefault(part, {}), parents, nested)[leaf] = value
    return nested


ADAM = {
    "state": {k: {"step": ONE, "exp_avg": value} for k, value in enumerate(PARAMETERS.values())},
    "param_groups": [{"lr": 0.1, "params": [0, 1]}],
}
BY_THOP = {
    f"{key.rpartition('.')[0]}.{entry}".removeprefix("."): np.zeros(1)
    for key in [*PLAIN, "root"]
    for entry in ("total_ops", "total_params")
}
FORMS = {
    "module.": prefixed("module."),
    "_orig_mod.": prefixed("_orig_mod."),
    "module._orig_mod.": prefixed("module._orig_mod."),
    "model.": prefixed("model."),
    "net.": prefixed("net."),
    "backbone.": prefixed("backbone."),
    "layer1.": prefixed("layer1."),  # as a part of the net itself
    "a long prefix": prefixed("student.trunk.0.body."),
    "state_dict": {"state_dict": PLAIN, "epoch": 3, "arch": "resnet18", "best_acc1": ONE},
    "model": {"model": PLAIN, "epoch": 3},
    "model_state_dict": {"model_state_dict": PLAIN, "loss": np.float32(3)},
    "model_state": {"model_state": PLAIN},
    "net": {"net": prefixed("module."), "acc": 91.2},
    "any name": {"of last week": PLAIN},
    "nested twice": {"checkpoint": {"weights": prefixed("module.")}, "epoch": 3},
    "nested by modules": by_modules(PLAIN),
    "a list": [PLAIN, {"epoch": 3}],
    "DeepSpeed": {"module": PLAIN, "ds_version": "0.1", "best": np.float64(0.5)},
    "torchvision's scripts": {
        "model": PLAIN,
        "optimizer": ADAM,
        "lr_scheduler": {"last_epoch": 2, "_last_lr": [0.1]},
        "scaler": {"scale": np.ones(1, np.float32)},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1),
    },
    "Lightning": {
        "state_dict": {**prefixed("model."), "criterion.weight": np.ones(3, np.float32)},
        "optimizer_states": [ADAM],
        "lr_schedulers": [{"last_epoch": 2}],
        "callbacks": {"ModelCheckpoint": {"best_model_score": ONE}},
        "hyper_parameters": {"lr": 0.1},
        "pytorch-lightning_version": "2.5.0",
    },
    "an optimizer that names": {"model": PLAIN, "optimizer": {"momentum": OTHER}},
    "an optimizer beside": {**PLAIN, "optimizer": {"momentum": OTHER}, "epoch": ONE},
    "timm's average": {"state_dict": OTHER, "state_dict_ema": PLAIN, "version": 2},
    "torchvision's average": {"model": OTHER, "model_ema": {"n_averaged": ONE, **prefixed("module.")}},
    "an average by name": {"net": OTHER, "EMA": PLAIN},
    "an average in camels": {"net": OTHER, "modelEma": PLAIN},
    "an average by its prefix": {**prefixed("model.", OTHER), **prefixed("ema_model.module.")},
    "an average beside": {**OTHER, "swa": PLAIN},
    "an average with the raw": {"ema": {**prefixed("ema_model."), **prefixed("online_model.", OTHER)}},
    "an average alone": {"n_averaged": ONE, **prefixed("module.")},
    "a part of an average": {"model": PLAIN, "ema": {k: OTHER[k] for k in PARAMETERS}},
    "an average of no steps": {
        "model": PLAIN,
        "swa": {"n_averaged": 0 * ONE, **prefixed("module.", OTHER)},
    },
    "an average of no steps alone": {"swa": {"n_averaged": 0 * ONE, **prefixed("module.")}},
    "Lightning's SWA": {
        "state_dict": prefixed("model."),
        "callbacks": {"StochasticWeightAveraging": {"average_model_state": prefixed("model.", OTHER)}},
    },
    "Lightning's average": {
        "state_dict": prefixed("model."),
        "current_model_state": prefixed("model.", OTHER),
        "averaging_state": {"n_averaged": ONE},
    },
    "Lightning's average of no steps": {
        "state_dict": prefixed("model.", OTHER),
        "current_model_state": prefixed("model."),
        "averaging_state": {"n_averaged": 0 * ONE},
    },
    "counted by thop": {**PLAIN, **BY_THOP},
    "without counters": {key: value for key, value in PLAIN.items() if value.ndim},
    "a part parallel": within("module.", "layer1."),
    "a part compiled": within("_orig_mod.", "layer2.0."),
    "a part checkpointed": within("_checkpoint_wrapped_module.", "layer2."),
    "parts sharded": prefixed("_fsdp_wrapped_module.", within("_fsdp_wrapped_module.", "layer2.")),
    "twice the same": {**prefixed("model."), **prefixed("compiled._orig_mod.")},
}  # fmt: skip


@pytest.fixture
def torch(monkeypatch):
    return installed(monkeypatch)


@pytest.fixture
def written(tmp_path, torch):
    """Writes a checkpoint: whole as torch does, or its tensors as safetensors have them."""

    def written(content, ending):
        path = tmp_path / f"checkpoint{ending}"
        if ending == ".safetensors":
            files.write_safetensors(path, flattened(content))
        else:
            torch.save(tensors_of(torch, content), path)
        return path

    return written


@pytest.fixture
def unrecognized(monkeypatch):
    """What fits no model is not compared with all of them, which takes its time."""
    monkeypatch.setattr(matching, "recognized_model", lambda shapes: None)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_as_the_plain_one(written, form, ending):
    path = written(FORMS[form], ending)
    model, loaded = jaxnets.load_pretrained("resnet18", path, **SMALL)
    assert_same(loaded, variables_of("resnet18", **SMALL))
    assert model == create_model("resnet18", num_classes=3, **SMALL)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_taken_from_memory_too(form):
    loaded = weights.from_torch("resnet18", FORMS[form], num_classes=3, **SMALL)
    assert_same(loaded, variables_of("resnet18", **SMALL))


NAMES = st.one_of(
    st.text("abcdxyz_019", min_size=1, max_size=5),
    st.sampled_from(("layer1", "conv1", "fc", "weight", "bn1", "module", "model", "0", "a name")),
)
STEPS = ("prefix", "nest", "list", "beside", "inside", "profiled", "uncounted")


@st.composite
def wrapped(draw):
    """The plain state dict in some random dress."""
    state = PLAIN
    for step in draw(st.lists(st.sampled_from(STEPS), max_size=6)):
        name = draw(NAMES)
        if step == "prefix":
            state = {f"{name}.{key}": value for key, value in flattened(state).items()}
        elif step == "nest":
            state = {name: state, "epoch": 3, "best": np.float64(0.5)}
        elif step == "list":
            state = [{"lr": 0.1}, state]
        elif step == "beside":
            state = {"of it": state, name: {name: np.ones(3, np.float32)}, "optimizer": {name: OTHER}}
        elif step == "inside":
            part = draw(st.sampled_from(("layer1.", "layer2.0.", "fc.")))
            state = within(draw(st.sampled_from(("module.", "_orig_mod."))), part, flattened(state))
        elif step == "profiled":
            flat = flattened(state)
            state = {**flat, **{f"{key}.total_ops": np.zeros(1) for key in flat}}
        else:
            state = {key: v for key, v in flattened(state).items() if "num_batches" not in key}
    if draw(st.booleans()):
        state = {"raw": OTHER, draw(st.sampled_from(("ema", "model_ema", "swa_net"))): state}
    return state


# The files are overwritten by each example.
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=wrapped())
def test_any_dress_is_taken_off(written, state):
    for ending in (".pth", ".safetensors"):
        _, loaded = jaxnets.load_pretrained("resnet18", written(state, ending), **SMALL)
        assert_same(loaded, variables_of("resnet18", **SMALL))


@pytest.mark.parametrize("ending", [".ckpt", ".pth.tar", ".pt", ".bin", ".th"])
def test_endings_of_torchs_files(written, ending):
    path = written({"state_dict": prefixed("module.")}, ending)
    assert_same(jaxnets.load_pretrained("resnet18", path, **SMALL)[1], variables_of("resnet18", **SMALL))


@pytest.mark.parametrize("ending", [".ckpt", ".pth", ".weights", ""])
def test_safetensors_are_known_by_their_content(written, tmp_path, ending):
    path = written(PLAIN, ".safetensors").rename(tmp_path / f"other{ending}")
    assert_same(jaxnets.load_pretrained("resnet18", path, **SMALL)[1], variables_of("resnet18", **SMALL))
    assert sources.is_weights(str(path))


def test_torchs_files_are_known_by_their_content(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.model", "w") as entries:
        entries.writestr("archive/data.pkl", "")
    (tmp_path / "old.safetensors").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    for name in ("zip.model", "old.safetensors"):
        assert files.is_torch(tmp_path / name)
        assert formats.format_of(tmp_path / name) is formats.TORCH
        assert sources.is_weights(str(tmp_path / name))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as entries:
        entries.writestr("notes.txt", "")
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04")
    for name in ("other.zip", "half.zip", "none.zip"):
        assert not files.is_torch(tmp_path / name)
        assert not sources.is_weights(str(tmp_path / name))


@pytest.mark.parametrize(
    ("form", "level", "text"),
    [
        ("module.", logging.INFO, "6 counters and entries of profilers are ignored"),
        ("counted by thop", logging.INFO, "34 counters and entries of profilers are ignored"),
        (
            "Lightning",
            logging.WARNING,
            "the weights under state_dict.model are taken; not loaded: state_dict.criterion.weight, "
            "optimizer_states.0.state.0.exp_avg, optimizer_states.0.state.1.exp_avg, ... (21 in all); "
            "27 counters and entries of profilers are ignored",
        ),
        (
            "timm's average",
            logging.WARNING,
            "the averaged weights are taken, state_dict_ema; not loaded: state_dict.bn1.bias, ",
        ),
        ("a part of an average", logging.WARNING, "the weights under model are taken; not loaded: ema."),
        ("an average alone", logging.INFO, "7 counters"),
    ],
)
def test_what_is_not_loaded_is_told(written, caplog, form, level, text):
    caplog.set_level(logging.INFO, "jaxnets")
    path = written(FORMS[form], ".safetensors")
    jaxnets.load_pretrained("resnet18", path, **SMALL)
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage().startswith(f"{path}: ")
    assert text in record.getMessage()


HEAD = {key.removeprefix("fc."): value for key, value in PLAIN.items() if key.startswith("fc.")}
HEADLESS = {key: value for key, value in PLAIN.items() if not key.startswith("fc.")}
HEADS = {
    "no head": HEADLESS,
    "no head, wrapped": {"state_dict": prefixed("module.encoder.", HEADLESS)},
    "half a head": {**HEADLESS, "fc.bias": PLAIN["fc.bias"]},
    "a head in a sequence": {**HEADLESS, **prefixed("fc.1.", HEAD)},
    "a head beside the backbone": {
        **prefixed("backbone.", HEADLESS),
        "head.weight": np.ones((5, 128), np.float32),
    },
    "a head of another name": {**HEADLESS, "classifier.weight": np.ones((5, 128), np.float32)},
    "a head on other features": {**HEADLESS, "fc.weight": np.ones((5, 999), np.float32), "fc.bias": ONE},
    "an average without": {"state_dict": PLAIN, "state_dict_ema": HEADLESS},
}  # fmt: skip


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("form", HEADS)
def test_a_head_may_be_missing_where_it_is_drawn_anew_or_dropped(written, form, ending):
    path = written(HEADS[form], ending)
    whole = variables_of("resnet18", **SMALL)
    for wanted, count in (({"num_classes": 0}, 0), ({"num_classes": 7}, 7), ({"new_head": True}, None)):
        model, loaded = jaxnets.load_pretrained("resnet18", path, **wanted, **SMALL)
        assert_same(loaded["params"]["backbone"], whole["params"]["backbone"])
        assert_same(loaded["batch_stats"], whole["batch_stats"])
        assert ("head" in loaded["params"]) == (count != 0)
        if count != 0:
            kernel = loaded["params"]["head"]["fc"]["kernel"]
            assert kernel.shape == (128, model.num_classes)
            assert 0.5 < kernel.std() * np.sqrt(128) < 1.5
        assert count in (None, model.num_classes)


@pytest.mark.parametrize(
    "form", ["no head, wrapped", "a head in a sequence", "a head beside the backbone"]
)
def test_a_head_that_is_missing_is_asked_for(written, form):
    path = written(HEADS[form], ".safetensors")
    with pytest.raises(InputError) as refusal:
        jaxnets.load_pretrained("resnet18", path, **SMALL)
    text = str(refusal.value)
    assert text.startswith(f"{path}: state_dict: it does not fit resnet18")
    assert "2 missing (fc." in text
    assert "they are bn1.bias, bn1.running_mean, bn1.running_var, ... (" in text
    assert text.endswith("all but its head fits: give num_classes for a new one, or 0 for none")


def test_a_head_that_is_drawn_takes_the_key_and_the_names_of_new_classes(written):
    path = written(HEADLESS, ".safetensors")
    loaded = weights.load("resnet18", path, head=weights.DRAWN, **SMALL)
    assert loaded.headless
    names = loaded.class_names[:3]
    heads = [
        loaded.adapted(class_names=names, key=jax.random.key(k)).variables["params"]["head"]["fc"]
        for k in range(2)
    ]
    assert (heads[0]["kernel"] != heads[1]["kernel"]).all()
    again = loaded.adapted()
    assert not again.headless
    assert again.class_names == tuple(map(str, range(1000)))


@pytest.mark.slow
@pytest.mark.usefixtures("unrecognized")
def test_a_head_of_several_layers_may_be_missing_where_all_is_drawn(written):
    name = "mobilenet_v3_small"
    whole = variables_of(name)
    state = to_torch(name, whole, num_classes=3)
    for missing in ("classifier.", "classifier.3."):
        rest = {key: value for key, value in state.items() if not key.startswith(missing)}
        path = written(rest, ".safetensors")
        _, loaded = jaxnets.load_pretrained(name, path, 5)
        assert_same(loaded["params"]["backbone"], whole["params"]["backbone"])
        kernel = loaded["params"]["head"]["fc1"]["kernel"]
        assert (kernel == whole["params"]["head"]["fc1"]["kernel"]).all() == (missing != "classifier.")
        if missing == "classifier.":  # what the last layer would have read is not there either
            with pytest.raises(InputError, match=r"2 missing \(classifier.0.bias"):
                jaxnets.load_pretrained(name, path, 0)
        else:
            _, loaded = jaxnets.load_pretrained(name, path, 0)
            assert set(loaded["params"]["head"]) == {"fc1"}
            assert_same(loaded["params"]["head"]["fc1"], whole["params"]["head"]["fc1"])


def test_a_gray_net_without_a_head(written):
    kernel = PLAIN["conv1.weight"].sum(1, keepdims=True)
    path = written({**HEADLESS, "conv1.weight": kernel}, ".safetensors")
    model, loaded = jaxnets.load_pretrained("resnet18", path, 4, **SMALL)
    assert model.input_size[2] == 1
    assert loaded["params"]["head"]["fc"]["bias"].shape == (4,)


def test_a_model_without_a_head_takes_a_state_dict_with_one():
    loaded = weights.from_torch("resnet18", PLAIN, num_classes=0, **SMALL)
    assert_same(loaded["params"]["backbone"], variables_of("resnet18", **SMALL)["params"]["backbone"])
    assert "head" not in loaded["params"]


def test_auxiliary_heads_are_left_out_of_a_model_without(written, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "jaxnets")
    aux = {"aux": True}
    state = to_torch("googlenet", variables_of("googlenet", 3, **aux), num_classes=3, **aux)
    whole = dict(variables_of("googlenet", 3, **aux)["params"])
    loaded = weights.from_torch("googlenet", state, num_classes=3)
    assert set(loaded["params"]) == {"backbone", "head"}
    assert_same(loaded["params"]["backbone"], whole["backbone"])
    (record,) = caplog.records
    assert record.levelno == logging.INFO  # the public files have them
    assert "not loaded: aux1.conv.bn." in record.getMessage()
    state["aux2.fc2.weight"] = np.zeros((7, 7), np.float32)  # of other classes
    assert_same(weights.from_torch("googlenet", state, num_classes=3), loaded)
    path = written(state, ".safetensors")
    assert_same(jaxnets.load_pretrained("googlenet", path)[1]["params"], loaded["params"])
    monkeypatch.setattr(recognition, "list_models", lambda: ["squeezenet1_0", "googlenet"])
    with pytest.raises(InputError, match="it looks like googlenet$"):
        jaxnets.load_pretrained("alexnet_owt", path)


STRANGE = np.ones((2, 3), np.float32)


@pytest.mark.usefixtures("unrecognized")
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"student": PLAIN, "teacher": OTHER},
            "it holds 2 sets of weights that fit, under 'student', 'teacher'; keep one of them",
        ),
        (
            {"a_ema": PLAIN, "b_ema": OTHER, "raw": OTHER},
            "it holds 2 sets of weights that fit, under 'a_ema', 'b_ema'",
        ),
        ({**PLAIN, "layer2.0.attention.weight": STRANGE}, "1 left over (layer2.0.attention.weight)"),
        ({**PLAIN, "attention.weight": STRANGE}, "1 left over (attention.weight)"),
        (
            {"state_dict": {k: v for k, v in prefixed("module.").items() if "layer2.0.conv1" not in k}},
            "1 missing (layer2.0.conv1.weight); ",
        ),
        (
            {"encoder": {"weight": STRANGE}, "decoder": {"weight": STRANGE}},
            "left over (",
        ),
        ([STRANGE], "1 left over (0)"),
    ],
)
def test_what_fits_in_no_way_is_refused_with_its_names(written, content, message, ending):
    path = written(content, ending)
    with pytest.raises(InputError) as refusal:
        jaxnets.load_pretrained("resnet18", path, **SMALL)
    text = str(refusal.value)
    assert text.startswith(f"{path}: state_dict: ")
    assert message in text
    assert len(text) < 700


def test_a_wrapped_file_of_another_architecture_is_recognized(written):
    state = to_torch("squeezenet1_1", variables_of("squeezenet1_1", 3), num_classes=3)
    path = written({"state_dict": prefixed("module.", state), "optimizer": ADAM}, ".safetensors")
    with pytest.raises(InputError, match=r"does not fit alexnet_owt .*; it looks like squeezenet1_1$"):
        jaxnets.load_pretrained("alexnet_owt", path)


def test_names_that_are_there_twice_are_refused():
    with pytest.raises(InputError, match="it holds a.b twice, nested and not"):
        flattened({"a": {"b": STRANGE}, "a.b": STRANGE})


def test_a_dict_in_itself_has_an_end():
    state = dict(PLAIN)
    state["self"] = state
    loaded = weights.from_torch("resnet18", state, num_classes=3, **SMALL)
    assert_same(loaded, variables_of("resnet18", **SMALL))
