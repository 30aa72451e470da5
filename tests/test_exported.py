"""What is exported is what the model says, in processes that know jax and numpy alone."""

import dataclasses
import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_detectors

import jaxnets
from jaxnets import cli, data, weights
from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.weights import Preprocessing

ALONE = """
import sys
import jax
import numpy as np
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
images = np.load(sys.argv[2])
np.savez(sys.argv[3], one=program.call(images[:1]), seven=program.call(images))
assert not any(name.partition(".")[0] in ("jaxnets", "flax") for name in sys.modules)
"""


def alone(program, images, folder):
    """What a program gives for the first and for all of seven images in a process without jaxnets."""
    np.save(folder / "images.npy", images)
    words = [program, folder / "images.npy", folder / "found.npz"]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, words)], check=True, timeout=300)
    found = np.load(folder / "found.npz")
    return found["one"], found["seven"]


def drawn(model, shape, seed=0):
    """Variables of a model, He normal, so that images are told apart."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if len(leaf.shape) < 2:
            return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return (deviation * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree.map(draw, shapes)


def pixels(count, side, channels=3, seed=1):
    """Images of large blocks, which differ from one another more than noise does."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, channels))
    return blocks.repeat(side // 4, 1).repeat(side // 4, 2).astype(np.uint8)


@pytest.fixture(scope="module")
def net():
    """A small net with a grouped convolution, for images in BGR."""
    model = create_model("resnext50_32x4d", num_classes=5, depths=(1,))
    images = Preprocessing(36, 32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), order="BGR")
    names = ("ant", "bee", "cat", "dog", "elk")
    variables = drawn(model, (1, 32, 32, 3))
    return weights.Pretrained(model, variables, images, names, {"depths": (1,)}, "net")


@pytest.fixture(scope="module")
def classifier(net, tmp_path_factory):
    """Its program, by the command line, where JAX promotes nothing."""
    folder = tmp_path_factory.mktemp("exported")
    weights.save(folder / "net.safetensors", net)
    path = folder / "classifier.bin"
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        cli.main(["export", str(folder / "net.safetensors"), "-o", str(path)])
    return path


