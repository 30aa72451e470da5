"""`fit`: learns, stops when it should, resumes exactly, and says what is wrong."""

import gzip
import json
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets.data import ArraySource, Dataset
from jaxnets.errors import InputError
from jaxnets.metrics import Mean, Score
from jaxnets.training import (
    Checkpointer,
    CheckpointError,
    DivergenceError,
    Headline,
    create_optimizer,
    create_schedule,
    evaluate,
    fit,
    read_history,
)
from jaxnets.training.logs import Recorder
from jaxnets.training.progress import Reporter


@pytest.fixture(scope="module")
def run(task, source, one_device):
    """`fit` on the small task, with what a test changes."""

    def run(*, rate=0.05, train=source, optimizer=None, **options):
        options = {"epochs": 2, "batch_size": 32, "log_every": 1, "test": source} | options
        return fit(
            task,
            train,
            optimizer=optimizer or create_optimizer("momentum", rate),
            parallel=one_device,
            progress=False,
            **options,
        )

    return run


@pytest.fixture(scope="module")
def whole(run):
    """The end of three epochs of seed 0, and their history."""
    return run(epochs=3)


@pytest.fixture
def make_sources(make_small):
    """More examples of the same classes, and a task of one more class."""
    make_task, make_source = make_small
    return make_source(count=160), make_task(num_classes=5)


@pytest.fixture
def said(monkeypatch):
    """The lines that runs print besides their rows."""
    lines = []
    monkeypatch.setattr(Reporter, "say", lambda self, text: lines.append(text))
    return lines


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_fit_learns_and_evaluate_agrees_with_its_last_epoch(run, task, source, one_device):
    state, history = run(epochs=8)
    last = history.epochs[-1]
    assert last["test_top1"] > 0.9
    assert last["test_loss"] < 0.5 * history.epochs[0]["test_loss"]
    found = evaluate(task, state.variables, source, batch_size=48, parallel=one_device)
    assert found["top1"] == last["test_top1"]
    assert found["loss"] == pytest.approx(last["test_loss"], rel=1e-5)


def test_the_history_has_a_record_for_each_stretch_and_each_epoch(run, tmp_path):
    # 128 examples make 4 steps of 32; a stretch of 3 leaves no whole one for the rest.
    _, history = run(epochs=2, log_every=3, directory=tmp_path)
    assert [record["step"] for record in history.steps] == [4, 8]
    _, history = run(epochs=2, log_every=2)
    assert [(record["step"], record["epoch"]) for record in history.steps] == [
        (2, 1), (4, 1), (6, 2), (8, 2),
    ]  # fmt: skip
    assert [(record["step"], record["epoch"]) for record in history.epochs] == [(4, 1), (8, 2)]
    for epoch, record in enumerate(history.epochs):
        parts = history.steps[2 * epoch : 2 * epoch + 2]
        assert record["train_loss"] == pytest.approx(np.mean([part["loss"] for part in parts]))
    on_disk = read_history(tmp_path)
    assert [record["step"] for record in on_disk.epochs] == [4, 8]
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "metrics.jsonl").open()]
    assert kinds == ["steps", "epochs"] * 2


def test_two_runs_of_one_seed_end_in_the_same_bits_and_another_seed_does_not(run, whole):
    (a, _), (b, _), (c, _) = whole, run(epochs=3), run(epochs=3, seed=2)
    assert_equal(a.params, b.params)
    kernels = [state.params["backbone"]["conv1"]["kernel"] for state in (a, c)]
    assert not np.array_equal(*kernels)


