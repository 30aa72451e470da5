"""Files of NumPy and of Flax: our own variables, state dicts of torch, and nets of Google's and Hugging
Face's, whose programs answered once (tests/goldens/make_flax_goldens.py)."""

import functools
import json
import logging
import pickle
import re
import sys
import zipfile
from pathlib import Path

import flax_references
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draw import images
from flax import serialization
from flax.traverse_util import flatten_dict, unflatten_dict
from flax_references import CLASSES, IMAGES, RESNET, SIZE, VIT

import jaxnets
from jaxnets.errors import InputError
from jaxnets.models import create_model, list_models
from jaxnets.weights import conversion, files, formats, from_torch, matching, sources, to_torch
from jaxnets.weights.spelling import spelled

SMALL = {"depths": (1, 1)}
GOLDENS = json.loads((Path(__file__).parents[1] / "goldens/data/flax.json").read_text())
ROWS = {
    "vit_jax": ("vit_base_patch16_224", {**VIT, "gelu": "tanh"}),
    "big_vision": ("vit_base_patch16_224", {**VIT, "gelu": "tanh"}),
    "transformers_vit": ("vit_base_patch16_224", {**VIT, "epsilon": 1e-12}),
    "transformers_resnet": ("resnet50", RESNET),
}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@functools.cache
def variables_of(name, num_classes=3, seed=0, **settings):
    """Variables of a model, each leaf other numbers."""
    model = create_model(name, num_classes=num_classes, **settings)
    rng = np.random.default_rng(seed)
    leaves = conversion.abstract_leaves(model)
    return unflatten_dict({path: rng.normal(size=s).astype(np.float32) for path, s in leaves})


@pytest.fixture
def unrecognized(monkeypatch):
    """What fits no model is not compared with all of them, which takes its time."""
    monkeypatch.setattr(matching, "recognized_model", lambda shapes: None)


@pytest.fixture
def written(tmp_path):
    """Writes a tree of arrays, or arrays by name."""

    def written(tree, ending):
        path = tmp_path / f"weights{ending}"
        if ending == ".npz":
            np.savez(path, **flatten_dict(tree, sep="/"))
        else:
            path.write_bytes(serialization.to_bytes(tree))
        return path

    return written


@pytest.mark.parametrize("ending", [".msgpack", ".npz"])
def test_our_own_variables_are_read(written, ending):
    variables = variables_of("resnet18", **SMALL)
    model, loaded = jaxnets.load_pretrained("resnet18", written(variables, ending), **SMALL)
    assert_same(loaded, variables)
    assert model == create_model("resnet18", num_classes=3, **SMALL)
    model, loaded = jaxnets.load_pretrained("resnet18", written(variables, ending), 7, **SMALL)
    assert_same(loaded["params"]["backbone"], variables["params"]["backbone"])
    assert loaded["params"]["head"]["fc"]["kernel"].shape == (128, 7)


def test_a_model_without_any_reference_is_read(written):
    variables = variables_of("lenet5", num_classes=10)
    assert_same(jaxnets.load_pretrained("lenet5", written(variables, ".msgpack"))[1], variables)


def in_a_state(variables):
    momenta = optax.sgd(0.1, momentum=0.9).init(variables["params"])
    return {"step": 3, "rng": np.ones(2, np.uint32), **variables, "opt_state": momenta}


@pytest.mark.parametrize(
    "wrap", [in_a_state, lambda v: {"of it": in_a_state(v)}, lambda v: {"params": v, "opt_state": v}]
)
def test_our_variables_are_found_beside_those_of_the_training(written, caplog, wrap):
    variables = variables_of("resnet18", **SMALL)
    path = written(serialization.to_state_dict(wrap(variables)), ".msgpack")
    caplog.set_level(logging.INFO, "jaxnets")
    assert_same(jaxnets.load_pretrained("resnet18", path, **SMALL)[1], variables)
    (record,) = caplog.records
    assert re.search("not loaded: .*opt_state.*backbone", record.getMessage())


def test_our_names_without_metadata_are_read_from_safetensors_too(tmp_path):
    variables = variables_of("resnet18", **SMALL)
    files.write_safetensors(tmp_path / "ours.safetensors", flatten_dict(variables, sep="/"))
    loaded = jaxnets.load_pretrained("resnet18", tmp_path / "ours.safetensors", **SMALL)[1]
    assert_same(loaded, variables)