def test_a_program_gives_the_probabilities_of_one_image_and_of_seven(net, classifier):
    images = pixels(7, 32)
    values = (images[..., ::-1] / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.3, 0.4])
    logits = jax.jit(net.model.apply)(net.variables, values.astype(np.float32))
    expected = np.asarray(jax.nn.softmax(logits))
    assert np.ptp(expected, axis=0).max() > 0.01
    loaded = jaxnets.load_exported(classifier)
    np.testing.assert_allclose(loaded(images[:1]), expected[:1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(loaded(images), expected, rtol=0, atol=1e-6)


def test_a_program_says_what_it_is_and_takes_what_it_says(net, classifier):
    loaded = jaxnets.load_exported(classifier)
    assert loaded.class_names == net.class_names
    assert loaded.image_shape == (32, 32, 3)
    assert loaded.about["jax"] == jax.__version__
    assert loaded.about["task"] == "classification"
    assert loaded.program.platforms == ("cpu", "cuda", "tpu")
    images = pixels(3, 32)
    with pytest.raises(InputError, match=r"wanted uint8\[N, 32, 32, 3\], got float32\[3, 32, 32, 3\]"):
        loaded(images.astype(np.float32))
    with pytest.raises(InputError, match=r"got uint8\[32, 32, 3\]"):
        loaded(images[0])


def test_accelerators_have_no_form_that_is_made_for_cpus(classifier):
    """On a CPU groups are merged; elsewhere the convolution is XLA's own, of 32 groups."""
    program, images = jaxnets.load_exported(classifier).program, pixels(2, 32)
    found, has_groups = {}, {}
    for platform in program.platforms:
        # Under the number that a CPU has in the program, the part of this platform is compiled here.
        order = ["one", "another"]
        order.insert(program.platforms.index(platform), "cpu")
        compiled = jax.jit(dataclasses.replace(program, platforms=tuple(order)).call)
        compiled = compiled.lower(images).compile()
        found[platform] = compiled(images)
        has_groups[platform] = "feature_group_count=32" in compiled.as_text()
    assert has_groups == {"cpu": False, "cuda": True, "tpu": True}
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["tpu"], found["cpu"], rtol=0, atol=1e-5)


def test_a_run_predicts_the_same_where_jax_and_numpy_are_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net = ("--model", "mlp", "--settings", "widths=[8]", "--image-size", "8", "--loss", "bce")
    options = ("--augment", "none", "--epochs", "1", "--batch-size", "512", "--run-dir", "run")
    cli.main(["train", "--strategy", "single", *net, *options])
    cli.main(["export", "run", "-o", "digits.bin"])
    with pytest.raises(InputError, match="output: there is no directory nowhere"):
        jaxnets.export_model("run", "nowhere/digits.bin")
    with pytest.raises(InputError, match="size is 0"):
        jaxnets.export_model("run", size=(0, 8))
    for command in (["export", "mlp=run", "-o", "other.bin"], ["predict", "mlp=run", "digits.png"]):
        with pytest.raises(SystemExit):
            cli.main([*command, "--checkpoint", "99"])
        assert "holds no checkpoint of step 99" in capsys.readouterr().err
    run, images = jaxnets.recipes.load("run"), data.load("digits", size=8).test.images[:7]
    scores = np.asarray(run.task.predict(run.variables, {"image": images}), np.float64)
    one, seven = alone("digits.bin", images, tmp_path)
    np.testing.assert_allclose(seven, 1 / (1 + np.exp(-scores)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(one, seven[:1], rtol=0, atol=1e-6)
    assert jaxnets.load_exported("digits.bin").class_names == tuple("0123456789")


def loaded_from(path, model, variables, **options):
    """The program of a model with weights, written and read."""
    names = getattr(model, "class_names", ())
    own = weights.Pretrained(model, variables, None, names, {}, "drawn")
    jaxnets.export_model(own, path, **options)
    return jaxnets.load_exported(path)


@pytest.mark.slow
def test_a_segmenter_gives_label_maps(tmp_path):
    settings = {"backbone": "resnet18", "backbone_settings": {"depths": (1, 1)}}
    model = jaxnets.create_segmenter("fcn", num_classes=4, **settings)
    variables = drawn(model, (1, 64, 64, 3))
    loaded, images = loaded_from(tmp_path / "x.bin", model, variables, size=(64, 64)), pixels(7, 64)
    mean, std = (np.array(own) for own in (model.resizing.mean, model.resizing.std))
    values = ((images / 255 - mean) / std).astype(np.float32)
    expected = np.asarray(jax.jit(model.apply)(variables, values))
    best = np.sort(expected, -1)
    clear = best[..., -1] - best[..., -2] > 1e-3 * np.abs(expected).max()
    assert clear.mean() > 0.9
    found = np.asarray(loaded(images))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found[clear], expected.argmax(-1)[clear])
    assert len(np.unique(found)) > 1
    np.testing.assert_array_equal(loaded(images[:1]), found[:1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mask_rcnn", "fcos"])
def test_a_detector_gives_what_it_detects(kind, tmp_path):
    model = small_detectors.make(kind)
    variables = small_detectors.draw(model)
    loaded, images = loaded_from(tmp_path / "x.bin", model, variables, size=(96, 96)), pixels(2, 96)
    mean, std = (np.array(own) for own in (model.resizing.mean, model.resizing.std))
    quickly = {"compiler_options": small_detectors.QUICKLY}
    detect = jax.jit(functools.partial(model.apply, method="detect"), **quickly)
    expected = detect(variables, ((images / 255 - mean) / std).astype(np.float32))._asdict()
    found = jax.jit(loaded.program.call, **quickly)(images)
    assert expected["valid"].sum(1).min() > 5
    assert ("masks" in found) == (kind == "mask_rcnn")
    for name, part in found.items():
        tolerance = {"boxes": 1e-2, "masks": 1e-3}.get(name, 1e-4)
        np.testing.assert_allclose(part, expected[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"jax": "99.1.0"}, "too new"),
        ({"jax": "0.4.30"}, "too old"),
        ({"calling_convention_version": 99}, "too new"),
        ({"calling_convention_version": 8}, "too old"),
        ({"mlir": b"StableHLO_v99.0.0"}, "too new"),
        ({"mlir": b"StableHLO_v0.1.0"}, "too old"),
    ],
)
def test_programs_of_another_jax_are_refused_in_a_line(classifier, tmp_path, change, told):
    loaded = jaxnets.load_exported(classifier)
    about, program = dict(loaded.about), loaded.program
    if "jax" in change:
        about |= change
    elif "mlir" in change:
        module = bytes(program.mlir_module_serialized)
        before = module[: module.index(b"StableHLO_v")]
        after = module[module.index(b"\0", len(before)) :]
        program = dataclasses.replace(program, mlir_module_serialized=before + change["mlir"] + after)
    else:
        program = dataclasses.replace(program, **change)
    path = tmp_path / "other.bin"
    dataclasses.replace(loaded, program=program, about=about).save(path)
    with pytest.raises(InputError, match=told) as error:
        jaxnets.load_exported(path)
    assert "\n" not in str(error.value)
    assert about["jax"] in str(error.value)


def test_other_files_are_refused(classifier, tmp_path):
    with pytest.raises(InputError, match="No such file"):
        jaxnets.load_exported(tmp_path / "none.bin")
    path = tmp_path / "other.bin"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="lies beside"):
        jaxnets.load_exported(path)
    (tmp_path / "other.bin.json").write_text((classifier.parent / "classifier.bin.json").read_text())
    with pytest.raises(InputError, match="no program"):
        jaxnets.load_exported(path)
    (tmp_path / "other.bin.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(InputError, match="jaxnets export"):
        jaxnets.load_exported(path)