def test_a_run_resumed_from_the_middle_of_an_epoch_ends_in_the_same_bits(run, tmp_path):
    whole, history = run(epochs=3, ema_decay=0.9, directory=tmp_path / "a")
    schedule = {"checkpoint_every": 3, "directory": tmp_path / "b", "ema_decay": 0.9, "epochs": 3}
    add = Recorder.add_steps

    def add_or_stop(self, record):
        add(self, record)
        if record["step"] == 7:  # a person stops it, in the middle of the second epoch
            raise KeyboardInterrupt

    with (
        unittest.mock.patch.object(Recorder, "add_steps", add_or_stop),
        pytest.raises(KeyboardInterrupt),
    ):
        run(**schedule)
    resumed, found = run(resume=True, **schedule)
    assert_equal(resumed, whole)
    assert [record["step"] for record in found.steps] == list(range(1, 13))
    assert [record["loss"] for record in found.steps] == [r["loss"] for r in history.steps]


def test_a_finished_run_is_resumed_for_more_epochs(run, whole, tmp_path):
    run(epochs=2, directory=tmp_path)
    longer, history = run(epochs=3, directory=tmp_path, resume=True)
    assert_equal(longer.params, whole[0].params)
    assert [record["epoch"] for record in history.epochs] == [1, 2, 3]


def test_a_directory_that_holds_a_run_is_neither_overwritten_nor_resumed_with_another_seed(
    run, tmp_path
):
    run(directory=tmp_path)
    with pytest.raises(InputError, match="already holds a run, at step 8"):
        run(directory=tmp_path)
    with pytest.raises(InputError, match="seed=0, this run has seed=5"):
        run(directory=tmp_path, resume=True, seed=5)


def test_resuming_needs_a_directory(run):
    with pytest.raises(InputError, match="resume needs the directory"):
        run(resume=True)


@pytest.mark.slow
def test_a_run_stops_when_the_test_set_gets_no_better(run):
    _, history = run(rate=0.0, epochs=9, patience=2, monitor="test_loss", optimizer=optax.set_to_zero())
    # Batch statistics still settle; once they have, nothing moves.
    assert len(history.epochs) < 9
    assert "test_loss has not improved" in history.stopped
    scores = [record["test_loss"] for record in history.epochs]
    assert min(scores[:-2]) <= min(scores[-2:])


def test_an_unknown_monitor_is_refused_with_those_there_are(run):
    with pytest.raises(InputError, match="monitor is 'accuracy'.*test_top1"):
        run(monitor="accuracy")


def exploding(steps, throw):
    """An optimizer that behaves for some steps, and then throws the parameters far away.

    How far is in its state, so that all throws are one program of a step.
    """

    def update(updates, state, params=None):
        step, throw = state
        far = jax.tree.map(lambda g: jnp.where(step >= steps, throw, -0.01 * g), updates)
        return far, (step + 1, throw)

    return optax.GradientTransformation(lambda params: (jnp.zeros(()), jnp.float32(throw)), update)


@pytest.mark.parametrize(
    ("throw", "words"),
    [(float("nan"), "the loss is not finite"), (1e3, "more than 3 times its initial value")],
)
def test_a_run_stops_when_the_loss_explodes_and_keeps_the_last_good_checkpoint(
    run, tmp_path, task, throw, words
):
    with pytest.raises(DivergenceError, match=words) as error:
        run(optimizer=exploding(6, throw), directory=tmp_path, checkpoint_every=3)
    # Parameters go wrong in step 7, its checkpoint-to-be would be of step 8 or 9: 6 is the last.
    assert "The checkpoint of step 6 is kept" in str(error.value)
    reader = Checkpointer(tmp_path / "checkpoints", read_only=True)
    for leaf in jax.tree.leaves(reader.restore_variables()):
        assert np.isfinite(leaf).all()
    reader.close()


def test_a_loss_far_above_its_start_is_allowed_on_request(run):
    _, history = run(optimizer=exploding(6, 1e3), stop_above=None)
    assert len(history.epochs) == 2


def test_training_begins_from_given_variables(run, whole):
    first, _ = whole
    state, _ = run(epochs=1, variables=first.variables, optimizer=optax.set_to_zero())
    assert_equal(state.params, first.params)


