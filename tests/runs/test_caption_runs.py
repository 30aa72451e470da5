"""Captioners on the command line: train, resume, eval, caption, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxnets import cli, config, runs
from jaxnets.captioning import Vocabulary
from jaxnets.errors import InputError
from jaxnets.pretrained import load_pretrained

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
        ["train", "--strategy", "single", "--task", "captioning", "--dataset", f"captions:{folder}",
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


def test_a_run_describes_pictures_and_is_measured(trained, folder, capsys, tmp_path):
    for name in ("config.json", "vocabulary.json", "metrics.jsonl", "curves.png", "checkpoints"):
        assert (trained / name).exists()
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_exact"] == 1.0
    cli.main(["plots", str(trained)])
    drawn, left_out = capsys.readouterr().out.splitlines()
    assert drawn == str(trained / "curves.png")
    assert left_out.startswith("no update_ratios.png")
    cli.main(["caption", str(folder / "0.png"), str(folder / "1.png"), "--run-dir", str(trained)])
    assert capsys.readouterr().out.splitlines() == [
        f"{folder / '0.png'}: a red picture",
        f"{folder / '1.png'}: a green picture",
    ]
    cli.main(["eval", str(trained)])
    printed = capsys.readouterr().out
    assert "exact     1.0000" in printed
    assert "cider_d" in printed


def test_attention_is_drawn_and_several_sentences_are_ranked(trained, folder, capsys, tmp_path):
    picture = tmp_path / "looked.png"
    cli.main(
        ["caption", str(folder / "2.png"), "--run-dir", str(trained), "--attention", str(picture),
         "--beams", "4", "--sentences", "2"]
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{folder / '2.png'}: a blue picture (")
    scores = [float(line.rpartition("(")[2].rstrip(")")) for line in lines[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert lines[-1] == str(picture)
    width, height = Image.open(picture).size
    assert width > height > 100


def test_an_ensemble_of_runs_and_one_of_another_vocabulary(trained, folder, capsys, refused, tmp_path):
    run = runs.load_run(trained)
    (alone,) = runs.caption([run], [folder / "0.png"])
    (twice,) = runs.caption([run, run], [folder / "0.png"])
    assert alone[0][0] == twice[0][0] == "a red picture"
    assert alone[0][1] == pytest.approx(twice[0][1], rel=1e-4)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "checkpoints"):
        (other / name).symlink_to(trained / name)
    words = list(run.vocabulary.words)
    Vocabulary((*words[:-1], "zebra")).save(other)
    message = refused("caption", folder / "0.png", "--run-dir", trained, other)
    assert "another vocabulary than that in" in message


def test_a_run_that_is_older_than_a_field_of_the_configuration_is_read(trained, folder, tmp_path):
    for name in ("vocabulary.json", "checkpoints"):
        (tmp_path / name).symlink_to(trained / name)
    saved = json.loads((trained / "config.json").read_text())
    del saved["recolor"]
    saved["dataset"] = "scenes"  # which would be recolored if it were begun now
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = [runs.load_run(directory) for directory in (tmp_path, trained)]
    old, new = (runs.caption([run], [folder / "0.png"]) for run in loaded)
    assert old == new
    assert loaded[0].config.recolor == 0


def test_a_run_is_resumed_with_its_own_captions_only(trained, folder, refused):
    content = (folder / "captions.json").read_text()
    (folder / "captions.json").write_text(content.replace("picture", "photograph"))
    try:
        message = refused("train", "--resume", "--epochs", "13", "--run-dir", trained)
    finally:
        (folder / "captions.json").write_text(content)
    assert "give another vocabulary than the run" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "digits"], "digits has no captions"),
        (["--mixup", "0.2"], "mixup is of classifiers"),
        (["--captioner-settings", "gait=true"], "no setting 'gait'"),
        (["--scheduled-sampling", "2"], "scheduled_sampling is 2"),
        (["--caption-length", "1"], "length is 1"),
        (["--min-count", "99"], "none of 5 words comes 99 times"),
    ],
)
def test_a_wrong_argument_is_named(folder, refused, tmp_path, options, words):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        arguments = ["train", "--strategy", "single", "--task", "captioning", "--model", "lenet5"]
        arguments += ["--dataset", f"captions:{folder}", "--image-size", "32", *options]
        assert words in refused(*arguments)


def test_captions_of_a_classifier_and_pictures_that_are_none_are_refused(
    trained, folder, refused, tmp_path
):
    (tmp_path / "config.json").write_text(json.dumps({"model": "lenet5", "data": {}}))
    assert "wanted one of captioning" in refused("caption", folder / "0.png", "--run-dir", tmp_path)
    assert "cannot be read" in refused("caption", folder / "captions.json", "--run-dir", trained)
    both = [folder / "0.png", folder / "1.png"]
    assert "one can be drawn" in refused("caption", *both, "--run-dir", trained, "--attention", "x.png")
    assert "sentences is 5" in refused("caption", both[0], "--run-dir", trained, "--sentences", "5")


def test_a_captioner_names_no_classes(trained, folder, refused):
    message = refused("predict", "--run-dir", trained, folder / "0.png")
    assert "holds a run of captioning; wanted one of classification" in message
    with pytest.raises(InputError, match="holds a run of captioning"):
        load_pretrained(trained)


def test_what_is_left_open_suits_the_task():
    classifier = config.completed(config.Config())
    assert (classifier.model, classifier.dataset, classifier.epochs) == ("lenet5", "digits", 30)
    scenes = config.completed(config.Config(task="captioning"))
    assert (scenes.model, scenes.dataset, scenes.epochs) == ("resnetv2_50", "scenes", 8)
    assert (scenes.attention_penalty, scenes.learning_rate) == (0.01, 2e-3)
    assert (scenes.first_sentence, scenes.word_noise, scenes.recolor) == (True, 0.5, 0.5)
    assert "attention_features=96" in scenes.captioner_settings
    told = config.completed(
        config.Config(task="captioning", model="resnet18", learning_rate=0.1, captioner="lrcn")
    )
    assert (told.model, told.settings, told.learning_rate) == ("resnet18", (), 0.1)
    assert told.captioner_settings == ("features=192", "dropout=0.1")
    coco = config.completed(config.Config(task="captioning", dataset="captions:coco"))
    assert (coco.attention_penalty, coco.captioner_settings) == (1.0, ())
    assert (coco.first_sentence, coco.word_noise, coco.recolor) == (False, 0.0, 0.0)
