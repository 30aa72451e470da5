"""Features of a dataset equal `method="features"` of each image alone, prepared by Pillow and NumPy."""

import csv
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets import cli, data, weights
from jaxnets.extraction import Features
from jaxnets.models import create_model
from jaxnets.weights import Preprocessing

NAMES = ("cat", "dog", "elk")
SETTINGS = {"depths": (1, 1)}


@pytest.fixture(scope="module")
def net():
    """A small ResNet with drawn weights."""
    model = create_model("resnet18", num_classes=3, **SETTINGS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)

    def drawn(leaf):
        if len(leaf.shape) == 1:
            return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return (deviation * rng.standard_normal(leaf.shape)).astype(np.float32)

    variables = jax.tree.map(drawn, shapes)
    return weights.Pretrained(model, variables, Preprocessing(36, 32), NAMES, SETTINGS, "net")


@pytest.fixture(scope="module")
def source(net, tmp_path_factory):
    """Its file."""
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    weights.save(path, net)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """21 pictures of three classes, as eight devices do not share alike."""
    root, rng = tmp_path_factory.mktemp("data") / "pictures", np.random.default_rng(1)
    for count, name in zip((9, 7, 5), NAMES, strict=True):
        (root / name).mkdir(parents=True)
        for k in range(count):
            pixels = rng.integers(0, 128, (50, 40, 3)) + rng.integers(0, 128, 3)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{k}.png")
    return root


def by_hand(net, paths, layer):
    """The map of each picture [N, h, w, c], one at a time."""
    mean, std = np.array(net.preprocessing.mean), np.array(net.preprocessing.std)
    maps = jax.jit(lambda images: net.model.apply(net.variables, images, method="features")[layer])
    found = []
    for path in paths:
        pixels = np.asarray(Image.open(path).resize((36, 45), Image.Resampling.BILINEAR))
        image = (pixels[6:38, 2:34] / 255 - mean) / std
        found.append(np.asarray(maps(image[None].astype(np.float32))[0]))
    return np.stack(found)


def assert_near(actual, expected):
    assert actual.shape == expected.shape
    assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max()  # images differ
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_features_of_a_folder_on_eight_devices_are_those_of_each_file(net, source, folder, tmp_path):
    assert jax.device_count() == 8
    output = tmp_path / "features.npz"
    words = ["--pretrained", source, "--dataset", f"folder:{folder}", "-o", output, "--batch-size", 16]
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        cli.main(["features", *map(str, words)])
    found, paths = np.load(output), sorted(folder.glob("*/*.png"))
    assert found["files"].tolist() == [str(path) for path in paths]
    assert_near(found["features"], by_hand(net, paths, "stage2").mean((1, 2)))
    assert [found["class_names"][k] for k in found["labels"]] == [path.parent.name for path in paths]
    dataset = data.load(f"folder:{folder}")
    trained = {path for path, split in zip(paths, found["splits"], strict=True) if split == "train"}
    assert {str(path) for path in trained} == set(dataset.train.paths)
    assert set(found["splits"]) == {"train", "test"}


def test_any_map_unpooled_of_a_split_as_text(net, source, folder, tmp_path):
    output = tmp_path / "features.csv"
    words = [source, "--dataset", f"folder:{folder}", "-o", output, "--layer", "stage1", "--no-pool"]
    cli.main(["features", *map(str, words), "--split", "test"])
    with open(output, newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading[:5] == ["file", "split", "label", "class", "feature_0"]
    paths = [row[0] for row in rows]
    assert paths == sorted(data.load(f"folder:{folder}").test.paths)
    assert [(split, NAMES[int(label)]) for _, split, label, *_ in rows] == [
        ("test", row[3]) for row in rows
    ]
    expected = by_hand(net, paths, "stage1")
    assert_near(np.array([row[4:] for row in rows], np.float32), expected.reshape(len(rows), -1))


def test_parts_in_folders_come_by_their_files_and_unreadable_ones_have_no_row(net, folder, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "parts" / split).parent.mkdir(exist_ok=True)
        (tmp_path / "parts" / split).mkdir()
        for name in NAMES:
            (tmp_path / "parts" / split / name).symlink_to(folder / name)
    broken = tmp_path / "parts" / "train" / "broken"
    broken.mkdir()
    (broken / "0.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    (broken / "1.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:400])
    found = jaxnets.extract_features(net, f"folder:{tmp_path / 'parts'}", batch_size=8)
    files = sorted(str(path) for path in (tmp_path / "parts").glob("*/*/*.png"))
    files.remove(str(broken / "1.png"))
    assert found.files.tolist() == files
    assert found.splits.tolist() == [file.split("/")[-3] for file in files]
    own = found.at(found.files == str(broken / "0.png")).features
    np.testing.assert_allclose(own, found.features[[files.index(str(broken / "0.png"))]])
    twins = [found.features[found.splits == split] for split in ("train", "val")]
    np.testing.assert_allclose(twins[0][1:], twins[1], rtol=1e-6)


def test_a_run_gives_features_of_its_own_dataset_by_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = ("--model", "mlp", "--settings", "widths=[8]", "--image-size", "8")
    options = ("--augment", "none", "--epochs", "1", "--batch-size", "512", "--run-dir", "run")
    cli.main(["train", "--strategy", "single", *net, *options])
    cli.main(["features", "run", "-o", "features.NPZ"])
    found, digits = np.load("features.NPZ"), data.load("digits", size=8)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "features.NPZ"}
    parts = {"train": digits.train, "test": digits.test}
    assert found["splits"].tolist() == [name for name, part in parts.items() for _ in part.labels]
    assert found["files"].tolist() == [str(k) for part in parts.values() for k in range(len(part))]
    assert found["labels"].tolist() == [*digits.train.labels, *digits.test.labels]
    run = jaxnets.recipes.load("run")
    images = np.concatenate([part.images for part in parts.values()]) / 255
    pixels = (images.reshape(len(images), -1) - run.task.mean[0]) / run.task.std[0]
    dense = run.variables["params"]["backbone"]["fc1"]
    assert_near(found["features"], np.maximum(pixels @ dense["kernel"] + dense["bias"], 0))


def test_a_table_of_parquet_has_the_numbers_of_the_archive(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    numbers = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    names = np.array(["a.png", "b.png", "c.png"]), np.array(["train", "train", "test"])
    found = Features(numbers, *names, np.array([1, 0, 2], np.int32), NAMES)
    found.save(tmp_path / "x.parquet")
    table = pandas.read_parquet(tmp_path / "x.parquet")
    assert list(table.columns) == ["file", "split", "label", "class", "feature_0", "feature_1"]
    np.testing.assert_array_equal(table[["feature_0", "feature_1"]].to_numpy(), numbers)
    assert table["class"].tolist() == ["dog", "cat", "elk"]


def test_parquet_without_pandas_is_refused(refused, source, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas.io.parquet", None)
    told = refused("features", source, "--dataset", f"folder:{folder}", "-o", "x.parquet")
    assert "pip install pandas pyarrow" in told


def test_what_cannot_be_is_told(refused, source, folder):
    dataset = ("--dataset", f"folder:{folder}")
    assert "must end in .csv, .npz, .parquet" in refused("features", source, *dataset, "-o", "x.txt")
    told = refused("features", source, *dataset, "-o", "x.npz", "--layer", "stage7")
    assert "unknown layer 'stage7'" in told
    assert "stage2" in told
    assert "folder:PATH" in refused("features", source, "-o", "x.npz")
    told = refused("features", source, "--pretrained", "resnet50", *dataset, "-o", "x.npz")
    assert told.startswith("jaxnets: pretrained: ")