@pytest.mark.zoo
@pytest.mark.parametrize("name", list_models())
def test_every_models_own_names_are_known(name):
    model = create_model(name)
    leaves = conversion.abstract_leaves(model)
    tree = {".".join(path): np.broadcast_to(np.float32(0), shape) for path, shape in leaves}
    found = conversion.found_in(spelled(tree, name), model)
    library, places = conversion.fitted(model, conversion.shapes_of(found.tensors))
    assert library == "jaxnets"
    assert {place.path for place in places} == {path for path, _ in leaves}


@pytest.mark.parametrize("wrap", [dict, lambda state: {f"module.{k}": v for k, v in state.items()}])
def test_an_archive_of_a_state_dict_is_read(tmp_path, wrap):
    variables = variables_of("resnet18", **SMALL)
    state = wrap(to_torch("resnet18", variables, num_classes=3, **SMALL))
    np.savez_compressed(tmp_path / "state.npz", note="of last week", **state)
    path = (tmp_path / "state.npz").rename(tmp_path / "state")  # known by its content
    assert sources.is_weights(str(path))
    assert_same(jaxnets.load_pretrained("resnet18", path, **SMALL)[1], variables)


def drawn(program):
    return flax_references.variables(GOLDENS[program]["shapes"])


@pytest.mark.parametrize("ending", [".npz", ".msgpack"])
@pytest.mark.parametrize("program", ROWS)
def test_other_programs_give_their_own_scores(written, record_property, program, ending):
    name, settings = ROWS[program]
    path = written(unflatten_dict(drawn(program), sep="/"), ending)
    model, variables = jaxnets.load_pretrained(name, path, **settings)
    assert model.num_classes == CLASSES
    scores = np.asarray(jax.jit(model.apply)(variables, images(IMAGES, SIZE)))
    wanted = np.array(GOLDENS[program]["logits"])
    error = float(np.max(np.abs(scores - wanted)) / np.max(np.abs(wanted)))
    record_property("error", error)
    assert error < 1e-4


def in_timms_names():
    """The weights of vit_jax as timm has them: every name and layout written out by hand."""
    weights, state = drawn("vit_jax"), {}

    def layer(theirs, ours):
        kernel = weights[f"{theirs}/kernel"]
        state[f"{ours}.weight"] = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        state[f"{ours}.bias"] = weights[f"{theirs}/bias"]

    def norm(theirs, ours):
        state[f"{ours}.weight"] = weights[f"{theirs}/scale"]
        state[f"{ours}.bias"] = weights[f"{theirs}/bias"]

    state["cls_token"] = weights["cls"]
    state["pos_embed"] = weights["Transformer/posembed_input/pos_embedding"]
    layer("embedding", "patch_embed.proj")
    for i in range(VIT["depth"]):
        theirs, ours = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        norm(f"{theirs}/LayerNorm_0", f"{ours}.norm1")
        norm(f"{theirs}/LayerNorm_1", f"{ours}.norm2")
        layer(f"{theirs}/MlpBlock_0/Dense_0", f"{ours}.mlp.fc1")
        layer(f"{theirs}/MlpBlock_0/Dense_1", f"{ours}.mlp.fc2")
        attention = f"{theirs}/MultiHeadDotProductAttention_0"
        kernels = [weights[f"{attention}/{part}/kernel"] for part in ("query", "key", "value")]
        biases = [weights[f"{attention}/{part}/bias"] for part in ("query", "key", "value")]
        state[f"{ours}.attn.qkv.weight"] = np.concatenate([k.reshape(32, 32).T for k in kernels])
        state[f"{ours}.attn.qkv.bias"] = np.concatenate([bias.reshape(32) for bias in biases])
        out = weights[f"{attention}/out/kernel"]
        state[f"{ours}.attn.proj.weight"] = out.reshape(32, 32).T
        state[f"{ours}.attn.proj.bias"] = weights[f"{attention}/out/bias"]
    norm("Transformer/encoder_norm", "norm")
    layer("head", "head")
    return state


