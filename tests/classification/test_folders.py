"""What is measured with pretrained models, against the same computed image by image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxnets import cli, metrics, weights
from jaxnets.classification import folders
from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.weights import Preprocessing, imagenet

NAMES = tuple(f"class{k}" for k in range(7))
SETTINGS = {"depths": (1,)}


def member(seed, **preprocessing):
    """A small net with drawn weights."""
    model = create_model("resnet18", num_classes=7, **SETTINGS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(seed)

    def drawn(leaf):  # He normal, and a little more, for probabilities that tell images apart
        if len(leaf.shape) == 1:
            return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
        deviation = np.sqrt(3 / np.prod(leaf.shape[:-1]))
        return (deviation * rng.standard_normal(leaf.shape)).astype(np.float32)

    images = Preprocessing(**{"resize": 36, "size": 32} | preprocessing)
    variables = jax.tree.map(drawn, shapes)
    return weights.Pretrained(model, variables, images, NAMES, SETTINGS, f"net {seed}")


@pytest.fixture(scope="module")
def net():
    return member(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of noise in colors for three of the seven classes, of which one is no picture."""
    root = tmp_path_factory.mktemp("pictures") / "val"
    rng = np.random.default_rng(0)
    for label in (1, 4, 6):
        (root / NAMES[label]).mkdir(parents=True)
        for k in range(3):
            pixels = rng.integers(0, 128, (50, 40, 3)) + rng.integers(0, 128, 3)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(root / NAMES[label] / f"{k}.png")
    broken = root / NAMES[1] / "broken.png"
    broken.write_bytes((root / NAMES[1] / "0.png").read_bytes()[:400])
    return root


def by_hand(net, folder, kind):
    """Labels and mean probabilities, from Pillow and NumPy alone."""
    labels, rows = [], []
    for path in sorted(folder.glob("*/?.png")):
        image = np.asarray(Image.open(path).resize((36, 45), Image.Resampling.BILINEAR))
        corners = [(6, 2)] if kind != "ten" else [(6, 2), (0, 0), (0, 4), (13, 0), (13, 4)]
        views = [image[top : top + 32, left : left + 32] for top, left in corners]
        views += [np.fliplr(view) for view in views] if kind != "center" else []
        mean, std = np.array(net.preprocessing.mean), np.array(net.preprocessing.std)
        views = ((np.stack(views) / 255 - mean) / std).astype(np.float32)
        logits = np.asarray(net.model.apply(net.variables, views), np.float64)
        exp = np.exp(logits - logits.max(1, keepdims=True))
        rows.append((exp / exp.sum(1, keepdims=True)).mean(0))
        labels.append(NAMES.index(path.parent.name))
    return np.array(labels), np.array(rows)


def scores(labels, rows):
    order = np.argsort(-rows, axis=1)
    found = order == labels[:, None]
    own = rows[np.arange(len(labels)), labels]
    return {
        "images": len(labels),
        "loss": -np.log(own).mean(),
        "top1": found[:, 0].mean(),
        "top5": found[:, :5].any(axis=1).mean(),
    }


def evaluated(members, folder, **options):
    members = folders.members_of(members, inside=None)
    return metrics.compute(folders.evaluate(members, folder, **options))


@pytest.mark.parametrize("kind", ["center", "flip", pytest.param("ten", marks=pytest.mark.slow)])
def test_views_are_averaged(net, folder, kind):
    results = evaluated([net], folder.parent, crops=kind, batch_size=4)
    wanted = scores(*by_hand(net, folder, kind))
    assert results == pytest.approx(wanted, rel=1e-4)
    assert 0 < wanted["top5"] < 1  # neither all nor none, or it would tell little


def test_a_run_is_measured_on_what_it_did_not_see_whatever_the_options(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for k in range(10):
            pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{k}.png")
    small = ("--model", "mlp", "--settings", "widths=[4]", "--image-size", "16", "--epochs", "1")
    cli.main(
        ["train", *small, "--strategy", "single", "--dataset", "folder:pictures", "--run-dir", "run"]
    )
    for models in (("run",), ("run", "--strict"), ("run", "--crops", "flip"), ("run", "run")):
        capsys.readouterr()
        cli.main(["eval", *models])
        printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[1:])
        assert printed.get("examples", printed.get("images")) == "4"  # a fifth


