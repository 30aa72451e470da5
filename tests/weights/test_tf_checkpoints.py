"""Checkpoints that TensorFlow wrote (tests/goldens/make_tf_checkpoints.py), in both versions."""

import io
import logging
import shutil
import sys
import tarfile
from pathlib import Path

import draw
import jax
import numpy as np
import pytest
import slim_rows

import jaxnets
from jaxnets.errors import InputError
from jaxnets.models import published_weights
from jaxnets.weights import from_torch, imagenet, settings_of_library, slim, sources, to_torch
from jaxnets.weights.loading import load
from jaxnets.weights.tf_checkpoints import prefix_of, read_tensorflow

DATA = Path(__file__).parents[1] / "goldens" / "data" / "tf_checkpoints"
MODEL, NARROW = "mobilenet_v1_025", {"width": 1 / 128}
VERSIONS = ("mobilenet.ckpt", "model.ckpt-7")
FIRST = "MobilenetV1/Conv2d_0/weights"
PARTS = (".index", ".data-00000-of-00001")


def tensors_of(path):
    return read_tensorflow(prefix_of(path))


@pytest.fixture
def version_2(tmp_path):
    """A copy of the files of version 2, to be damaged."""
    for part in PARTS:
        shutil.copy(DATA / f"model.ckpt-7{part}", tmp_path)
    return tmp_path / "model.ckpt-7"


@pytest.mark.parametrize("name", VERSIONS)
def test_the_variables_are_those_that_tensorflow_was_given(name):
    tensors = tensors_of(DATA / name)
    assert tensors["global_step"].dtype == np.int64
    assert np.asarray(tensors["global_step"]) == 7
    own = {key: value for key, value in tensors.items() if key.partition("/")[0] == "MobilenetV1"}
    weights = {key: value for key, value in own.items() if key.rpartition("/")[0] not in own}
    drawn = slim_rows.drawn({key: value.shape for key, value in weights.items()}, "")
    assert len(weights) == 137
    for key, value in drawn.items():
        np.testing.assert_array_equal(np.asarray(weights[key]), value, err_msg=key)
    averages = [key for key in own if key.endswith(slim_rows.AVERAGE)]
    assert len(averages) == 83  # of what is trained: not of the statistics
    np.testing.assert_array_equal(
        np.asarray(own[f"{FIRST}/{slim_rows.AVERAGE}"]), drawn[FIRST] * np.float32(0.9)
    )


@pytest.mark.parametrize("name", VERSIONS)
def test_the_averages_give_the_scores_they_gave_in_tensorflow(name, caplog):
    with caplog.at_level(logging.WARNING, "jaxnets"):
        model, variables = jaxnets.load_pretrained(MODEL, DATA / name, **NARROW)
    assert "the averaged weights are taken, ExponentialMovingAverage" in caplog.text
    assert "not loaded: " in caplog.text
    wanted = np.load(DATA / "logits.npz")["logits"]
    logits = jax.jit(model.apply)(variables, draw.images(slim_rows.IMAGES, 64))
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_slots_are_told_from_weights_by_what_they_belong_to():
    tensors = slim.state_dict(tensors_of(DATA / "model.ckpt-7"))
    kinds = [key.partition(".")[0] for key in tensors]
    assert kinds.count("MobilenetV1") == 137
    assert kinds.count("ExponentialMovingAverage") == 137 + 1  # the step beside them
    assert kinds.count("optimizer") == 2 * 83
    assert {key for key in tensors if key.startswith("global")} == {"global_step"}


def test_without_averages_the_weights_themselves_are_taken_and_scales_left_out_are_ones():
    tensors = {key: np.asarray(value) for key, value in tensors_of(DATA / "model.ckpt-7").items()}
    kept = {
        key: value
        for key, value in tensors.items()
        if key.rpartition("/")[0] not in tensors and not key.endswith("gamma")
    }
    found = slim.state_dict(kept)
    np.testing.assert_array_equal(found["MobilenetV1.Conv2d_0.BatchNorm.weight"], np.ones(8))
    assert np.asarray(found["MobilenetV1.Conv2d_0.weight"]).shape == (8, 3, 3, 3)
    np.testing.assert_array_equal(
        np.asarray(found["MobilenetV1.Conv2d_0.weight"]), tensors[FIRST].transpose(3, 2, 0, 1)
    )


def test_a_checkpoint_is_found_by_its_prefix_its_parts_or_its_directory(version_2):
    directory = version_2.parent
    for path in (version_2, *(f"{version_2}{part}" for part in PARTS), directory):
        assert prefix_of(Path(path)) == version_2
        assert sources.is_weights(str(path))
    shutil.copy(DATA / "mobilenet.ckpt", directory)
    assert prefix_of(directory) is None  # which of the two?
    state = 'model_checkpoint_path: "/elsewhere/train/model.ckpt-7"\nall_model_checkpoint_paths: "..."\n'
    (directory / "checkpoint").write_text(state)
    assert prefix_of(directory) == version_2
    assert not sources.is_source("mobilenet_v1_025")


