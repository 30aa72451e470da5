"""Captioners on the command line: train, resume, eval, predict, and what is refused."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
from PIL import Image

from jaxnets import cli, recipes
from jaxnets.captioning import Vocabulary
from jaxnets.captioning.recipe import RECIPE, Config, describe
from jaxnets.data.inputs import normalized
from jaxnets.exported import load_exported
from jaxnets.pretrained import load_pretrained
from jaxnets.runs.searching import train_command

COLORS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


def make_folder(root, count=60):
    """Pictures of one color, which their captions tell."""
    root.mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(count):
        name = list(COLORS)[number % 3]
        pixels = rng.integers(0, 50, (32, 32, 3)) + COLORS[name]
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png"})
        annotations.append({"image_id": number, "caption": f"A {name} picture."})
    content = {"images": images, "annotations": annotations}
    (root / "captions.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "pictures")


def train(folder, *options):
    return cli.main(
        ["train", "captioning", "--strategy", "single", "--dataset", f"captions:{folder}",
         "--image-size", "32", "--model", "lenet5", "--feature", "pool2", "--batch-size", "8",
         "--caption-length", "6", "--learning-rate", "0.02", "--attention-penalty", "0.1",
         "--captioner-settings", "features=16", "embedding=8", "attention_features=8", "dropout=0",
         *options]
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained") / "run"
    train(folder, "--epochs", "12", "--run-dir", str(directory))
    return directory


@pytest.fixture
def refused(capsys):
    """Runs a command that must end with status 2 and a line or two; returns the message."""

    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(list(map(str, arguments)))
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.startswith("jaxnets: ")
        assert len(message.strip().splitlines()) <= 2
        return message

    return refused


def test_an_exported_captioner_says_what_it_predicts(trained, folder, tmp_path):
    cli.main(["export", str(trained), "-o", str(tmp_path / "captions.bin")])
    loaded, paths = load_exported(tmp_path / "captions.bin"), [folder / f"{k}.png" for k in range(3)]
    tokens = np.asarray(loaded(np.stack([np.asarray(Image.open(path)) for path in paths])))
    assert tokens.shape == (3, 6)
    words, end = loaded.about["words"], loaded.about["end"]
    said = [" ".join(words[k] for k in row[: row.tolist().index(end)]) for row in tokens]
    assert said == ["a red picture", "a green picture", "a blue picture"]


def test_a_run_describes_pictures_and_is_measured(trained, folder, capsys, tmp_path):
    for name in ("config.json", "vocabulary.json", "metrics.jsonl", "curves.png", "checkpoints"):
        assert (trained / name).exists()
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_exact"] == 1.0
    cli.main(["plots", str(trained)])
    drawn, left_out = capsys.readouterr().out.splitlines()
    assert drawn == str(trained / "curves.png")
    assert left_out.startswith("no update_ratios.png")
    cli.main(["predict", str(trained), str(folder / "0.png"), str(folder / "1.png")])
    assert capsys.readouterr().out.splitlines() == [
        f"{folder / '0.png'}: a red picture",
        f"{folder / '1.png'}: a green picture",
    ]
    cli.main(["eval", str(trained)])
    printed = capsys.readouterr().out
    assert "exact     100.00%" in printed
    assert "cider_d" in printed


@pytest.mark.slow
def test_attention_is_drawn_and_several_sentences_are_ranked(trained, folder, capsys, tmp_path):
    picture = tmp_path / "looked.png"
    image = str(folder / "2.png")
    cli.main(["predict", str(trained), image, "--beams", "4", "--sentences", "2"])
    cli.main(["explain", "attention", image, "--model", str(trained), "-o", str(picture)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{folder / '2.png'}: a blue picture (")
    scores = [float(line.rpartition("(")[2].rstrip(")")) for line in lines[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert lines[-1] == str(picture)
    width, height = Image.open(picture).size
    assert width > height > 100


@pytest.mark.slow
def test_an_ensemble_of_runs_and_one_of_another_vocabulary(trained, folder, capsys, refused, tmp_path):
    run = recipes.load(trained)
    (alone,) = describe([run], [folder / "0.png"])
    (twice,) = describe([run, run], [folder / "0.png"])
    assert alone[0][0] == twice[0][0] == "a red picture"
    assert alone[0][1] == pytest.approx(twice[0][1], rel=1e-4)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "checkpoints"):
        (other / name).symlink_to(trained / name)
    words = list(Vocabulary.load(trained).words)
    Vocabulary((*words[:-1], "zebra")).save(other)
    message = refused("predict", trained, other, folder / "0.png")
    assert "another vocabulary than that in" in message


def test_a_run_that_is_older_than_a_field_of_the_configuration_is_read(trained, folder, tmp_path):
    for name in ("vocabulary.json", "checkpoints"):
        (tmp_path / name).symlink_to(trained / name)
    saved = json.loads((trained / "config.json").read_text())
    del saved["recolor"]
    saved["dataset"] = "scenes"  # which would be recolored if it were begun now
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = [recipes.load(directory) for directory in (tmp_path, trained)]
    old, new = (describe([run], [folder / "0.png"]) for run in loaded)
    assert old == new
    assert loaded[0].config.recolor == 0


def test_a_run_is_resumed_with_its_own_captions_only(trained, folder, refused):
    content = (folder / "captions.json").read_text()
    (folder / "captions.json").write_text(content.replace("picture", "photograph"))
    try:
        message = refused("train", "captioning", "--resume", "--epochs", "13", "--run-dir", trained)
    finally:
        (folder / "captions.json").write_text(content)
    assert "give another vocabulary than the run" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "digits"], "digits has no captions"),
        (["--captioner-settings", "gait=true"], "no setting 'gait'"),
        (["--scheduled-sampling", "2"], "scheduled_sampling is 2"),
        (["--caption-length", "1"], "length is 1"),
        (["--min-count", "99"], "none of 5 words occurs 99 times"),
    ],
)
def test_a_wrong_argument_is_named(folder, refused, tmp_path, options, words):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        arguments = ["train", "captioning", "--strategy", "single", "--model", "lenet5"]
        arguments += ["--dataset", f"captions:{folder}", "--image-size", "32", *options]
        assert words in refused(*arguments)


def test_the_command_that_a_search_prints_trains_as_it_says():
    config = Config(batch_size=8, seed=3).completed()
    command = train_command(RECIPE, config, {"learning_rate": 1e-3})
    parsed = cli._parse(shlex.split(command)[1:])
    wanted = dataclasses.replace(config, learning_rate=1e-3)
    named = {field.name for field in dataclasses.fields(Config)} - {"epochs"}
    assert {name: getattr(parsed.completed(), name) for name in named} == {
        name: getattr(wanted, name) for name in named
    }


def test_models_of_different_tasks_are_not_averaged(trained, folder, refused, tmp_path):
    picture = folder / "0.png"
    message = refused("predict", trained, "resnet18", picture)
    assert "resnet18 is a pretrained model; wanted a run of captioning" in message
    file = tmp_path / "backbone.safetensors"
    cli.main(["convert", "lenet5", str(trained), "-o", str(file)])
    assert "has no head and scores no classes" in refused("predict", file, picture)
    assert "there is no directory" in refused(
        "convert", "lenet5", trained, "-o", tmp_path / "no" / "x.safetensors"
    )


def test_what_cannot_be_predicted_or_drawn_is_said(trained, folder, refused):
    assert "x.txt" in refused(
        "explain", "attention", folder / "0.png", "--model", trained, "-o", "x.txt"
    )
    assert "cannot be read" in refused("predict", trained, folder / "captions.json")
    assert "sentences is 5" in refused("predict", trained, folder / "0.png", "--sentences", "5")
    both = [folder / "0.png", folder / "1.png"]
    assert "one at a time" in refused("explain", "attention", *both, "--model", trained)
    assert "scores no classes" in refused("explain", "saliency", both[0], "--model", trained)


@pytest.mark.slow
def test_the_backbone_of_a_run_can_be_looked_into_and_taken(trained, folder, capsys, tmp_path):
    picture = str(folder / "0.png")
    path = str(tmp_path / "maps.png")
    cli.main(["explain", "feature_maps", picture, "--model", str(trained), "-o", path])
    assert Image.open(path).size[0] > 100
    run, (model, variables) = recipes.load(trained), load_pretrained(trained)
    batch = {"image": np.asarray(Image.open(picture))[None]}
    maps = model.apply(variables, normalized(batch["image"], *constants(run)), method="features")
    ours = run.task.encode(run.variables, batch)
    np.testing.assert_allclose(maps["pool2"].reshape(ours.shape), ours, rtol=1e-5, atol=1e-5)


def constants(run):
    return run.task.mean, run.task.std


def test_what_is_left_open_suits_the_dataset():
    scenes = Config().completed()
    assert (scenes.model, scenes.dataset, scenes.epochs) == ("resnetv2_50", "scenes", 8)
    assert (scenes.attention_penalty, scenes.learning_rate) == (0.01, 2e-3)
    assert (scenes.first_sentence, scenes.word_noise, scenes.recolor) == (True, 0.5, 0.5)
    assert "attention_features=96" in scenes.captioner_settings
    told = Config(model="resnet18", learning_rate=0.1, captioner="lrcn").completed()
    assert (told.model, told.settings, told.learning_rate) == ("resnet18", (), 0.1)
    assert told.captioner_settings == ("features=192", "dropout=0.1")
    coco = Config(dataset="captions:coco").completed()
    assert (coco.attention_penalty, coco.captioner_settings) == (1.0, ())
    assert (coco.first_sentence, coco.word_noise, coco.recolor) == (False, 0.0, 0.0)
