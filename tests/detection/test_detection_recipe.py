"""Detectors on the command line: train, resume, eval, predict, look inside, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets import cli, detection, recipes, weights
from jaxnets.data.scenes import SceneSource
from jaxnets.detection.recipe import Config
from jaxnets.training import Checkpointer

PLAIN_NET = str(Path(__file__).parents[2] / "experiments" / "own_model.py")
SMALL = (
    "--strategy", "single", "--image-size", "64", "--backbone", "plain_net", "--backbone-settings",
    "widths=[8,8,8,8,8]", "--augment", "none", "--boxes", "4", "--batch-size", "4",
    "--settings", "width=32", "hidden=16", "anchor_size=8", "proposals=12", "train_proposals=12",
)  # fmt: skip


def make_folder(root, names=None, count=15):
    """Scenes of up to three digits in COCO's format, with gaps between the ids of categories."""
    root.mkdir()
    scenes = SceneSource(count=count, size=48, objects=3)
    images, annotations = [], []
    for number in range(count):
        scene = scenes.scene(number)
        Image.fromarray(scene.image).save(root / f"{number}.png")
        images.append({"id": number + 1, "file_name": f"{number}.png", "height": 48, "width": 48})
        for label, (x1, y1, x2, y2) in zip(scene.labels.tolist(), scene.boxes.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            own = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": 7 + 4 * label}
            annotations.append(own | {"bbox": box, "iscrowd": 0})
    names = names or scenes.class_names
    categories = [{"id": 7 + 4 * k, "name": name} for k, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    recipes.run_script(PLAIN_NET)
    return make_folder(tmp_path_factory.mktemp("data") / "pictures")


def train(folder, directory, *options):
    data = ["--dataset", f"coco:{folder}", "--run-dir", str(directory)]
    cli.main(["train", "detection", *SMALL, *data, *options])


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained") / "run"
    train(folder, directory, "--epochs", "2")
    return directory


@pytest.mark.slow
def test_a_run_is_measured_drawn_and_finds_objects_in_pictures(trained, folder, capsys, tmp_path):
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"train_loss", "train_objectness", "test_AP", "test_AP50"} <= set(last)
    assert last["test_AP"] >= 0  # and not -1: categories were found by ids with gaps
    cli.main(["eval", str(trained)])
    printed = capsys.readouterr().out
    assert "examples  3" in printed
    assert f"AP        {last['test_AP']:.3f}" in printed
    cli.main(["plots", str(trained)])
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()[:3]} == {
        "curves.png", "detections.png", "precision_recall.png",
    }  # fmt: skip
    picture, drawn = str(folder / "0.png"), tmp_path / "boxes.png"
    options = ["--score", "0.01", "-o", str(drawn)]
    cli.main(["predict", str(trained), picture, *options])
    line, path = capsys.readouterr().out.splitlines()
    assert path == str(drawn)
    assert Image.open(drawn).size == (480, 480)  # enlarged tenfold, for the names
    (found,) = detection.detect(*jaxnets.load_pretrained(trained), [picture], score=0.01)
    left, top, right, bottom = found.boxes[0].round().astype(int)
    told = f"{found.names[0]} {found.scores[0]:.1%} ({left}, {top}, {right}, {bottom})"
    assert line.startswith(f"{picture}: {told}, ")
    assert set(found.names) <= set(SceneSource().class_names)
    cli.main(["predict", str(trained), picture, "--score", "1"])
    assert capsys.readouterr().out == f"{picture}: nothing\n"


