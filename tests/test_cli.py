"""The command line: it works with no arguments, and what is wrong it says in a line or two."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets import cli, data, recipes
from jaxnets.errors import InputError

TRAIN = ("train", "--strategy", "single")
# Compiles in no time, where a test is not about the network.
SMALL = ("--model", "mlp", "--settings", "widths=[8]", "--image-size", "8", "--augment")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def refused(capsys):
    """Runs a command that must end with status 2 and a short message; returns the message."""

    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(list(arguments))
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return message

    return refused


@pytest.fixture
def refused_briefly(refused):
    def refused_briefly(*arguments):
        message = refused(*arguments)
        assert message.startswith("jaxnets: ")
        assert 1 <= len(message.strip().splitlines()) <= 2
        return message

    return refused_briefly


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a run of two epochs, with all its pictures."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    cli.main([*TRAIN, "--epochs", "2", "--augment", "--plots", "--run-dir", str(directory)])
    return directory


@pytest.fixture
def folder(tmp_path):
    """Pictures of digits, as a folder for each of three classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(3):
        (tmp_path / "pictures" / f"digit{label}").mkdir(parents=True)
        for k in np.flatnonzero(digits.target == label)[:20]:
            picture = Image.fromarray((digits.images[k] * 15).astype(np.uint8)).resize((40, 32))
            picture.save(tmp_path / "pictures" / f"digit{label}" / f"{k}.png")
    return tmp_path / "pictures"


def test_plots_draws_the_pictures_that_train_draws_when_asked(trained, capsys):
    pictures = ["curves.png", "update_ratios.png", "confusion.png", "mistakes.png"]
    drawn = {name: (trained / name).read_bytes() for name in pictures}
    for name in pictures:
        (trained / name).unlink()
    cli.main(["plots", str(trained)])
    assert capsys.readouterr().out.split() == [str(trained / name) for name in pictures]
    assert {name: (trained / name).read_bytes() for name in pictures} == drawn


def test_train_leaves_a_run_that_eval_and_predict_can_use(trained, capsys, tmp_path):
    for name in ("config.json", "metrics.jsonl", "curves.png", "checkpoints/44"):
        assert (trained / name).exists()
    assert list(trained.glob("events.out.tfevents.*"))
    assert json.loads((trained / "config.json").read_text())["model"] == "lenet5"

    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    cli.main(["eval", str(trained)])
    printed = capsys.readouterr().out
    assert "examples  360" in printed
    assert f"top1      {last['test_top1']:.2%}" in printed

    cli.main(["eval", str(trained), "--checkpoint", "best"])
    assert "top5" in capsys.readouterr().out

    test = data.load("digits").test
    Image.fromarray(test.images[0][..., 0]).save(tmp_path / "digit.png")
    cli.main(["predict", str(trained), "digit.png", "--top", "3"])
    printed = capsys.readouterr().out
    assert printed.startswith("digit.png: ")
    assert printed.count("%") == 3


@pytest.mark.slow
def test_a_run_without_a_name_gets_the_next_free_one_and_the_newest_is_resumed(capsys, tmp_path):
    for _ in range(2):
        cli.main([*TRAIN, *SMALL, "--epochs", "1"])
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert runs == ["mlp_digits_1", "mlp_digits_2"]
    cli.main([*TRAIN, "--epochs", "2", "--resume"])
    assert "runs/mlp_digits_2/checkpoints/44" in capsys.readouterr().out


def test_train_on_a_folder_of_pictures_in_batches_that_suit_a_small_set(folder, capsys):
    cli.main([*TRAIN, *SMALL, "--dataset", f"folder:{folder}", "--epochs", "2", "--run-dir", "run"])
    assert "test accuracy" in capsys.readouterr().out
    assert json.loads(Path("run/config.json").read_text())["batch_size"] == 8  # of 48 pictures
    picture = next((folder / "digit1").iterdir())
    cli.main(["predict", "run", str(picture)])
    assert "digit1" in capsys.readouterr().out


