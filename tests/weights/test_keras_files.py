"""Files of Keras, written by `keras_writer`: all layouts give the same variables, others are refused."""

import itertools
import sys
import zipfile

import h5py
import jax
import numpy as np
import pytest
from keras_rows import DATA, application, tuned
from keras_writer import Layer, write_archive, write_by_names, write_by_positions

import jaxnets
from jaxnets import cli, weights
from jaxnets.errors import InputError
from jaxnets.weights import images, keras, sources

NAME = "mobilenet_v1_025"
with np.load(DATA / f"{NAME}.npz") as file:
    WHOLE, DENSE = application(str(file["layers"])), str(file["dense"])
TUNED, FLAT = tuned(WHOLE, DENSE), tuned(WHOLE, DENSE, nested=False)
BODY = WHOLE._replace(layers=FLAT.layers[:-3])
SEQUENTIAL = TUNED._replace(kind="Sequential")


def paths_of(layer):
    return {
        f"{inner.name}/{leaf}": value
        for inner in layer.walked()
        for leaf, value in inner.variables.items()
    }


def assert_same(variables, wanted):
    jax.tree.map(np.testing.assert_array_equal, variables, wanted)


WRITERS = {
    "Keras 2.h5": lambda path, model: write_by_names(path, model, 2),
    "Keras 2, whole.hdf5": lambda path, model: write_by_names(path, model, 2, whole=True),
    "Keras 3.h5": lambda path, model: write_by_names(path, model, 3, whole=True),
    "Keras 3.weights.h5": write_by_positions,
    "Keras 3.keras": write_archive,
    "Keras 3 without names.keras": lambda path, model: write_archive(path, model, names=False),
    "another ending.dat": write_archive,
}


@pytest.mark.parametrize(
    "model", [WHOLE, TUNED, FLAT, SEQUENTIAL], ids=["whole", "tuned", "flat", "sequential"]
)
@pytest.mark.parametrize("file", WRITERS)
def test_every_layout_gives_the_same_variables(file, model, tmp_path):
    WRITERS[file](tmp_path / file, model)
    classes = 1000 if model is WHOLE else 5
    loaded = weights.load(NAME, tmp_path / file)
    assert loaded.model.num_classes == classes
    assert loaded.settings == {"tf_padding": True, "epsilon": 1e-3}
    assert_same(loaded.variables, weights.from_keras(NAME, paths_of(model), num_classes=classes))
    kernel = {layer.name: layer for layer in model.walked()}
    kernel = kernel["conv_preds" if model is WHOLE else "dense"].variables["kernel"]
    np.testing.assert_array_equal(
        loaded.variables["params"]["head"]["fc"]["kernel"], kernel.reshape(-1, classes)
    )


def test_keras_1_names_variables_by_layers_and_letters(tmp_path):
    write_by_names(tmp_path / "old.h5", WHOLE, 1)
    _, variables = jaxnets.load_pretrained(NAME, tmp_path / "old.h5")
    assert_same(variables, weights.from_keras(NAME, paths_of(WHOLE)))


def test_a_head_may_be_missing_where_it_is_drawn_anew_or_dropped(tmp_path):
    write_by_positions(tmp_path / "notop.weights.h5", BODY)
    with pytest.raises(InputError, match="all but its head fits: give num_classes for a new one, or 0"):
        jaxnets.load_pretrained(NAME, tmp_path / "notop.weights.h5")
    backbone = weights.from_keras(NAME, paths_of(TUNED), num_classes=5)["params"]["backbone"]
    for classes in (0, 7):
        model, variables = jaxnets.load_pretrained(NAME, tmp_path / "notop.weights.h5", classes)
        assert model.num_classes == classes
        assert_same(variables["params"]["backbone"], backbone)


def test_a_head_of_another_form_is_refused_unless_it_is_replaced(tmp_path):
    two = Layer("Dense", "dense_1", {"kernel": np.ones((5, 3)), "bias": np.ones(3)})
    write_archive(tmp_path / "two.keras", TUNED._replace(layers=[*TUNED.layers, two]))
    maxima = [*TUNED.layers[:-3], Layer("GlobalMaxPooling2D", "maxima", {}), *TUNED.layers[-2:]]
    write_archive(tmp_path / "maxima.keras", TUNED._replace(layers=maxima))
    write_by_names(tmp_path / "maxima.h5", TUNED._replace(layers=maxima), whole=True)
    with pytest.raises(InputError, match=r"missing \(conv_preds.*left over \(dense.*give num_classes"):
        jaxnets.load_pretrained(NAME, tmp_path / "two.keras")
    for file in ("maxima.keras", "maxima.h5"):
        with pytest.raises(InputError, match=r"reads the maxima of the maps \(GlobalMaxPooling2D\)"):
            jaxnets.load_pretrained(NAME, tmp_path / file)
    for file in ("two.keras", "maxima.keras"):
        model, _ = jaxnets.load_pretrained(NAME, tmp_path / file, num_classes=7)
        assert model.num_classes == 7