OLD = {  # how Flax once numbered the layers of a block, as in the published files
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
}
IN_OLD_NAMES = {
    re.sub("|".join(OLD), lambda found: OLD[found[0]], path): value
    for path, value in drawn("vit_jax").items()
}
MOMENTA = {path: np.ones_like(value) for path, value in IN_OLD_NAMES.items()}


def prefixed(prefix, weights=IN_OLD_NAMES):
    return {prefix + path: value for path, value in weights.items()}


FORMS = {
    "as it is": IN_OLD_NAMES,
    "params": prefixed("params/"),
    "with optax": {**prefixed("params/"), **prefixed("opt/0/mu/", MOMENTA), "chrono/step": np.ones(())},
    "Flax's optimizer": {
        **prefixed("opt/target/"),
        **{f"opt/state/param_states/{path}/grad_ema": value for path, value in MOMENTA.items()},
        "opt/state/step": np.ones((), np.int32),
    },
    "a tower": {**prefixed("params/img/"), "params/txt/head/kernel": np.ones((3, 4), np.float32)},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_vision_transformer_of_googles_is_that_of_timms_names(tmp_path, form):
    np.savez(tmp_path / "vit.npz", **FORMS[form])
    model, loaded = jaxnets.load_pretrained("vit_base_patch16_224", tmp_path / "vit.npz", **VIT)
    assert_same(loaded, from_torch("vit_base_patch16_224", in_timms_names(), num_classes=CLASSES, **VIT))
    assert model.num_classes == CLASSES


def test_googles_names_are_taken_from_memory_too():
    loaded = from_torch("vit_base_patch16_224", IN_OLD_NAMES, num_classes=CLASSES, **VIT)
    wanted = from_torch("vit_base_patch16_224", in_timms_names(), num_classes=CLASSES, **VIT)
    assert_same(loaded, wanted)


def test_a_hidden_layer_before_the_head_is_not_dropped_in_silence(tmp_path, unrecognized, caplog):
    hidden = {"pre_logits/kernel": np.ones((32, 32), np.float32), "pre_logits/bias": np.ones(32)}
    np.savez(tmp_path / "vit.npz", **IN_OLD_NAMES, **hidden)
    with pytest.raises(InputError, match=r"2 left over \(pre_logits.weight, pre_logits.bias\)"):
        jaxnets.load_pretrained("vit_base_patch16_224", tmp_path / "vit.npz", **VIT)
    jaxnets.load_pretrained("vit_base_patch16_224", tmp_path / "vit.npz", 0, **VIT)
    assert "not loaded: " in caplog.text
    assert "pre_logits.weight" in caplog.text


def test_brain_floats_in_an_archive(tmp_path):
    """NumPy keeps their bytes and forgets their type."""
    weights = {path: value.astype(jnp.bfloat16) for path, value in IN_OLD_NAMES.items()}
    np.savez(tmp_path / "vit.npz", **weights)
    loaded = jaxnets.load_pretrained("vit_base_patch16_224", tmp_path / "vit.npz", **VIT)[1]
    wanted = from_torch("vit_base_patch16_224", in_timms_names(), num_classes=CLASSES, **VIT)
    assert_same(loaded, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(np.float32), wanted))


LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


@pytest.mark.parametrize("program", ["transformers_vit", "transformers_resnet"])
def test_hugging_faces_names_of_torch_are_those_of_flax(tmp_path, written, program):
    name, settings = ROWS[program]
    state = {}
    for path, value in drawn(program).items():
        *modules, leaf = path.replace("params/", "").replace("batch_stats/", "").split("/")
        axes = {2: (1, 0), 4: (3, 2, 0, 1)}[value.ndim] if leaf == "kernel" else range(value.ndim)
        state[".".join([*modules, LEAVES.get(leaf, leaf)])] = value.transpose(*axes)
    files.write_safetensors(tmp_path / "model.safetensors", state)
    loaded = jaxnets.load_pretrained(name, tmp_path, **settings)[1]
    (tmp_path / "flax").mkdir()
    path = written(unflatten_dict(drawn(program), sep="/"), ".msgpack")
    path.rename(tmp_path / "flax" / "flax_model.msgpack")
    assert_same(loaded, jaxnets.load_pretrained(name, tmp_path / "flax", **settings)[1])
    if program == "transformers_resnet":
        exported = to_torch(name, loaded, "transformers", num_classes=CLASSES, **settings)
        counters = {key for key in exported if key.endswith("num_batches_tracked")}
        assert exported.keys() - counters == state.keys()


