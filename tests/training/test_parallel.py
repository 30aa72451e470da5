"""Any number of devices, the same numbers."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxnets import metrics
from jaxnets.data.dataset import Subset
from jaxnets.errors import InputError
from jaxnets.training import (
    Checkpointer,
    DataParallel,
    create_optimizer,
    create_state,
    evaluate,
    fit,
    initialize_distributed,
    make_train_step,
)

WORKER = Path(__file__).with_name("distributed_worker.py")


def losses(task, batches, parallel):
    """The loss of each step, with SGD and momentum, from the same start."""
    optimizer = create_optimizer("momentum", 0.05)
    step = parallel.compile_train_step(make_train_step(task, optimizer))
    state = create_state(task, optimizer, jax.random.key(0), batches[0])
    state = parallel.replicate(state)
    found = []
    for batch in batches:
        state, sums = step(state, parallel.put(batch))
        found.append(metrics.compute(sums)["loss"])
    return np.array(found), state


@pytest.fixture
def batches(source):
    """20 batches of 32, in a fixed order."""
    order = [np.random.default_rng(k).choice(len(source), 32, replace=False) for k in range(20)]
    return [{"image": source.images[rows], "label": source.labels[rows]} for rows in order]


@pytest.mark.parametrize("strategy", ["pmap", "shard_map"])
def test_eight_devices_have_the_losses_of_one_with_batch_norm(task, batches, one_device, strategy):
    alone, state_of_one = losses(task, batches, one_device)
    together, state_of_all = losses(task, batches, DataParallel.create(strategy))
    assert DataParallel.create(strategy).replicas == 8
    assert alone[-1] < 0.9 * alone[0]  # it did learn, so that wrong gradients would show
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-5)
    np.testing.assert_allclose(together, alone, rtol=1e-3)
    for a, b in zip(
        jax.tree.leaves(state_of_all.variables), jax.tree.leaves(state_of_one.variables), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


def test_the_state_is_donated_and_stays_unstacked(task, batches):
    parallel = DataParallel.create("pmap")
    optimizer = create_optimizer("momentum", 0.05)
    step = parallel.compile_train_step(make_train_step(task, optimizer))
    state = parallel.replicate(create_state(task, optimizer, jax.random.key(0), batches[0]))
    after, _ = step(state, parallel.put(batches[0]))
    kernel = after.params["backbone"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 1, 8)
    assert len(kernel.devices()) == 8
    assert state.params["backbone"]["conv1"]["kernel"].is_deleted()


@pytest.mark.parametrize("strategy", ["pmap", "shard_map", "single"])
def test_evaluation_counts_every_example_of_a_ragged_last_batch_once(task, source, strategy):
    ragged = Subset(source, np.arange(77))  # 77 = 2 x 32 + 13
    variables = task.init(jax.random.key(0), {"image": source.images[:1]})
    parallel = DataParallel.create(strategy)
    found = evaluate(task, variables, ragged, batch_size=32, parallel=parallel)
    logits = task.predict(variables, {"image": source.images[:77]})
    right = np.asarray(logits).argmax(-1) == source.labels[:77]
    assert found["confusion"].sum() == 77
    assert found["top1"] == pytest.approx(right.mean(), abs=1e-12)
    log_p = jax.nn.log_softmax(logits)[np.arange(77), source.labels[:77]]
    assert found["loss"] == pytest.approx(-float(log_p.mean()), rel=1e-5)


def test_a_batch_that_does_not_divide_among_the_devices_is_refused(task, source):
    with pytest.raises(InputError, match=r"batch_size is 100.*8 devices; use 96 or 104"):
        fit(task, source, optimizer=create_optimizer("sgd", 0.1), batch_size=100)
    with pytest.raises(InputError, match="use 8"):
        DataParallel.create().local_batch_size(3)


def test_an_unknown_strategy_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="shard_map"):
        DataParallel.create("shardmap")


def test_joining_a_run_with_half_of_the_arguments_is_refused():
    with pytest.raises(InputError, match="give all three"):
        initialize_distributed("localhost:1234", 2, None)


@pytest.mark.slow
def test_two_processes_of_two_devices_have_the_losses_of_one_device(
    task, source, ragged, one_device, tmp_path
):
    """Joined by `jax.distributed` over loopback; each process reads its own shard of the data."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, WORKER, f"127.0.0.1:{port}", "2", str(index), tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    printed = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(printed)
    found = [json.loads((tmp_path / f"losses{index}.json").read_text()) for index in range(2)]
    assert found[0] == found[1]

    _, history = fit(
        task,
        source,
        test=source,
        optimizer=create_optimizer("momentum", 0.05),
        epochs=5,
        batch_size=32,
        log_every=1,
        parallel=one_device,
        progress=False,
    )
    alone = [record["loss"] for record in history.steps]
    assert len(alone) == 20
    np.testing.assert_allclose(found[0]["losses"][0], alone[0], rtol=1e-5)
    np.testing.assert_allclose(found[0]["losses"], alone, rtol=1e-3)
    assert found[0]["test_top1"] == pytest.approx(history.epochs[-1]["test_top1"], abs=0.02)
    # Every process was given every example once, in order, with the scores that one device computes.
    checkpoints = Checkpointer(tmp_path / "run" / "checkpoints", read_only=True)
    variables = checkpoints.restore_variables()
    assert found[0]["labels"] == ragged.labels.tolist()
    scores = task.predict(variables, {"image": ragged.images})
    np.testing.assert_allclose(found[0]["scores"], scores, rtol=1e-4, atol=1e-5)
    # Both processes wrote one checkpoint together, and only one wrote the log.
    assert (tmp_path / "run" / "checkpoints" / "20").is_dir()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 25