@pytest.mark.slow
def test_val_measures_epochs_and_test_is_measured_when_asked(folder, refused_briefly, capsys):
    for part, count in (("train", 12), ("Validation", 5), ("test", 3)):
        for label in folder.glob("digit*"):
            (folder / part / label.name).mkdir(parents=True)
            for picture in sorted(label.glob("*.png"))[:count]:
                picture.rename(folder / part / label.name / picture.name)
    for label in folder.glob("digit*"):
        label.rmdir()
    cli.main([*TRAIN, *SMALL, "--dataset", f"folder:{folder}", "--epochs", "1", "--run-dir", "run"])
    said = capsys.readouterr().out.splitlines()[0]
    assert "train (36 images) is trained on, Validation (15 images) measures epochs; test (9" in said
    for options, count in (((), 15), (("--split", "test"), 9)):
        cli.main(["eval", "run", *options])
        assert f"examples  {count}\n" in capsys.readouterr().out
    message = refused_briefly("eval", "run", "--split", "nowhere")
    assert "unknown split" in message
    assert "test, train, val" in message


def test_a_run_becomes_a_file_that_needs_no_name(trained, folder, tmp_path, capsys):
    cli.main(["convert", "lenet5", str(trained), "-o", "mine.safetensors"])
    picture = str(next(folder.glob("*/*.png")))
    capsys.readouterr()
    cli.main(["predict", str(trained), picture])
    by_run = capsys.readouterr().out
    cli.main(["predict", "mine.safetensors", picture])
    by_file = capsys.readouterr().out
    name = by_run.partition(": ")[2].split()[0]
    assert by_file.partition(": ")[2].split()[0] == name
    _, variables = jaxnets.load_pretrained(trained, num_classes=3)
    assert variables["params"]["head"]["fc3"]["kernel"].shape == (84, 3)
    with pytest.raises(InputError, match="holds weights of lenet5, not of mlp"):
        jaxnets.load_pretrained("mlp", trained)


@pytest.fixture
def digit(tmp_path):
    """A picture of a digit."""
    from sklearn.datasets import load_digits

    Image.fromarray((load_digits().images[5] * 15).astype(np.uint8)).save(tmp_path / "digit.png")
    return "digit.png"


@pytest.mark.parametrize(
    "arguments",
    [
        ["occlusion", "--class", "5", "--size", "12", "--stride", "10"],
        ["grad_cam", "--layer", "conv2"],
        ["deconvnet", "--unit", "3"],
        ["feature_maps"],
        ["receptive_field", "--layer", "backbone/conv2", "--row", "0"],
        ["filters"],
    ],
)
def test_explain_writes_a_picture(arguments, trained, digit, capsys, tmp_path):
    cli.main(["explain", *arguments, digit, "--model", str(trained), "-o", "why.png"])
    assert capsys.readouterr().out.strip() == "why.png"
    picture = np.asarray(Image.open(tmp_path / "why.png").convert("L"))
    assert min(picture.shape) > 100
    assert picture.std() > 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["grad_cam", "--layer", "conv9"], ["unknown layer 'conv9'", "pool2"]),
        (["deconvnet", "--layer", "conv1", "--unit", "6"], ["unit 6", "0 to 5"]),
        (["occlusion", "--size", "40"], ["40 x 40", "32 x 32"]),
        (["saliency", "--class", "10"], ["class: 10", "0 to 9"]),
        (["saliency", "--class", "cat"], ["unknown class 'cat'"]),
        (["saliency", "--layer", "conv1"], ["layer: it means nothing to saliency"]),
        (["receptive_field", "--layer", "head/fc1"], ["no maps"]),
        (["filters", "-o", "x.mp3"], ["mp3"]),
        (["feature_maps", "digit.png"], ["2 given", "one at a time"]),
    ],
)
def test_what_cannot_be_explained_is_said(refused_briefly, trained, digit, arguments, words):
    method, *options = arguments
    message = refused_briefly("explain", method, digit, *options, "--model", str(trained))
    for word in words:
        assert word in message


@pytest.mark.slow
def test_explain_says_the_probability_that_the_loss_means(folder, monkeypatch, capsys):
    options = [
        *TRAIN,
        *SMALL[:-1],
        "--dataset",
        f"folder:{folder}",
        "--epochs",
        "1",
        "--augment",
        "none",
    ]
    cli.main([*options, "--loss", "bce", "--run-dir", "run"])
    said = []
    monkeypatch.setattr("jaxnets.explain.show_attributions", lambda *words: said.append(words[3]))
    picture = str(next((folder / "digit1").iterdir()))
    capsys.readouterr()
    cli.main(["predict", "run", picture, "--top", "1"])
    predicted = capsys.readouterr().out.strip().split(": ")[1].split()
    cli.main(["explain", "occlusion", picture, "--model", "run"])
    assert said == [[f"{predicted[0]}: {predicted[1]}"]]