def test_labels_out_of_range_are_refused_before_they_reach_the_device(run, source):
    labels = source.labels.copy()
    labels[5] = 4
    with pytest.raises(InputError, match="label 4 is out of range: the model has 4 classes"):
        run(train=ArraySource(source.images, labels, [*source.class_names, "one more"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda example: {**example, "image": example["image"].astype(np.float32)}, "image has floats"),
        (lambda example: {**example, "image": example["image"].astype(np.uint16)}, "pixels of uint16"),
        (lambda example: {**example, "label": 0.5}, "label is float64, such as '0.5'"),
        (lambda example: {**example, "label": "cat"}, "label is <U3, such as 'cat'"),
        (lambda example: {"image": example["image"]}, "and no label; wanted image and label"),
        (lambda example: (example["image"], 0), "an example is a tuple; wanted a dict"),
    ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_sources_of_other_examples_are_refused_before_anything_is_compiled(
    run, source, monkeypatch, part, change, message
):
    class Changed(type(source)):
        def __getitem__(self, index):
            return change(super().__getitem__(index))

        take = property()  # read one by one

    monkeypatch.setattr(jax, "jit", None)
    with pytest.raises(InputError, match=message if part == "train" else f"{message}|test has"):
        run(**{part: Changed(source.images, source.labels, source.class_names)})


def test_a_test_set_of_other_images_is_refused(run):
    other = ArraySource(np.zeros((4, 9, 9, 1), np.uint8), [0] * 4, ["0", "1", "2", "3"])
    with pytest.raises(InputError, match=r"test has image of shape \(9, 9, 1\)"):
        run(test=other)


@pytest.mark.parametrize("name", ["epochs", "log_every", "checkpoint_every", "patience"])
def test_counts_below_one_are_refused(run, name):
    with pytest.raises(InputError, match=f"{name} is 0; it must be 1 or more"):
        run(**{name: 0})


def test_weights_and_statistics_come_from_training_alone(run, whole):
    """The test set is measured, never learned from."""
    (with_test, _), (without, _) = whole, run(epochs=3, test=None)
    assert_equal(with_test.params, without.params)
    assert_equal(with_test.collections, without.collections)


def test_images_of_other_channels_than_the_parameters_are_refused(whole, task, one_device):
    state, _ = whole
    colors = ArraySource(np.zeros((8, 8, 8, 3), np.uint8), [0] * 8, ["0", "1", "2", "3"])
    with pytest.raises(InputError, match="8 x 8 pixels of 3 channels do not fit the parameters"):
        evaluate(task, state.variables, colors, batch_size=8, parallel=one_device)


def test_a_profile_is_a_trace_of_a_few_steps_that_changes_no_number(run, whole, tmp_path):
    plain, _ = whole
    profiled, _ = run(epochs=3, directory=tmp_path, profile=True)
    assert_equal(plain.params, profiled.params)
    (trace,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert len(events) > 100
    with pytest.raises(InputError, match="profile needs a directory"):
        run(profile=True)


@pytest.mark.slow
def test_the_average_of_a_short_run_is_as_good_as_its_last_weights(run, whole):
    state, history = run(epochs=8, ema_decay=0.999)
    assert history.epochs[-1]["test_top1"] > 0.9
    assert not np.array_equal(*(t["head"]["fc"]["kernel"] for t in (state.params, state.ema)))


def test_a_run_that_is_asked_to_stop_saves_and_is_resumed_to_the_same_bits(run, whole, said, tmp_path):
    plain, history = whole
    options = {"epochs": 3, "directory": tmp_path, "log_every": 3}
    _, stopped = run(stop=lambda step: step == 6, **options)
    assert stopped.stopped == "stopped at step 6 of 12, to be resumed"
    assert [record["step"] for record in stopped.steps] == [4, 6]
    resumed, found = run(resume=True, **options)
    assert said == [stopped.stopped, "resumed at step 6 of 12"]
    assert_equal(resumed, plain)
    wanted = [record["train_loss"] for record in history.epochs]
    assert [record["train_loss"] for record in found.epochs] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_more_epochs_tell_what_becomes_of_the_learning_rate(run, said, tmp_path):
    for epochs in (2, 3):
        optimizer = create_optimizer("momentum", create_schedule("cosine", 0.05, 4 * epochs))
        run(epochs=epochs, directory=tmp_path, optimizer=optimizer, resume=epochs > 2)
    # 0.05 (1 + cos(pi 7 / 8)) / 2, and 0.05 (1 + cos(pi 8 / 12)) / 2
    assert said == [
        "resumed at step 8 of 12",
        "epochs 2 -> 3 change the schedule: the learning rate was 0.0019 up to step 8 and is now 0.012",
    ]


def test_the_learning_rate_of_a_run_that_is_resumed_as_it_was_is_not_told(run, said, tmp_path):
    run(epochs=2, directory=tmp_path, stop=lambda step: step == 5)
    run(epochs=2, directory=tmp_path, resume=True)
    assert said[1:] == ["resumed at step 5 of 8"]


def test_a_finished_run_that_is_resumed_says_so(run, said, tmp_path):
    run(epochs=2, directory=tmp_path)
    _, history = run(epochs=2, directory=tmp_path, resume=True)
    assert said[-1] == ("nothing is left to train: all 2 epochs are trained; give more epochs to go on")
    assert [record["epoch"] for record in history.epochs] == [1, 2]
    assert history.headline == f"test accuracy {history.epochs[-1]['test_top1']:.2%}"


@pytest.mark.slow
def test_a_run_that_patience_ended_goes_on_only_with_other_epochs_or_patience(run, said, tmp_path):
    options = {"optimizer": optax.set_to_zero(), "monitor": "train_loss", "directory": tmp_path}
    _, first = run(epochs=9, patience=1, **options)
    ended = len(first.epochs)
    assert ended < 9
    _, again = run(epochs=9, patience=1, resume=True, **options)
    assert len(again.epochs) == ended
    assert said[-1].startswith("nothing is left to train: stopped after epoch")
    assert said[-1].endswith("give more epochs or another patience to go on")
    assert again.stopped == first.stopped
    _, patient = run(epochs=9, patience=3, resume=True, **options)
    assert len(patient.epochs) > ended
    options["directory"] = tmp_path / "other"
    run(epochs=9, patience=1, **options)
    _, longer = run(epochs=10, patience=1, resume=True, **options)
    assert len(longer.epochs) == ended + 1


def test_another_dataset_or_class_is_named_as_such(run, source, make_sources, one_device, tmp_path):
    run(directory=tmp_path, epochs=1)
    more, other = make_sources
    with pytest.raises(CheckpointError, match="trained on 128 examples, the data has 160") as error:
        run(directory=tmp_path, resume=True, train=more, test=None)
    assert "another model" not in str(error.value)
    with pytest.raises(CheckpointError, match="the checkpoint's head has 4 classes, the data 5"):
        fit(
            other,
            source,
            optimizer=create_optimizer("momentum", 0.05),
            batch_size=32,
            directory=tmp_path,
            resume=True,
            parallel=one_device,
        )


def test_a_moving_average_that_comes_or_goes_is_named(run, tmp_path):
    run(directory=tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="no moving average .ema_decay., this run has one"):
        run(directory=tmp_path, resume=True, ema_decay=0.9)


def test_a_damaged_checkpoint_names_a_whole_one_which_is_taken_on_request(run, whole, tmp_path):
    options = {"epochs": 3, "directory": tmp_path, "keep": 3}
    run(**options)
    checkpoints = tmp_path / "checkpoints"
    for path in (checkpoints / "12" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="step 12 .* is damaged .*step 8 is whole.*--checkpoint 8"):
        run(resume=True, **options)
    with pytest.raises(CheckpointError, match="no checkpoint of step 7; there are 4, 8, 12"):
        run(resume=True, checkpoint=7, **options)
    assert (checkpoints / "12").is_dir()
    _, cut = run(resume=True, checkpoint=4, stop=lambda step: step == 5, **options)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["4", "5"]
    assert [record["step"] for record in cut.steps] == [1, 2, 3, 4, 5]
    resumed, history = run(resume=True, **options)
    assert_equal(resumed, whole[0])
    assert [record["loss"] for record in history.steps] == [r["loss"] for r in whole[1].steps]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
        ({"epochs": 1.5}, "epochs is 1.5; it must be 1 or more, and whole"),
        ({"epochs": float("inf")}, "epochs is inf; it must be 1 or more, and whole"),
        ({"batch_size": -4}, "batch_size is -4; it must be 1 or more"),
        ({"batch_size": 1000}, "batch_size=1000 is more than the 128 examples"),
        ({"keep": 0}, "keep is 0; it must be 1 or more"),
        ({"log_every": -1}, "log_every is -1; it must be 1 or more"),
        ({"patience": 0}, "patience is 0; it must be 1 or more"),
        ({"stop_above": 1}, "stop_above is 1; it must be above 1"),
        ({"accumulate": 0}, "accumulate is 0; it must be 1 or more"),
        ({"accumulate": 5}, "accumulate is 5, which does not divide the 32 examples"),
        ({"ema_decay": 2}, "ema_decay is 2; it must be between 0 and 1"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"precision": "float8"}, "precision"),
        ({"checkpoint": 4}, "checkpoint is 4, without resume"),
        ({"checkpoint": 4, "resume": True}, "holds no checkpoint of step 4"),
        ({"monitor": "test_topp1"}, "monitor is 'test_topp1'; an epoch records .*test_top1"),
        (
            {"monitor": "test_top1", "test": None},
            "monitor is 'test_top1'; an epoch records .*train_top1",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(run, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(directory=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["train_loss", "test_top1", "images_per_second", "grad_norm"])
def test_what_an_epoch_records_can_be_monitored(run, name):
    _, history = run(epochs=1, monitor=name)
    assert name in history.epochs[0]


def test_an_unknown_headline_is_refused(task, source, one_device, tmp_path):
    class Judged(type(task)):
        headline = Headline("accuraccy", "accuracy")

    judged = Judged(task.model)
    options = {"optimizer": create_optimizer("momentum", 0.05), "batch_size": 32, "epochs": 1}
    options |= {"test": source, "parallel": one_device, "progress": False}
    with pytest.raises(InputError, match="headline is 'accuraccy', .* train_top1"):
        fit(judged, source, directory=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    # A measure of the whole set is known at the end of the first epoch.
    with pytest.raises(InputError, match="headline is 'accuraccy', .* test_error"):
        fit(judged, source, measure=lambda found: {"error": Mean(len(list(found)), 1.0)}, **options)
    known = fit(
        judged, source, measure=lambda found: {"accuraccy": Score(len(list(found)), 1)}, **options
    )
    assert known[1].headline == "test accuracy 4.0000"


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, "train is a NoneType; wanted a source"),
        ((i for i in range(3)), "train is a generator"),
        ({"image": 0, "label": 0}, "train is a dict"),
        (np.zeros((8, 4, 4, 1)), "train is a ndarray"),
    ],
)
def test_what_is_no_source_is_refused(run, train, message):
    with pytest.raises(InputError, match=message):
        run(train=train)


def test_a_dataset_is_refused_with_the_way_to_its_source(run, source):
    with pytest.raises(InputError, match="test is a Dataset; .*give its test"):
        run(test=Dataset("own", source, source, ("a", "b")))


def test_texts_beside_the_image_are_refused(run, source):
    own = [{**source[index], "name": "x"} for index in range(32)]
    with pytest.raises(InputError, match="source: name is <U1; wanted numbers"):
        run(train=own, test=own)


def test_examples_to_measure_by_of_which_none_can_be_read_are_refused(task, run, source, one_device):
    unread = [{**source[index], "weight": 0.0} for index in range(2)]
    variables = task.init(jax.random.key(0), {"image": source.images[:1], "label": source.labels[:1]})
    with pytest.raises(InputError, match="none of the 2 examples to measure by can be read"):
        evaluate(task, variables, unread, parallel=one_device)
