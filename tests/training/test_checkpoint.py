"""Checkpoints: whole, exact, and clear about what is wrong."""

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets import layers
from jaxnets.training import (
    Checkpointer,
    CheckpointError,
    DataParallel,
    create_optimizer,
    create_state,
    read_history,
)
from jaxnets.training.checkpoint import remove_after

ENVIRONMENT = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
# A process that may end while it writes keeps no compiled program: the next one would find a torn one.
DOOMED = {**ENVIRONMENT, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "inf"}


@pytest.fixture
def state(task, batch):
    optimizer = create_optimizer("adamw", optax.linear_schedule(0.0, 0.1, 5), clip_norm=1.0)
    return create_state(task, optimizer, jax.random.key(0), batch, ema=True)


@pytest.fixture
def checkpointer(tmp_path):
    with_best_and_two = Checkpointer(tmp_path / "checkpoints", keep=2)
    yield with_best_and_two
    with_best_and_two.close()


def at_step(state, step):
    return state.replace(step=jnp.asarray(step), params=jax.tree.map(lambda p: p + step, state.params))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_state_comes_back_bit_for_bit_with_its_position(checkpointer, state):
    checkpointer.save(at_step(state, 7), {"data": {"step": 7}})
    checkpointer.wait()
    restored, position = checkpointer.restore(state)
    assert_equal(restored, at_step(state, 7))
    assert position == {"data": {"step": 7}}


def test_the_best_and_the_last_two_are_kept(checkpointer, state):
    for step, score in enumerate([0.1, 0.9, 0.3, None, 0.5, 0.4]):
        checkpointer.save(at_step(state, step), {}, score)
    checkpointer.wait()
    found = sorted(int(p.name) for p in checkpointer.directory.iterdir() if p.name.isdigit())
    assert found == [1, 4, 5]
    assert (checkpointer.best_step, checkpointer.latest_step) == (1, 5)
    assert_equal(checkpointer.restore(state, step=1)[0], at_step(state, 1))


def test_a_donated_state_is_saved_as_it_was(checkpointer, state):
    saved = jax.tree.map(np.array, state)
    checkpointer.save(state, {})
    overwrite = jax.jit(lambda s: jax.tree.map(jnp.zeros_like, s), donate_argnums=0)
    jax.block_until_ready(overwrite(state))
    checkpointer.wait()
    assert_equal(checkpointer.restore(saved)[0], saved)


def test_variables_are_read_without_knowing_the_optimizer(checkpointer, state):
    checkpointer.save(state, {})
    checkpointer.wait()
    reader = Checkpointer(checkpointer.directory, read_only=True)
    assert_equal(reader.restore_variables(), dict(state.variables))
    reader.close()


def test_a_checkpoint_saved_on_eight_devices_is_restored_on_one(checkpointer, state):
    everywhere = DataParallel.create("pmap").replicate(state)
    checkpointer.save(everywhere, {})
    checkpointer.wait()
    assert_equal(checkpointer.restore(state)[0], state)


@pytest.mark.parametrize("change", ["classes", "optimizer", "width"])
def test_a_checkpoint_of_another_model_is_refused(checkpointer, state, task, batch, change):
    checkpointer.save(state, {})
    checkpointer.wait()
    optimizer = create_optimizer("momentum" if change == "optimizer" else "adamw", 0.1)
    if change == "classes":
        model = task.model.clone(head=layers.LinearHead(7), num_classes=7)
        task = dataclasses.replace(task, model=model)
        optimizer = create_optimizer("adamw", lambda step: 0.1, clip_norm=1.0)
    other = create_state(task, optimizer, jax.random.key(0), batch, ema=True)
    if change == "width":
        narrow = state.params["backbone"]["conv2"]["kernel"][..., :4]
        backbone = {**state.params["backbone"], "conv2": {"kernel": narrow}}
        other = state.replace(params={**state.params, "backbone": backbone})
    words = {
        "classes": "does not fit: the checkpoint's head has 4 classes, the data 7",
        "optimizer": "another model or optimizer: it has opt_state/0, which",
        "width": "another model or optimizer: its .*conv2/kernel has shape .3, 3, 8, 16., wanted",
    }
    with pytest.raises(CheckpointError, match=words[change]):
        checkpointer.restore(other)


def test_a_missing_checkpoint_is_named(tmp_path, checkpointer, state):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpointer.restore(state)
    checkpointer.save(at_step(state, 3), {})
    checkpointer.wait()
    with pytest.raises(CheckpointError, match="no checkpoint of step 4; there are 3"):
        checkpointer.restore(state, step=4)
    with pytest.raises(CheckpointError, match="holds no checkpoints"):
        Checkpointer(tmp_path / "nowhere", read_only=True)