def test_models_lists_by_pattern(capsys):
    cli.main(["models", "resnet*"])
    printed = capsys.readouterr().out
    assert ["resnet50", "classification", "224x224x3"] in [
        line.split()[:3] for line in printed.splitlines()
    ]
    assert "lenet5" not in printed


def test_models_of_a_task_that_has_none_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["models", "--task", "classificaton"])
    assert stop.value.code == 2
    assert "did you mean 'classification'?" in capsys.readouterr().err


def test_models_lists_public_weights(capsys):
    cli.main(["models", "resnet5*", "--pretrained"])
    lines = capsys.readouterr().out.splitlines()
    assert "claimed" in lines[0]
    (best,) = (line.split() for line in lines if "a1_in1k" in line)
    assert best == [
        "resnet50", "81.24", "top-1", "288", "1.000", "bicubic", "Apache-2.0", "hf:timm/resnet50.a1_in1k"
    ]  # fmt: skip


def test_public_weights_are_readable_on_a_narrow_terminal_and_whole_in_a_pipe(capsys, monkeypatch):
    cli.main(["models", "*50*", "--pretrained"])
    in_a_pipe = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["models", "*50*", "--pretrained"])
    assert capsys.readouterr().out == in_a_pipe
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    cli.main(["models", "*50*", "--pretrained"])
    lines = capsys.readouterr().out.splitlines()
    sources = [line for line in lines if line.startswith("  ")]  # each a word, which is left whole
    assert max(len(line) for line in lines if line not in sources) <= 80
    at = lines.index("  torchvision:maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth")
    assert lines[at - 1].split() == [
        "maskrcnn_resnet50_fpn", "37.90", "box", "AP", "800-1333", "1.000", "BSD-3-Clause"
    ]  # fmt: skip
    assert sorted(line.split()[-1] for line in in_a_pipe.splitlines()[1:]) == sorted(
        line.strip() for line in lines if line.startswith("  ")
    )


def test_models_and_summary_as_tables_lose_nothing_on_a_narrow_terminal(capsys, monkeypatch):
    for words in (["models", "*rcnn*"], ["summary", "lenet5"]):
        cli.main(words)
        in_a_pipe = capsys.readouterr().out
        assert max(map(len, in_a_pipe.splitlines())) > 80
        monkeypatch.setenv("COLUMNS", "80")
        cli.main(words)
        assert capsys.readouterr().out == in_a_pipe
        monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
        cli.main(words)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        own = [word for word in in_a_pipe.split() if word.strip("─")]
        assert " ".join(lines).split() == own
        monkeypatch.undo()
        monkeypatch.setenv("COLUMNS", "200")


def test_documents_hold_what_the_lines_say(trained, capsys, tmp_path):
    def document(*words):
        cli.main([*map(str, words), "--json"])
        return json.loads(capsys.readouterr().out)

    found = document("eval", trained)
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["examples"] == 360
    assert (found["models"], found["dataset"], found["split"]) == ([str(trained)], "digits", None)
    assert found["metrics"]["top1"] == pytest.approx(last["test_top1"])
    assert found["metrics"]["loss"] == pytest.approx(last["test_loss"], rel=1e-4)

    test = data.load("digits").test
    for k in range(2):
        Image.fromarray(test.images[k][..., 0]).save(tmp_path / f"{k}.png")
    cli.main(["predict", str(trained), "0.png", "1.png"])
    lines = capsys.readouterr().out.splitlines()
    pictures = document("predict", trained, "0.png", "1.png")
    assert lines == [
        f"{own['file']}: " + ", ".join(f"{c['class']} {c['probability']:.1%}" for c in own["classes"])
        for own in pictures
    ]

    (lenet,) = document("models", "lenet5")
    about = lenet["task"], lenet["input_size"], lenet["num_classes"]
    assert about == ("classification", [32, 32, 1], 10)
    (resnet,) = document("models", "resnet152", "--pretrained")
    assert "torchvision:resnet152-394f9c45.pth" in [row["source"] for row in resnet["weights"]]
    summary = document("summary", "lenet5")
    assert summary["params"] == sum(row["parameters"] for row in summary["rows"]) == 61_706
    assert summary["rows"][0]["receptive_field"]["size"] == [5, 5]