@pytest.mark.slow
def test_a_run_that_goes_on_ends_in_the_same_bits(trained, folder, tmp_path):
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
    words = [PLAIN_NET, "detection", *SMALL, "--dataset", f"coco:{folder}", "--epochs", "4"]
    ends = whole_and_killed([*words, "--checkpoint-every", "2"], last=12)
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.slow
def test_what_is_inside_is_looked_into_and_begins_another_run(
    trained, folder, capsys, caplog, refused, tmp_path
):
    picture, maps = str(folder / "0.png"), tmp_path / "maps.png"
    cli.main(["explain", "feature_maps", picture, "--model", str(trained), "-o", str(maps)])
    assert Image.open(maps).size[0] > 100
    maps.unlink()
    assert "scores no classes" in refused("explain", "saliency", picture, "--model", trained)

    file = str(tmp_path / "ours.safetensors")
    cli.main(["convert", "faster_rcnn", str(trained), "-o", file])
    digits = SceneSource().class_names
    other = make_folder(tmp_path / "other", ["null", "ace", *digits[2:]])
    cli.main(["eval", file, "--dataset", f"coco:{folder}"])
    own = capsys.readouterr().out
    assert "images    3" in own
    cli.main(["eval", file, "--dataset", f"coco:{other}"])
    assert "2 of 10 classes are unknown to the detector and are not measured: null, ace" in caplog.text
    cli.main(["predict", file, picture, "--score", "0.01"])
    cli.main(["predict", str(trained), picture, "--score", "0.01"])
    *_, by_file, by_run = capsys.readouterr().out.splitlines()
    assert by_file == by_run


@pytest.mark.slow
def test_weights_begin_a_run_with_a_new_head_and_the_first_stages_stay(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ["null", "ace", "two"]
    other = make_folder(tmp_path / "other", [*named, *SceneSource().class_names[3:]])
    config = Config(
        dataset=f"coco:{other}", weights=str(trained), image_size=64, boxes=4, augment=(), batch_size=4
    ).completed()
    recipe = recipes.get("detection")
    run = recipe.prepare(config, recipe.load(config, None), None)
    assert run.notes[-1] == f"weights of {trained}; head new, for 10 classes"
    before, after = variables_of(trained)["params"], run.variables["params"]
    for name in ("backbone", "fpn", "box_head"):
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    score = (side["box_predictor"]["cls_score"]["kernel"] for side in (before, after))
    assert not np.array_equal(*score)
    assert run.task.model.class_names[:3] == tuple(named)
    optimizer = run.transform(jaxnets.training.create_optimizer("momentum", 0.1))
    ones = jax.tree.map(np.ones_like, after)
    updates, _ = optimizer.update(ones, optimizer.init(after), after)
    moved = [bool(np.any(updates["backbone"][f"stage{k}_conv"]["kernel"])) for k in range(1, 6)]
    assert moved == [False, False, True, True, True]


def test_a_classifiers_weights_begin_in_the_backbone(folder, tmp_path):
    model = jaxnets.create_model("plain_net", num_classes=5, widths=(8,) * 5)
    drawn = jax.tree.map(np.asarray, model.init(jax.random.key(1), np.zeros((1, 64, 64, 3), np.float32)))
    constants = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    images = weights.Preprocessing(64, 64, "bilinear", **constants)
    saved = weights.Pretrained(model, drawn, images, tuple("abcde"), {"widths": (8,) * 5}, "x")
    file = tmp_path / "classifier.safetensors"
    weights.save(file, saved)
    config = Config(
        dataset=f"coco:{folder}", backbone_weights=str(file), image_size=64, boxes=4, augment=(),
        settings=SMALL[-5:],
    ).completed()  # fmt: skip
    recipe = recipes.get("detection")
    run = recipe.prepare(config, recipe.load(config, None), None)
    for name in ("params", "batch_stats"):
        own, given = run.variables[name]["backbone"], drawn[name]["backbone"]
        jax.tree.map(np.testing.assert_array_equal, own, given)
    assert run.task.model.resizing.mean == constants["mean"]
    again = recipe.restore(config, json.loads(json.dumps(run.about)), tmp_path)
    assert again.model == run.task.model


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "faster_rcn"], "unknown detector 'faster_rcn'; did you mean 'faster_rcnn'"),
        (["--model", "lenet5"], "unknown detector 'lenet5'"),
        (["--backbone", "resnet51"], "unknown model 'resnet51'"),
        (["--backbone", "lenet5"], "backbone: lenet5 has maps of strides 1, 2, 4 and none of 8, 16, 32"),
        (["--model", "fcos_resnet50_fpn", "--backbone", "resnet18"], "has its own, resnet50"),
        (["--boxes", "2"], "2.png has 3 objects, and boxes is 2; raise it to 3 or more"),
        (["--model", "mask_rcnn", "--dataset", "voc:."], "has no masks, which the detector learns"),
        (["--dataset", "digits"], "dataset digits has no boxes; scenes, coco:PATH"),
        (["--pretrained"], "there are no public weights for faster_rcnn"),
        (["--pretrained", "--weights", "x.pth"], "pretrained and weights: give one of the two"),
        (["--weights", "x.pth"], "x.pth: there is no such file"),
        (["--frozen-stages", "5"], "frozen_stages is 5; it must be at least 0 and at most 4"),
        (["--settings", "num_classes=3"], "num_classes is decided by the run"),
    ],
)
def test_a_wrong_argument_is_named(folder, refused, options, words):
    command = ["train", "detection", "--dataset", f"coco:{folder}", "--image-size", "64", *options]
    assert words in refused(*command)