def damage(folder, draw):
    """Damages some of the files below a folder, and says how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hurt = draw.sample(files, draw.choice([1, 2, len(files)]))
    for path in hurt:
        content = path.read_bytes()
        size = draw.randrange(len(content))
        kind = draw.choice(["missing", "empty", "cut", "zeros", "noise", "folder"])
        if kind in ("missing", "folder"):
            path.unlink()
        if kind == "folder":
            path.mkdir()
        if kind in ("empty", "cut", "zeros", "noise"):
            fresh = {"empty": b"", "cut": content[:size], "zeros": bytes(len(content))}
            path.write_bytes(fresh.get(kind, draw.randbytes(len(content))))
    return [path.name for path in hurt]


@pytest.fixture(scope="module")
def three(task, source, tmp_path_factory):
    """A state, and a directory with its checkpoints of steps 3, 6 and 9."""
    batch = {"image": source.images[:4], "label": source.labels[:4]}
    state = create_state(task, create_optimizer("adam", 0.1), jax.random.key(0), batch)
    directory = tmp_path_factory.mktemp("three")
    writer = Checkpointer(directory, keep=3)
    for step in (3, 6, 9):
        writer.save(at_step(state, step), {"data": {"step": step}}, score=1 / step)
    writer.wait()
    writer.close()
    return state, directory


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_checkpoint_is_told_in_a_line_that_names_a_whole_one(three, tmp_path, seed):
    state, directory = three
    shutil.copytree(directory, tmp_path / "run")
    how = damage(tmp_path / "run" / "9", random.Random(seed))
    reader = Checkpointer(tmp_path / "run", read_only=True)
    try:
        restored, position = reader.restore(state)
    except CheckpointError as error:
        words = str(error)
        assert len(words.splitlines()) <= 2, how
        assert "step 9" in words, how
        assert "take it by checkpoint=6, --checkpoint 6" in words, how
    else:  # what was hurt is not needed
        assert_equal(restored, at_step(state, 9))
        assert position == {"data": {"step": 9}}
    assert_equal(reader.restore(state, 6)[0], at_step(state, 6))
    reader.close()
    with contextlib.suppress(CheckpointError):  # if its score is damaged
        Checkpointer(tmp_path / "run").close()
    remove_after(tmp_path / "run", 6)
    Checkpointer(tmp_path / "run").close()


@pytest.mark.parametrize("gone", [".", "state", "position", "metrics"])
def test_a_checkpoint_with_parts_missing_is_told_or_not_missed(three, tmp_path, gone):
    state, directory = three
    shutil.copytree(directory, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "9" / gone)
    (tmp_path / "run" / "9").mkdir(exist_ok=True)
    reader = Checkpointer(tmp_path / "run", read_only=True)
    if gone == "metrics":
        assert_equal(reader.restore(state)[0], at_step(state, 9))
        assert reader.best_step == 3
    else:
        with pytest.raises(CheckpointError, match="step 9 .* is damaged .*--checkpoint 6"):
            reader.restore(state)
    reader.close()


def test_a_position_that_is_none_is_damaged(three, tmp_path):
    state, directory = three
    shutil.copytree(directory, tmp_path / "run")
    (tmp_path / "run" / "9" / "position" / "metadata").write_text("[]")
    reader = Checkpointer(tmp_path / "run", read_only=True)
    with pytest.raises(CheckpointError, match="step 9 .* is damaged .*--checkpoint 6"):
        reader.restore(state)
    reader.close()


@pytest.fixture
def with_score(three, tmp_path):
    """The three checkpoints with another score of the last; the best of them must not be known."""

    def with_score(text):
        shutil.copytree(three[1], tmp_path / "run")
        (tmp_path / "run" / "9" / "metrics" / "metrics").write_text(text)
        reader = Checkpointer(tmp_path / "run", read_only=True)
        with pytest.raises(CheckpointError, match="the best is not known.*3, 6, 9"):
            _ = reader.best_step
        with pytest.raises(CheckpointError, match="a score .* is damaged .*--checkpoint STEP"):
            Checkpointer(tmp_path / "run")
        return reader

    return with_score


@pytest.mark.parametrize("foreign", ["[]", "5", '{"a": 1}', '{"score": "good"}'])
def test_a_score_that_is_none_is_damaged(with_score, foreign):
    with_score(foreign).close()


def test_a_damaged_score_is_told_and_older_checkpoints_are_read(three, with_score):
    state, _ = three
    reader = with_score("{")
    with pytest.raises(CheckpointError, match="step 9 .* is damaged .*--checkpoint 6"):
        reader.restore(state)
    assert_equal(reader.restore(state, 3)[0], at_step(state, 3))
    reader.close()


def test_where_no_checkpoint_is_whole_that_is_told(three, tmp_path):
    state, directory = three
    shutil.copytree(directory, tmp_path / "run")
    for path in (tmp_path / "run").rglob("_METADATA"):
        path.unlink()
    reader = Checkpointer(tmp_path / "run", read_only=True)
    with pytest.raises(CheckpointError, match="step 9 .*no other one is whole: start a new run"):
        reader.restore(state)
    reader.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
from conftest import make_source, make_task
import jax
from jaxnets.training import Checkpointer, CheckpointError, create_optimizer, create_state
source = make_source(4)
batch = {{"image": source.images, "label": source.labels}}
state = create_state(make_task(), create_optimizer("adam", 0.1), jax.random.key(0), batch)
checkpointer = Checkpointer({directory!r})
checkpointer.save(state, {{}})
checkpointer.wait()
# From here on no file of more than 100 bytes can be written, as on a disk with no room left.
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    checkpointer.save(state.replace(step=state.step + 1), {{}})
    checkpointer.wait()
except CheckpointError as error:
    print(error)
else:
    sys.exit("the failure went unnoticed")
finally:
    checkpointer.close()
"""