def test_augmentations_draws_the_contact_sheet_of_a_dataset(monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(data, "contact_sheet", lambda *a, **k: drawn.append((a, k)))
    cli.main(["augmentations", "-o", "sheet.png", "--seed", "3"])
    ((dataset, path), options) = drawn[0]
    assert (dataset.name, path.name, options) == ("digits", "sheet.png", {"seed": 3})
    assert "sheet.png" in capsys.readouterr().out
    cli.main(["augmentations", "--dataset", "scenes", "--label-maps"])
    assert drawn[1][0][0].class_names[0] == "background"


def test_help_explains_every_field_with_its_default(capsys):
    printed = help_of("train", capsys)
    fields = dataclasses.fields(cli.Train.of(recipes.get("classification")))
    for field in fields:
        assert f"--{field.name.replace('_', '-')}" in printed
    assert "Peak learning rate; None for the optimizer's usual. (default: None)" in printed
    assert printed.count("(default:") == len(fields)


def help_of(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*words.split(), "--help"])
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_of_a_task_shows_its_fields_and_no_others(capsys):
    own = {"classification": "--mixup", "captioning": "--freeze-backbone"}
    own |= {"detection": "--boxes", "segmentation": "--class-weights"}
    for task in recipes.TASKS:
        printed = help_of(f"train {task}", capsys)
        assert [other for other, field in own.items() if field in printed] == [task]
    assert "--beams" not in help_of("predict", capsys)


def test_help_of_train_fits_on_two_screens(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert len(capsys.readouterr().out.splitlines()) <= 110


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "resnet19"], ["unknown model 'resnet19'", "'resnet18'"]),
        (["--dataset", "digit"], ["unknown dataset 'digit'", "'digits'"]),
        (["--optimizer", "adamm"], ["unknown optimizer 'adamm'", "'adam'"]),
        (["--schedule", "cosin"], ["unknown schedule 'cosin'", "'cosine'"]),
        (["--augment", "flipp"], ["unknown augmentation 'flipp'", "'flip'"]),
        (["--image-size", "28"], ["lenet5 takes 32 x 32", "got 28 x 28"]),
        (["--model", "alexnet"], ["alexnet takes at least", "got 32 x 32"]),
        (["--settings", "drop=1"], ["no setting 'drop'"]),
        (["--settings", "dropout"], ["not of the form NAME=VALUE"]),
        (["--dataset", "folder:nowhere"], ["nowhere"]),
        (["--batch-size", "5000"], ["more than the 1437 examples"]),
        (["--learning-rate", "-1"], ["learning_rate is -1"]),
        (["--epochs", "0"], ["epochs is 0"]),
        (["--warmup-epochs", "40"], ["fewer than the whole run"]),
        (["--mixup", "1", "--cutmix", "1"], ["give one of the two"]),
        (["--label-smoothing", "1.5"], ["label_smoothing is 1.5"]),
        (["--processes", "2", "--process", "0"], ["give all three"]),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_train_is_named(refused_briefly, arguments, words, tmp_path):
    message = refused_briefly(*TRAIN, *arguments)
    for word in words:
        assert word in message
    assert not list(tmp_path.glob("runs/*/checkpoints/*"))


def test_a_batch_that_does_not_divide_among_the_devices_is_named(refused_briefly):
    assert "not divisible by 8 devices; use 56 or 64" in refused_briefly("train", "--batch-size", "60")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--modle", "x"], "--model"),
        (["train", "--freeze-backbon"], "--freeze-backbon"),
        (["train", "captioning", "--mixup", "1"], "--mixup"),
        (["train", "captionin"], "unknown task 'captionin'; did you mean 'captioning'"),
        (["train", "--loss", "l3"], "--loss"),
        (["trane"], "trane"),
        ([], "subcommand"),
    ],
)
def test_what_the_parser_does_not_know_ends_with_status_2(refused, arguments, words):
    assert words in refused(*arguments)


def test_a_directory_without_a_run_is_named(refused_briefly, tmp_path):
    assert "holds no run" in refused_briefly("eval", str(tmp_path))
    assert "holds no run" in refused_briefly("plots", str(tmp_path))
    assert "no run under runs" in refused_briefly("eval")
    assert "holds no run" in refused_briefly("train", "--resume", "--run-dir", str(tmp_path))


def test_a_run_is_not_overwritten(refused_briefly, trained):
    message = refused_briefly(*TRAIN, "--run-dir", str(trained))
    assert "holds a run already" in message


def test_resuming_with_another_model_is_refused(refused_briefly, trained):
    message = refused_briefly(*TRAIN, "--model", "mlp", "--resume", "--run-dir", str(trained))
    assert "model is 'mlp', but the run" in message
    assert "begun with 'lenet5'" in message