def vgg(*dense):
    """A VGG of five convolutions, and dense layers of so many inputs and outputs."""
    rng = np.random.default_rng(0)
    widths = (3, 64, 128, 256, 512, 512)
    layers = [
        Layer("Conv2D", f"block{i}_conv1", {"kernel": rng.normal(size=(3, 3, n, m)), "bias": np.ones(m)})
        for i, (n, m) in enumerate(itertools.pairwise(widths), start=1)
    ]
    return Layer("Functional", "vgg", {}, [
        *layers,
        *(
            Layer("Dense", f"dense_{i}", {"kernel": rng.normal(size=shape), "bias": np.ones(shape[1])})
            for i, shape in enumerate(dense, start=9)
        ),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("dense", "hidden", "side"),
    [
        ([(512, 3)], (), 1),
        ([(512, 16), (16, 3)], (16,), 1),
        ([(2048, 16), (16, 8), (8, 3)], (16, 8), 2),
    ],
)
def test_the_dense_layers_of_a_vgg_are_as_in_its_file(dense, hidden, side, tmp_path):
    write_by_positions(tmp_path / "vgg.weights.h5", vgg(*dense))
    loaded = weights.load("vgg16", tmp_path / "vgg.weights.h5", depths=(1, 1, 1, 1, 1))
    assert loaded.settings == {"depths": (1, 1, 1, 1, 1), "hidden": hidden, "pool_size": side}
    head = loaded.variables["params"]["head"]
    assert [head[f"fc{i}"]["kernel"].shape for i in range(1, len(dense) + 1)] == dense
    assert loaded.preprocessing.order == "BGR"
    weights.save(tmp_path / "theirs.safetensors", loaded, "torchvision")
    tensors = sources.read(tmp_path / "theirs.safetensors").tensors
    assert tensors["classifier.0.weight"].shape == dense[0][::-1]


def test_files_that_are_not_whole_or_not_keras_are_refused_in_a_line(tmp_path):
    write_by_names(tmp_path / "whole.h5", TUNED)
    write_archive(tmp_path / "whole.keras", TUNED)
    for file in ("whole.h5", "whole.keras"):
        content = (tmp_path / file).read_bytes()
        for part in (20, len(content) // 2, len(content) - 9):
            (tmp_path / f"cut {file}").write_bytes(content[:part])
            refused(tmp_path / f"cut {file}", "is no whole file of Keras's .*; fetch or write it again")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["measurements"] = np.zeros(3)
    refused(tmp_path / "other.h5", "is HDF5, but holds no layers of Keras: .* it has measurements")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as other:
        other.writestr("readme.txt", "")
    refused(tmp_path / "other.keras", "is a zip, but none of Keras's: .* it has readme.txt")
    (tmp_path / "text.h5").write_text("no weights")
    refused(tmp_path / "text.h5", "is no whole file of Keras's")
    refused(tmp_path / "none.keras", "there is no such file")
    write_by_positions(tmp_path / "nameless.weights.h5", TUNED, names=False)
    refused(tmp_path / "nameless.weights.h5", "does not name its layers, as Keras before 3.6")
    twice = TUNED._replace(layers=[TUNED.layers[0], TUNED.layers[0]._replace(name="again")])
    write_by_positions(tmp_path / "twice.weights.h5", twice)
    refused(tmp_path / "twice.weights.h5", "it holds .* twice; keep one application")


def refused(path, match):
    with pytest.raises(InputError, match=match) as error:
        jaxnets.load_pretrained(NAME, path)
    assert "\n" not in str(error.value)


def test_no_other_file_is_opened(tmp_path):
    write_by_positions(tmp_path / "secret.h5", TUNED)
    with h5py.File(tmp_path / "linked.h5", "w") as linked:
        linked["layers"] = h5py.ExternalLink("secret.h5", "/layers")
    refused(tmp_path / "linked.h5", "holds no layers of Keras")
    with h5py.File(tmp_path / "named.h5", "w") as named:
        named.attrs["layer_names"] = ["dense"]
        named["dense"] = h5py.ExternalLink("secret.h5", "/layers/dense")
    refused(tmp_path / "named.h5", "is no whole file of Keras")
    with h5py.File(tmp_path / "outside.h5", "w") as outside:
        vars_ = outside.create_group("layers/dense/vars")
        vars_.create_dataset("0", (2, 2), "f4", external=[("secret.h5", 0, 16)])
    refused(tmp_path / "outside.h5", "its layers/dense/vars/0 lies in another file")


def test_an_optimizer_and_seeds_are_passed_over(tmp_path):
    write_by_positions(tmp_path / "trained.weights.h5", TUNED)
    with h5py.File(tmp_path / "trained.weights.h5", "a") as trained:
        for group in ("optimizer", "layers/dropout/seed_generator"):
            trained.create_group(f"{group}/vars")["0"] = np.zeros((3, 3), np.float32)
    _, variables = jaxnets.load_pretrained(NAME, tmp_path / "trained.weights.h5")
    assert_same(variables, weights.from_keras(NAME, paths_of(TUNED), num_classes=5))


def test_numbers_of_half_precision_are_read(tmp_path):
    import ml_dtypes

    write_by_positions(tmp_path / "half.weights.h5", TUNED)
    values = np.arange(5, dtype=np.float32)
    with h5py.File(tmp_path / "half.weights.h5", "a") as half:
        group = half["layers/dense/vars"]
        del group["1"]
        group.create_dataset("1", data=values.astype(ml_dtypes.bfloat16)).attrs["dtype"] = "bfloat16"
    _, variables = jaxnets.load_pretrained(NAME, tmp_path / "half.weights.h5")
    np.testing.assert_array_equal(variables["params"]["head"]["fc"]["bias"], values)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    write_archive(tmp_path / "whole.keras", TUNED)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(tmp_path / "whole.keras", r"need h5py; pip install 'jaxnets\[keras\]'")


def test_models_that_keras_does_not_have_and_others_are_named(tmp_path):
    write_archive(tmp_path / "whole.keras", WHOLE)
    with pytest.raises(
        InputError, match="is a file of Keras, which has no resnet18; wanted one of dens"
    ):
        jaxnets.load_pretrained("resnet18", tmp_path / "whole.keras")
    with pytest.raises(
        InputError, match="does not fit resnet50 by keras's names: .*looks like mobilenet"
    ):
        jaxnets.load_pretrained("resnet50", tmp_path / "whole.keras")


def test_layers_get_numbers_and_scales_that_keras_left_out():
    def unnamed(number):
        return [
            (f"conv2d_{number}", "kernel", np.zeros((3, 3, 2, 4))),
            *((f"batch_normalization_{number}", leaf, np.ones(4)) for leaf in ("beta", "moving_mean")),
            (f"batch_normalization_{number}", "moving_variance", np.ones(4)),
        ]

    tensors = keras.in_torchs_layout("a file", [*unnamed(10), *unnamed(9)])
    assert {key: tuple(value.shape) for key, value in tensors.items() if "weight" in key} == {
        "conv2d_1.weight": (4, 2, 3, 3),
        "conv2d.weight": (4, 2, 3, 3),
        "batch_normalization_1.weight": (4,),
        "batch_normalization.weight": (4,),
    }
    np.testing.assert_array_equal(tensors["batch_normalization.weight"], np.ones(4))


def test_convert_writes_safetensors_and_refuses_names_of_other_nets(tmp_path, capsys):
    write_archive(tmp_path / "tuned.keras", TUNED)
    out = tmp_path / "tuned.safetensors"
    cli.main(["convert", NAME, str(tmp_path / "tuned.keras"), "-o", str(out)])
    before, after = weights.load(NAME, tmp_path / "tuned.keras"), weights.load(out)
    assert_same(after.variables, before.variables)
    assert (after.settings, after.preprocessing) == (before.settings, before.preprocessing)
    with pytest.raises(SystemExit):
        cli.main(["convert", NAME, str(out), "-o", str(tmp_path / "x.safetensors"), "--library", "timm"])
    assert (
        "timm's mobilenet_v1_025 computes something else: it has tf_padding=False, epsilon=1e-05, and "
        "these weights are for tf_padding=True, epsilon=0.001; save them" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "library", "said"),
    [
        ("resnet50", "torchvision", "use_bias=False, epsilon=1e-05, and these"),
        (
            "densenet121",
            "torchvision",
            "it has epsilon=1e-05, and these weights are for epsilon=1.001e-05",
        ),
        ("mobilenet_v2_100", "torchvision", "tf_padding=False"),
        ("inception_v3", "torchvision", "it has pool_padding='in_means'"),
        ("resnetv2_50", "timm", "stride_last=False"),
        ("nasnet_large", "timm", "it has pool_padding='in_means'"),
        ("xception", "timm", "tf_padding=False"),
    ],
)
def test_nets_that_differ_from_the_librarys_are_not_written_by_its_names(name, library, said):
    with pytest.raises(InputError, match=f"{library}'s {name} computes something else: .*{said}"):
        weights.to_torch(name, {}, library, **weights.settings_of_library(name, "keras"))


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "resnetv2_50", "densenet121"])
def test_pictures_are_prepared_as_by_keras(name):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    row = next(row for row in jaxnets.models.published_weights(name) if row.library == "keras")
    wanted = {
        "vgg16": lambda x: x[..., ::-1] - [103.939, 116.779, 123.68],
        "resnet50": lambda x: x[..., ::-1] - [103.939, 116.779, 123.68],
        "resnetv2_50": lambda x: x / 127.5 - 1,
        "densenet121": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    }[name](pixels.astype(np.float64))
    np.testing.assert_allclose(images.of_published(row).normalize(pixels), wanted, atol=1e-4)