def truncated(path, content):
    np.savez(path, **{f"a{i}": np.arange(100) for i in range(3)})
    path.write_bytes(path.read_bytes()[:-30])


def torn(path, content):
    path.write_bytes(serialization.to_bytes({"params": {"a": np.arange(100)}})[:-1])


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def of_objects(path, evil):
    np.savez(path, good=np.ones(3), bad=np.array([evil], object))


def pickled_in_a_zip(path, evil):
    with zipfile.ZipFile(path, "w") as entries:
        entries.writestr("a.npy", pickle.dumps(evil))


def pickled(path, evil):
    path.write_bytes(pickle.dumps(evil))


BAD = {
    "an archive cut short": (".npz", truncated, "no whole archive of NumPy's .*again"),
    "text": (".npz", lambda path, _: path.write_text("not an array"), "no archive of NumPy's"),
    "nothing": (".npz", lambda path, _: path.write_bytes(b""), "no archive of NumPy's"),
    "objects": (".npz", of_objects, "nothing in it was run: it holds more than arrays"),
    "pickles in a zip": (".npz", pickled_in_a_zip, "holds no arrays of numbers"),
    "a pickle as an archive": (".npz", pickled, "no archive of NumPy's"),
    "a pickle as an array": (".npy", pickled, "holds no weights that are known"),
    "one array": (".npy", lambda path, _: np.save(path, np.ones(3)), "is a single array"),
    "no arrays": (".npz", lambda path, _: np.savez(path, note="text"), "holds no arrays of numbers"),
    "a tree cut short": (".msgpack", torn, "no whole file of Flax's .*again"),
    "a tree of nothing": (".msgpack", lambda path, _: path.write_bytes(b"\x80"), "holds no arrays"),
    "a number": (".msgpack", lambda path, _: path.write_bytes(b"\x07"), "holds no arrays"),
    "a pickle as a tree": (".msgpack", pickled, "no whole file of Flax's"),
    "a pickle as safetensors": (".safetensors", pickled, "no whole safetensors file"),
    "a pickle without torch": (".pth", pickled, "need torch"),
    "a pickle of no known ending": (".pkl", pickled, "holds no weights that are known"),
    "a checkpoint that is a text": (".h5ish", lambda path, _: path.write_text("hi"), "no weights"),
    "a folder": ("", lambda path, _: path.mkdir(), "holds no weights"),
    "BiT": (
        ".npz",
        lambda path, _: np.savez(path, **{"resnet/root_block/standardized_conv2d/kernel": np.ones(3)}),
        "holds a BiT, .* none of the models here",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_refused_in_a_line_and_nothing_is_run(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "torch", None)
    ending, write, message = BAD[kind]
    path, ran = tmp_path / f"weights{ending}", tmp_path / "ran"
    write(path, Evil(ran))
    with pytest.raises(InputError, match=message) as refusal:
        jaxnets.load_pretrained("resnet18", path)
    text = str(refusal.value)
    assert str(path) in text
    assert len(text.splitlines()) == 1
    assert not ran.exists()
    chain = []
    error = refusal.value
    while error is not None:  # all that a traceback shows
        chain.append(str(error))
        error = None if error.__suppress_context__ else error.__context__
    assert not re.search("allow_pickle|weights_only|pickle.load", " ".join(chain))


def test_a_file_that_is_not_there_is_told(tmp_path):
    for ending in formats.ENDINGS:
        with pytest.raises(InputError, match=f"none\\{ending}.*there is no such file"):
            sources.read(tmp_path / f"none{ending}")


def test_files_of_flax_are_known_by_their_content(written, tmp_path):
    path = written(variables_of("resnet18", **SMALL), ".msgpack").rename(tmp_path / "checkpoint")
    assert sources.is_weights(str(path))
    for start in (b"\x89PNG\r\n", b"\x81", b"", b"\xff\xd8\xff", b"GIF8", pickle.dumps({})):
        (tmp_path / "other").write_bytes(start)
        assert not sources.is_weights(str(tmp_path / "other"))