def test_pictures_that_cannot_be_read_are_named(refused_briefly, trained, tmp_path):
    (tmp_path / "note.txt").write_text("no picture")
    for path in ("note.txt", "missing.png"):
        assert path in refused_briefly("predict", str(trained), path)


def test_a_directory_is_no_picture_and_no_dataset(refused_briefly, trained, tmp_path):
    (tmp_path / "pictures").mkdir()
    message = refused_briefly("predict", str(trained), "pictures")
    assert "pictures is a directory, and no run; name at least one picture file" in message
    assert "did you mean 'folder:pictures'?" in refused_briefly(*TRAIN, "--dataset", "pictures")


def test_an_empty_folder_and_one_with_other_classes_are_refused(refused_briefly, trained, folder):
    (folder.parent / "empty").mkdir()
    assert "empty" in refused_briefly(*TRAIN, "--dataset", "folder:empty")
    message = refused_briefly("eval", str(trained), "--dataset", f"folder:{folder}")
    assert "digit0" in message
    assert "was trained on" in message


def test_a_corrupt_picture_is_left_out_by_name_or_refused_when_strict(folder, refused_briefly, caplog):
    broken = folder / "digit0" / "broken.png"
    broken.write_bytes(b"no picture at all")
    options = [*TRAIN, *SMALL, "--dataset", f"folder:{folder}", "--batch-size", "16", "--epochs", "1"]
    cli.main([*options, "--run-dir", "lenient"])
    assert "broken.png: cannot identify image file" in caplog.text
    assert "it gets weight 0" in caplog.text
    message = refused_briefly(*options, "--strict", "--run-dir", "strict")
    assert "broken.png" in message


@pytest.mark.slow
def test_a_folder_and_classes_of_any_name_are_trained_used_and_drawn(folder, tmp_path, capsys):
    """Names that are patterns, markup and formulas to the libraries below: from data to pictures."""
    name = "x[1] _b^*?'{#}$x^{$"
    place = tmp_path / name
    place.mkdir()
    os.chdir(place)
    for old, new in (("digit0", name), ("digit1", "[side]"), ("digit2", "_c")):
        (place / "data" / new).parent.mkdir(exist_ok=True)
        (folder / old).rename(place / "data" / new)
    (place / "data").rename(place / name)
    options = [*TRAIN, *SMALL[:-1], "--dataset", f"folder:{name}", "--epochs", "1"]
    cli.main([*options, "--plots", "--run-dir", f"own/{name}"])
    cli.main([*options, "--augment", "none"])
    cli.main([*TRAIN, "--resume", "--run-dir", f"own/{name}", "--epochs", "2"])
    assert [made.name for made in Path("runs").iterdir()] == ["mlp_x_1__b_x_1"]
    capsys.readouterr()
    cli.main(["eval", f"own/{name}"])
    assert f"own/{name} on folder:{place / name}" in capsys.readouterr().out
    picture = str(next((place / name / name).iterdir()))
    cli.main(["predict", f"own/{name}", picture, "--top", "3"])
    printed = capsys.readouterr().out
    assert all(f" {word} " in printed for word in (name, "[side]", "_c"))
    cli.main(["plots", f"own/{name}"])
    cli.main(["explain", "saliency", picture, "--model", f"own/{name}", "--class", name])
    assert {"confusion.png", "mistakes.png"} <= {path.name for path in Path("own", name).iterdir()}


@pytest.mark.slow
def test_a_full_disk_while_training_is_told_without_a_traceback(tmp_path):
    """A limit on the size of files stands in for a disk without room."""
    program = (
        "import resource, sys; from jaxnets import cli; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000)); cli.main(sys.argv[1:])"
    )
    # No compiled program would fit either: what it writes of one, the next process would stumble on.
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "inf"}
    done = subprocess.run(
        [sys.executable, "-c", program, *TRAIN, *SMALL, "--epochs", "1", "--run-dir", "run"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    message = [line for line in done.stderr.splitlines() if line.startswith("jaxnets: ")]
    assert len(message) == 1
    assert "could not save a checkpoint" in message[0]
    assert "Traceback" not in done.stderr


def test_the_console_script_runs_and_interrupts_are_no_traceback(monkeypatch, capsys):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Models, "run", interrupt)
    with pytest.raises(SystemExit) as stop:
        cli.main(["models"])
    assert stop.value.code == 130
    assert "--resume" in capsys.readouterr().err


def test_a_reader_who_has_read_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "jaxnets", "summary", "lenet5"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