def test_no_tensorflow_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert tensors_of(DATA / "mobilenet.ckpt").keys() == tensors_of(DATA / "model.ckpt-7").keys()


@pytest.mark.parametrize("part", PARTS)
def test_what_is_cut_short_is_refused(version_2, part):
    path = Path(f"{version_2}{part}")
    whole = path.read_bytes()
    for length in (0, 1, 47, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"is no whole checkpoint of TensorFlow \(.*fetch or write"):
            sources.read(version_2)


def test_a_file_of_version_1_that_is_cut_short_is_refused(tmp_path):
    path, whole = tmp_path / "model.ckpt", (DATA / "mobilenet.ckpt").read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is no whole checkpoint of torch or TensorFlow; fetch or"):
            sources.read(path)


def test_a_flipped_bit_of_the_table_is_refused_or_read_but_nothing_else(version_2):
    path = Path(f"{version_2}.index")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            for tensor in tensors_of(version_2).values():
                np.asarray(tensor)
        except InputError:
            pass


def test_what_is_missing_or_no_checkpoint_is_refused(version_2):
    Path(f"{version_2}.data-00000-of-00001").unlink()
    with pytest.raises(InputError, match=r"data-00000-of-00001: there is no such file"):
        sources.read(version_2)
    Path(f"{version_2}.index").unlink()
    with pytest.raises(InputError, match="holds no weights: wanted .* one checkpoint of TensorFlow"):
        sources.read(version_2.parent)


def archive(path, *names):
    with tarfile.open(path, "w:gz") as made:
        for name in names:
            made.add(DATA / name, f"./folder/{name}")
        made.addfile(tarfile.TarInfo("../outside"), io.BytesIO())


def test_archives_are_read_as_they_are_published(tmp_path):
    path = tmp_path / "mobilenet.tgz"
    for names in ([VERSIONS[0]], [f"model.ckpt-7{part}" for part in PARTS]):
        archive(path, *names)
        found, wanted = sources.read(path), sources.read(DATA / "mobilenet.ckpt")
        assert found.tensors.keys() == wanted.tensors.keys()
        for key, tensor in found.tensors.items():
            np.testing.assert_array_equal(np.asarray(tensor), np.asarray(wanted.tensors[key]))
    assert not list(tmp_path.parent.glob("outside"))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="is no whole archive"):
        sources.read(path)
    archive(path, "logits.npz")
    with pytest.raises(InputError, match="holds no checkpoint of TensorFlow, or several"):
        sources.read(path)
    with pytest.raises(InputError, match="none.tar.gz: there is no such file"):
        sources.read(tmp_path / "none.tar.gz")


def test_converted_once_a_checkpoint_is_loaded_without_its_name(tmp_path):
    loaded = load(MODEL, DATA / "model.ckpt-7", **NARROW)
    assert loaded.settings == {"tf_padding": True, "epsilon": 1e-3, **NARROW}
    path = tmp_path / "x.safetensors"
    jaxnets.weights.save(path, loaded)
    again = load(path)
    assert again.model == loaded.model
    jax.tree.map(np.testing.assert_array_equal, again.variables, loaded.variables)
    assert again.preprocessing == loaded.preprocessing
    assert again.preprocessing.mean == (0.5, 0.5, 0.5)


def test_other_libraries_names_are_refused_where_their_net_computes_something_else(tmp_path):
    loaded = load(MODEL, DATA / "model.ckpt-7", **NARROW)
    with pytest.raises(InputError, match=r"timm's mobilenet_v1_025 computes something else.*tf_padding"):
        jaxnets.weights.save(tmp_path / "x.safetensors", loaded, "timm")


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "inception_v3", "mobilenet_v2_100"])
def test_torchvisions_names_are_refused_where_its_net_computes_something_else(name):
    settings = settings_of_library(name, "slim")
    with pytest.raises(InputError, match=f"torchvision's {name} computes something else: it has "):
        to_torch(name, {}, "torchvision", **settings)


def test_another_net_is_refused_by_its_names():
    tensors = slim.state_dict(tensors_of(DATA / "model.ckpt-7"))
    with pytest.raises(InputError, match="it does not fit mobilenet_v2_100 by slim's names"):
        from_torch("mobilenet_v2_100", tensors, "slim")


def test_1001_classes_begin_with_a_background():
    names = imagenet.class_names(1001)
    assert (names[0], names[1:]) == ("background", imagenet.class_names(1000))
    assert len(set(names)) == 1001


def test_rows_of_published_weights_name_their_archives():
    (row,) = (row for row in published_weights("inception_v4") if row.library == "slim")
    assert (row.file, row.crop) == ("inception_v4_2016_09_09.tar.gz", pytest.approx(0.875, abs=2e-3))
