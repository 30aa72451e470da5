"""What cannot be is said before anything is made."""

import json

import pytest
from PIL import Image

from jaxnets import cli


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "image-size 0", "momentum 2", "momentum 1", "log-every 0", "accumulate 0", "keep -1",
        "stop-above 0", "stop-above nan", "learning-rate nan", "learning-rate inf", "batch-size -8",
        "warmup-epochs -1", "weight-decay -1", "clip-norm 0", "mixup -1", "cutmix nan",
        "label-smoothing 2", "layer-decay 0", "seed -1", "seed 4294967296", "workers -1", "patience 0",
        "epochs 0", "ema-decay 1", "checkpoint-every 0", "image-size 65536", "batch-size 2147483648",
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_named(refused, words):
    name, value = words.split()
    message = refused("train", f"--{name}", value)
    assert f"{name.replace('-', '_')} is {value}" in message
    assert "it must be at least" in message or "it must be above" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("captioning --word-noise 2", "word_noise is 2.0"),
        ("captioning --caption-length 1", "caption_length is 1"),
        ("captioning --image-size 0", "image_size is 0"),
        ("captioning --augment flipp", "unknown augmentation 'flipp'"),
        ("--augment none flip", "augment is none flip; none stands alone"),
        ("--augment x", "imagenet, invert, iou_crop, lens, noise, none"),
        ("--process 1", "process is 1, but processes is not given"),
        ("--coordinator a:1", "coordinator is a:1, but processes is not given"),
        ("--processes 2 --process 2 --coordinator a:1", "process is 2 of 2"),
        ("--processes -1", "processes is -1"),
        ("--optimizer lamm", "unknown optimizer 'lamm'; did you mean 'lamb'"),
        ("--optimizer-settings b2", "optimizer_settings: 'b2' is not of the form NAME=VALUE"),
        ("--optimizer-settings momentum=0.5", "optimizer_settings: momentum is decided by the run"),
        ("--optimizer lamb --optimizer-settings b3=1", "lamb has no setting 'b3'; it has b1, b2"),
        ("--schedule restarts --schedule-settings growth=0", "growth is 0; it must be above 0"),
        ("--dataset=", "unknown dataset ''"),
        ("--run-dir /dev/null", "/dev/null is not a directory"),
    ],
)
def test_what_else_cannot_be_is_named(refused, words, message):
    assert message in refused("train", *words.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("augmentations --seed 4294967296", "seed is 4294967296; it must be at least 0 and at most"),
        ("explain smoothgrad a.png --model mlp --seed -1", "seed is -1; it must be at least 0"),
        ("eval --batch-size 0", "batch_size is 0; it must be at least 1"),
    ],
)
def test_a_number_of_other_commands_is_named_too(refused, words, message):
    assert message in refused(*words.split())


SMALL = ["--model", "mlp", "--settings", "widths=[8]", "--image-size", "8", "--strategy", "single"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--accumulate", "7"], "accumulate is 7"),
        (["search", "--together", "0"], "together is 0"),
        (["search", "--candidates", "0"], "candidates is 0"),
        (["search", "--momentum", "2"], "momentum is 2"),
        (["search", "--image-size", "0"], "image_size is 0"),
    ],
)
@pytest.mark.parametrize("place", [[], ["--run-dir", "new/run"]])
def test_what_training_itself_refuses_leaves_no_directory(refused, words, message, place):
    command, *options = words
    assert message in refused(command, *SMALL, *options, *place)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere.py", "nowhere.py is not a file"),
        ("folder.py", "folder.py is not a file"),
        ("wrong.py", "wrong.py is not Python"),
        ("zero.py", "zero.py is not Python"),
        ("wrong.py zero.py", "wrong.py and zero.py given; one command runs only one"),
    ],
)
def test_a_script_that_is_none_is_named(refused, words, message, tmp_path):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "zero.py").write_text("a = 1\0\n")
    assert message in refused("train", *words.split())


@pytest.mark.parametrize("command", ["augmentations", "explain filters x.png", "convert lenet5 x.pth"])
@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("/nowhere/x{}", "there is no directory /nowhere"),
        ("folder{}", "is a directory"),
        ("x.mp3", "x.mp3 must end in"),
        ("x", "x must end in"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_anything_is_read(
    refused, command, output, words, tmp_path
):
    output = output.format(".pth" if command.startswith("convert") else ".png")
    if output.startswith("folder"):
        (tmp_path / output).mkdir()
    model = ["--model", "lenet5"] if command.startswith("explain") else []
    assert words in refused(*command.split(), *model, "-o", output)


def test_no_command_at_all_is_told_which_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "augmentations" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "search"])
@pytest.mark.parametrize("place", [[], ["--run-dir", "a/run"]])
def test_a_run_inside_the_folder_that_it_learns_from_is_refused(refused, tmp_path, command, place):
    for name in "ab":
        (tmp_path / name).mkdir()
    assert "it would become a class" in refused(command, *SMALL, "--dataset", "folder:.", *place)


def test_a_run_directory_that_cannot_be_made_is_named(refused, tmp_path):
    (tmp_path / "file").touch()
    message = refused("train", *SMALL, "--run-dir", "file/run")
    assert "run_dir: file/run cannot be made (Not a directory)" in message
    (tmp_path / "file").unlink()


def test_a_dataset_without_classes_is_said_to_have_none(refused, tmp_path):
    told = {"images": [], "annotations": []}
    for number in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        told["images"].append({"id": number, "file_name": f"{number}.png"})
        told["annotations"].append({"image_id": number, "caption": "black"})
    (tmp_path / "captions.json").write_text(json.dumps(told))
    message = refused("train", *SMALL, "--dataset", "captions:.", "--run-dir", "run")
    assert (
        "has no classes to tell apart; digits, folder:PATH, csv:PATH, records:PATH and tfds:NAME have"
        in message
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--image-size 24:16", "image_size is '24:16'; wanted pixels, or FIRST:LAST such as 128:224"),
        ("--image-size big", "image_size is 'big'; wanted pixels"),
        ("--image-size 8:65536", "image_size is 65536; it must be at least 1"),
        (
            "--model mlp --image-size 16:32",
            "image_size is 16:32, but mlp's weights",
        ),
    ],
)
def test_a_size_that_does_not_grow_is_refused(refused, words, message):
    assert message in refused("train", *words.split())