@pytest.mark.slow
def test_a_full_disk_while_saving_is_told_and_the_last_checkpoint_stays_whole(tmp_path, task, source):
    directory = tmp_path / "checkpoints"
    program = FULL_DISK.format(tests=os.path.dirname(__file__), directory=str(directory))
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env=DOOMED,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "could not save a checkpoint" in done.stdout
    assert "the checkpoint of step 0 is intact" in done.stdout
    batch = {"image": source.images[:4], "label": source.labels[:4]}
    like = create_state(task, create_optimizer("adam", 0.1), jax.random.key(0), batch)
    reader = Checkpointer(directory, read_only=True)
    restored, _ = reader.restore(like)
    reader.close()
    assert_equal(restored, like)


@pytest.mark.slow
def test_a_run_killed_at_a_random_step_and_resumed_ends_in_the_same_bits(tmp_path):
    """kill -9, twice, in a run with dropout, augmentation and a moving average."""
    command = [
        sys.executable, "-m", "jaxnets", "train", "--epochs", "2", "--checkpoint-every", "5",
        "--settings", "dropout=0.1", "--ema-decay", "0.9", "--log-every", "1",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(directory, *options, env=ENVIRONMENT):
        return subprocess.Popen(
            [*command, "--run-dir", str(directory), *options],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(process):
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors

    def steps_logged():
        try:
            return (killed / "metrics.jsonl").read_text().count('"steps"')
        except FileNotFoundError:
            return 0

    finish(start(whole))  # first, so that the others need not compile
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    options = []
    for stop_at in (draw.randrange(1, 20), draw.randrange(22, 38)):
        process = start(killed, *options, env=DOOMED)
        deadline = time.monotonic() + 120
        while steps_logged() < stop_at and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"seed {seed}: it ended before step {stop_at}"
        options = ["--resume"]
    finish(start(killed, "--resume"))

    runs = [Checkpointer(run / "checkpoints", read_only=True) for run in (whole, killed)]
    (wanted, _), (found, _) = (run._read(None) for run in runs)
    for run in runs:
        assert run.latest_step == 2 * 22
        run.close()
    assert_equal(found, wanted)  # parameters, moving average, optimizer state, key and step
    # No step is logged twice, none is missing, and the numbers are the same.
    a, b = (read_history(run) for run in (whole, killed))
    assert [r["step"] for r in b.steps] == list(range(1, 45))
    assert [r["loss"] for r in b.steps] == [r["loss"] for r in a.steps]
    assert [r["test_loss"] for r in b.epochs] == [r["test_loss"] for r in a.epochs]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_told_to_end_leaves_whole_checkpoints_and_says_how_to_go_on(
    tmp_path, number, status
):
    directory = tmp_path / "a run"
    command = [sys.executable, "-m", "jaxnets", "train", "--epochs", "30", "--model", "mlp"]
    process = subprocess.Popen(
        [*command, "--run-dir", str(directory), "--log-every", "1"],
        env=DOOMED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(read_history(directory).epochs) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    (line,) = filter(None, errors.splitlines())
    assert line.endswith(f"resume it by jaxnets train --resume --run-dir '{directory}'")
    steps = read_history(directory).steps
    reader = Checkpointer(directory / "checkpoints", read_only=True)
    if number == signal.SIGTERM:
        assert reader.latest_step == steps[-1]["step"] < 30 * 22
    reader.restore_variables()  # whole
    reader.close()
