"""Segmenters on the command line: train, resume, eval, predict, look inside, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets import cli, recipes, segmentation, weights
from jaxnets.data.scenes import SceneSource
from jaxnets.segmentation.recipe import Config
from jaxnets.training import Checkpointer

PLAIN_NET = str(Path(__file__).parents[2] / "experiments" / "own_model.py")
SMALL = (
    "--strategy", "single", "--model", "fcn", "--image-size", "32", "--backbone", "plain_net",
    "--backbone-settings", "widths=[8,8,8,8,8]", "--augment", "none", "--batch-size", "4",
)  # fmt: skip
CLASSES = ("background", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def make_folder(root, names=CLASSES, count=15):
    """Scenes of up to three digits as images/ and labels/, of two sizes."""
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    scenes = SceneSource(count=count, size=48, objects=3, segmentation=True)
    for number in range(count):
        example, wide = scenes[number], slice(0, 48 if number % 2 else 40)
        Image.fromarray(example["image"][:, wide]).save(root / "images" / f"{number}.jpg", quality=95)
        labels = example["segmentation"][:, wide].astype(np.uint8)
        Image.fromarray(labels).save(root / "labels" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    recipes.run_script(PLAIN_NET)
    return make_folder(tmp_path_factory.mktemp("data") / "pictures")


def train(folder, directory, *options):
    data = ["--dataset", f"folder:{folder}", "--run-dir", str(directory)]
    cli.main(["train", "segmentation", *SMALL, *data, *options])


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained") / "run"
    train(folder, directory, "--epochs", "2")
    return directory


def test_a_run_is_measured_drawn_and_segments_pictures(trained, folder, capsys, tmp_path):
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"train_loss", "train_pixel_accuracy", "test_miou", "test_fw_iou"} <= set(last)
    cli.main(["eval", str(trained)])
    printed = capsys.readouterr().out
    assert "examples       3" in printed
    assert f"miou           {last['test_miou']:.3f}" in printed
    assert "iou background" in printed
    cli.main(["plots", str(trained)])
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()[:3]} == {
        "curves.png", "segmentations.png", "confusion.png",
    }  # fmt: skip
    picture, drawn, labels = str(folder / "images/0.jpg"), tmp_path / "o.png", tmp_path / "l.png"
    cli.main(["predict", str(trained), picture, "-o", str(drawn), "--labels", str(labels)])
    line, *paths = capsys.readouterr().out.splitlines()
    assert paths == [str(drawn), str(labels)]
    (found,) = segmentation.segment(*jaxnets.load_pretrained(trained), [picture])
    assert found.shape == (48, 40)
    np.testing.assert_array_equal(np.asarray(Image.open(labels)), found)
    largest = np.bincount(found.ravel()).argmax()
    assert line.startswith(f"{picture}: {CLASSES[largest]} {np.mean(found == largest):.1%}")


@pytest.mark.slow
def test_a_run_that_goes_on_ends_in_the_same_bits(trained, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(trained, again)
    whole = variables_of(trained)
    steps = sorted(int(path.name) for path in (again / "checkpoints").iterdir() if path.name.isdigit())
    assert len(steps) > 1
    cli.main(["train", "--resume", "--run-dir", str(again), "--checkpoint", str(steps[0])])
    jax.tree.map(np.testing.assert_array_equal, variables_of(again), whole)


def variables_of(directory):
    return Checkpointer(directory / "checkpoints", read_only=True).restore_variables()


@pytest.mark.slow
def test_killed_and_resumed_it_ends_in_the_same_bits(folder, whole_and_killed):
    words = [PLAIN_NET, "segmentation", *SMALL, "--dataset", f"folder:{folder}", "--epochs", "4"]
    words += ["--augment", "segmentation", "--checkpoint-every", "2"]
    ends = whole_and_killed(words, last=12)
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_what_is_inside_is_measured_on_classes_of_the_same_name(
    trained, folder, capsys, caplog, refused, tmp_path
):
    file = str(tmp_path / "ours.safetensors")
    cli.main(["convert", "fcn", str(trained), "-o", file])
    other = make_folder(tmp_path / "other", ["background", "null", "ace", *CLASSES[3:]])
    cli.main(["eval", file, "--dataset", f"folder:{folder}"])
    own = capsys.readouterr().out
    assert "images" in own
    assert "iou two" in own
    cli.main(["eval", file, "--dataset", f"folder:{other}"])
    assert (
        "2 of 11 classes are unknown to the segmenter and count as background: null, ace" in caplog.text
    )
    printed = capsys.readouterr().out
    assert "iou two" in printed
    picture = str(folder / "images/0.jpg")
    cli.main(["predict", file, picture])
    cli.main(["predict", str(trained), picture])
    by_file, by_run = capsys.readouterr().out.splitlines()
    assert by_file == by_run
    strange = make_folder(tmp_path / "strange", ["background", *(f"digit {k}" for k in range(10))])
    assert "has none of its classes" in refused("eval", file, "--dataset", f"folder:{strange}")
    assert "give --dataset voc:PATH" in refused("eval", file, "--dataset", "digits")


def test_weights_begin_a_run_with_a_new_head_and_a_classifiers_in_the_backbone(trained, tmp_path):
    other = make_folder(tmp_path / "other", ["background", "null", *CLASSES[2:]])
    settings = {"dataset": f"folder:{other}", "image_size": 32, "augment": (), "batch_size": 4}
    recipe = recipes.get("segmentation")

    def prepared(**own):
        config = Config(**settings, **own).completed()
        return recipe.prepare(config, recipe.load(config, None), None)

    run = prepared(weights=str(trained))
    assert run.notes[-1] == f"weights of {trained}; head new, for 11 classes"
    before, after = variables_of(trained)["params"], run.variables["params"]
    jax.tree.map(np.testing.assert_array_equal, before["backbone"], after["backbone"])
    score = (side["decoder"]["head"]["conv2"]["kernel"] for side in (before, after))
    assert not np.array_equal(*score)
    assert run.task.model.class_names[1] == "null"

    model = jaxnets.create_model("plain_net", num_classes=5, widths=(8,) * 5)
    drawn = jax.tree.map(np.asarray, model.init(jax.random.key(1), np.zeros((1, 64, 64, 3), np.float32)))
    constants = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    images = weights.Preprocessing(64, 64, "bilinear", **constants)
    saved = weights.Pretrained(model, drawn, images, tuple("abcde"), {"widths": (8,) * 5}, "x")
    file = tmp_path / "classifier.safetensors"
    weights.save(file, saved)
    run = prepared(model="fcn", backbone_weights=str(file))
    for name in ("params", "batch_stats"):
        own, given = run.variables[name]["backbone"], drawn[name]["backbone"]
        jax.tree.map(np.testing.assert_array_equal, own, given)
    assert run.task.model.resizing.mean == constants["mean"]
    again = recipe.restore(Config().completed(), json.loads(json.dumps(run.about)), tmp_path)
    assert again.model == run.task.model


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "fnc"], "unknown segmenter 'fnc'; did you mean 'fcn'"),
        (["--model", "lenet5"], "unknown segmenter 'lenet5'"),
        (["--backbone", "resnet51"], "unknown model 'resnet51'"),
        (["--model", "fcn_resnet50", "--backbone", "resnet18"], "has its own, resnet50"),
        (["--model", "segnet", "--backbone", "resnet18"], "segnet has its own"),
        (["--loss", "dise"], "unknown loss 'dise'; did you mean 'dice'"),
        (["--class-weights", "1", "2"], "class_weights has 2 entries for 11 classes"),
        (["--dataset", "digits"], "dataset digits has no label maps; scenes, voc:PATH"),
        (["--pretrained"], "there are no public weights for deeplabv3"),
        (["--settings", "num_classes=3"], "num_classes is decided by the run"),
    ],
)
def test_a_wrong_argument_is_named(folder, refused, options, words):
    command = ["train", "segmentation", "--dataset", f"folder:{folder}", "--image-size", "32", *options]
    assert words in refused(*command)


def test_what_does_not_fit_a_run_is_said(trained, folder, refused, tmp_path):
    picture = folder / "images/0.jpg"
    other = make_folder(tmp_path / "other", [f"digit {k}" for k in range(11)])
    assert "has classes digit 0, digit 1" in refused("eval", trained, "--dataset", f"folder:{other}")
    assert "cannot be read" in refused("predict", trained, folder / "classes.txt")
    assert "2 given; label maps are not averaged" in refused("predict", trained, trained, picture)
    both = "predict", trained, picture, picture
    assert "2 pictures given; it is written of one" in refused(*both, "-o", "x.png")
    assert "x.txt must end in" in refused("predict", trained, picture, "-o", "x.txt")
    assert "does not end in .png" in refused("predict", trained, picture, "--labels", "x.jpg")


def test_what_is_left_open_suits_the_dataset():
    scenes = Config().completed()
    assert (scenes.model, scenes.backbone, scenes.epochs) == ("unet", "resnetv2_50", 8)
    assert (scenes.image_size, scenes.augment, scenes.loss) == (96, (), "cross_entropy+dice")
    assert scenes.settings == ("widths=[32,12]",)
    told = Config(backbone="resnet18", learning_rate=0.1).completed()
    assert (told.backbone, told.backbone_settings, told.learning_rate) == ("resnet18", (), 0.1)
    assert told.settings == ()  # of a decoder for one stage
    voc = Config(dataset="voc:x", model="deeplabv3_resnet50", pretrained=True).completed()
    assert (voc.image_size, voc.augment, voc.settings, voc.backbone) == (
        512,
        ("segmentation",),
        (),
        None,
    )
    assert Config(dataset="voc:x").completed().model == "deeplabv3"
    assert Config(augment=("none",)).completed().augment == ()
    assert scenes == scenes.completed()