def test_models_are_averaged(net, folder):
    other = member(1, mean=(0.5,) * 3, std=(0.5,) * 3)
    results = evaluated([net, other], folder, batch_size=16)
    labels, first = by_hand(net, folder, "center")
    _, second = by_hand(other, folder, "center")
    assert results == pytest.approx(scores(labels, (first + second) / 2), rel=1e-4)
    odd = dataclasses.replace(net, class_names=NAMES[::-1])
    with pytest.raises(InputError, match="net 0 has other classes than net 0"):
        evaluated([net, odd], folder)


def test_folders_are_called_as_the_classes(net, folder, tmp_path):
    for name in ("class1", "class9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes((folder / "class1" / "0.png").read_bytes())
    with pytest.raises(InputError, match="has no class 'class9'; wanted .*class0, class1, class2 ..."):
        evaluated([net], tmp_path)
    with pytest.raises(InputError, match="cannot decode .*broken.png"):
        evaluated([net], folder, strict=True)
    with pytest.raises(InputError, match="unknown kind of crops 'nine'"):
        evaluated([net], folder, crops="nine")
    with pytest.raises(InputError, match="does not tell what images its weights want"):
        evaluated([dataclasses.replace(net, preprocessing=None)], folder)


def test_the_split_that_is_asked_for_is_measured(net, folder, tmp_path):
    """The test part holds the pictures of one class less."""
    for part, classes in (("val", (1, 4, 6)), ("test", (4, 6))):
        for label in classes:
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / NAMES[label]).symlink_to(folder / NAMES[label])
    for split, count in ((None, 9), ("test", 6), ("Validation", 9)):
        assert evaluated([net], tmp_path, split=split)["images"] == count
    with pytest.raises(InputError, match="unknown split of .*'train'.*test, val"):
        evaluated([net], tmp_path, split="train")


def test_imagenets_classes_are_known_by_name_and_by_identifier():
    names = imagenet.class_names(1000)
    assert len(set(names)) == 1000
    assert list(imagenet.classes()) == sorted(imagenet.classes())  # the order of all public weights
    for identifier, name, index in (
        ("n01440764", "tench", 0),
        ("n02123045", "tabby", 281),
        ("n15075141", "toilet tissue", 999),
    ):
        assert imagenet.classes()[identifier] == names[index] == name
    found = folders.class_indices(["n01440764", "tabby", "n15075141"], names)
    assert list(found) == [0, 281, 999]
    with pytest.raises(InputError, match=r"or by WordNet identifiers \(n01440764"):
        folders.class_indices(["n00000000"], names)


def test_the_command_line_converts_predicts_and_evaluates(net, folder, tmp_path, capsys):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    weights.save(ours, net)
    cli.main(["convert", "resnet18", str(ours), "-o", str(theirs), "--library", "torchvision"])
    assert "theirs.safetensors: resnet18 by the names of torchvision" in capsys.readouterr().out
    tensors, _ = weights.files.read_safetensors(theirs)
    assert tensors["layer1.0.conv1.weight"].shape == (64, 64, 3, 3)

    picture = folder / "class4" / "1.png"
    cli.main(["predict", str(ours), str(picture), "--top", "2"])
    _, rows = by_hand(net, folder, "center")
    best, second = np.argsort(-rows[4])[:2]
    said = f"{picture}: {NAMES[best]} {rows[4][best]:.1%}, {NAMES[second]} {rows[4][second]:.1%}"
    assert capsys.readouterr().out.strip() == said

    names = [str(ours), f"resnet18={ours}"]
    cli.main(["eval", *names, "--dataset", f"folder:{folder}", "--crops", "flip"])
    wanted = scores(*by_hand(net, folder, "flip"))
    printed = capsys.readouterr().out
    assert "images    9" in printed
    assert f"top1      {wanted['top1']:.2%}" in printed
    cli.main(["eval", str(ours), "--dataset", f"folder:{folder.parent}", "--split", "validation"])
    assert "split validation\nimages    9" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["eval", str(ours)])
    assert "give --dataset folder:PATH" in capsys.readouterr().err