def broken(kind):
    def mend(content):
        images, annotations = content["images"], content["annotations"]
        if kind == "form":
            content.pop("images")
        elif kind == "twice":
            images[1]["id"] = images[0]["id"]
        else:
            annotations[0]["image_id"] = 99
        return content

    return mend


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("form", "is not in COCO's format of instances"),
        ("twice", "has two images of id 1"),
        ("missing", "has an annotation of image_id 99, but no image of that id"),
    ],
)
def test_annotations_that_cannot_be_used_are_named(folder, refused, tmp_path, kind, words):
    content = json.loads((folder / "instances.json").read_text())
    (tmp_path / "instances.json").write_text(json.dumps(broken(kind)(content)))
    assert words in refused("train", "detection", "--dataset", "coco:.")


def test_what_does_not_fit_a_run_is_said(trained, folder, refused, tmp_path):
    picture = folder / "0.png"
    other = make_folder(tmp_path / "other", [f"digit {k}" for k in range(10)])
    assert "has classes digit 0, digit 1" in refused("eval", trained, "--dataset", f"coco:{other}")
    assert "cannot be read" in refused("predict", trained, folder / "instances.json")
    assert "2 given; detections are not averaged" in refused("predict", trained, trained, picture)
    both = "predict", trained, picture, picture
    assert "2 pictures given; what is found is drawn" in refused(*both, "-o", "x.png")
    assert "x.txt must end in" in refused("predict", trained, picture, "-o", "x.txt")
    assert "score is 2.0; it must be from 0 to 1" in refused("predict", trained, picture, "--score", "2")
    file = tmp_path / "other.safetensors"
    weights.save(file, recipes.get("detection").inside(recipes.load(trained)))
    assert "has none of its classes" in refused("eval", file, "--dataset", f"coco:{other}")
    assert "give --dataset coco:PATH" in refused("eval", file, "--dataset", "digits")


def test_what_is_left_open_suits_the_dataset():
    scenes = Config().completed()
    assert (scenes.model, scenes.backbone, scenes.epochs) == ("faster_rcnn", "resnetv2_50", 5)
    assert (scenes.boxes, scenes.image_size, scenes.augment) == (4, 64, ())
    assert "anchor_size=8" in scenes.settings
    told = Config(backbone="resnet18", settings=("width=32",), learning_rate=0.1).completed()
    assert (told.backbone, told.settings, told.learning_rate) == ("resnet18", ("width=32",), 0.1)
    assert told.backbone_settings == ()
    coco = Config(dataset="coco:x", model="retinanet_resnet50_fpn", pretrained=True).completed()
    assert (coco.boxes, coco.image_size, coco.augment) == (100, 512, ("objects",))
    assert (coco.settings, coco.backbone) == ((), None)
    assert Config(augment=("none",)).completed().augment == ()
    assert scenes == scenes.completed()


@pytest.mark.slow
@pytest.mark.deep  # a search knows no task
def test_it_is_searched(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(
        ["search", "detection", *SMALL, "--dataset", f"coco:{folder}", "--candidates", "2",
         "--stages", "1"]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "held-out loss" in printed
    assert "jaxnets train detection" in printed
    assert "--backbone plain_net" in printed
