"""Settings shared by all tests. They must be made before JAX is first imported, so it is not here."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# Eight virtual devices, so that data parallelism can be tested on any machine.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compiled programs are kept between runs, and shared with the processes that tests start: these
# inherit the environment. Who can write there can run code here, so the folder is private to the user.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxnets-tests"
_CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
_CACHE.chmod(0o700)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# What runs in the background of a shell ignores interrupts, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that what passed once passes again.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def forget_compiled_programs(request):
    """Hundreds of deep networks, kept compiled, would fill the memory of `pytest -m zoo`."""
    yield
    marks = {mark.name for mark in request.node.iter_markers()}
    if "zoo" in marks and "small" not in marks:
        import jax

        jax.clear_caches()


@pytest.fixture
def double_precision(monkeypatch):
    """The package computes in float64 wherever it asks for float32.

    In float32 a ReLU or a max-pool may by rounding fall to the other side, differently on each
    machine, which moves gradients by up to 1e-2. The function is the same in float64, and there it
    can be told from one that is only similar.
    """
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True), monkeypatch.context() as patch:
        patch.setattr(jnp, "float32", jnp.float64)
        yield


@pytest.fixture(scope="session")
def one_device():
    """`DataParallel` on the first of the eight devices."""
    import jax

    from jaxnets.training import DataParallel

    return DataParallel.create(devices=jax.devices()[:1])


@pytest.fixture(scope="session")
def digits():
    """The digits dataset, 32 x 32 gray."""
    from jaxnets import data

    return data.load("digits")


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder that must be refused in a line or two and leave nothing; returns
    what it says."""
    from jaxnets import cli

    monkeypatch.chdir(tmp_path)

    def refused(*words):
        before = set(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            cli.main(list(map(str, words)))
        message = capsys.readouterr().err
        assert stop.value.code == 2
        assert message.startswith("jaxnets: ")
        assert len(message.strip().splitlines()) <= 2
        assert set(tmp_path.rglob("*")) == before
        return message

    return refused


@pytest.fixture(scope="session")
def gradients_of(one_device):
    """`gradients_of(task, batch)` is `take(batch, devices=1) -> (metrics, gradient)` of train steps with
    the same parameters, drawn for a batch."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxnets.training import DataParallel
    from jaxnets.training.state import create_state
    from jaxnets.training.step import make_train_step

    # An optimizer that only keeps the gradient.
    kept = optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradient, _, params: (jax.tree.map(jnp.zeros_like, params), gradient),
    )
    known = {1: one_device, 8: DataParallel.create("pmap")}

    def gradients_of(task, batch):
        step, compiled = make_train_step(task, kept), {}
        state = create_state(task, kept, jax.random.key(0), batch)

        def take(batch, devices=1):
            parallel = known[devices]
            if devices not in compiled:
                compiled[devices] = parallel.compile_train_step(step)
            # The state is given away.
            own = parallel.replicate(jax.tree.map(jnp.copy, state))
            after, sums = compiled[devices](own, parallel.put(batch))
            gradient = jax.tree.map(np.asarray, after.opt_state)
            return {name: float(value.compute()) for name, value in sums.items()}, gradient

        return take

    return gradients_of


@pytest.fixture
def whole_and_killed(tmp_path):
    """`whole_and_killed(words, last, devices=1)` trains by `jaxnets train WORDS` twice, once killed and
    resumed, and gives the last variables of both; `last` is the number of the last step."""
    import subprocess
    import sys
    import time

    from jaxnets.training import Checkpointer

    def whole_and_killed(words, last, devices=1):
        # What is killed while it writes keeps no compiled program: the next one would find a torn one.
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
        doomed = {**environment, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "inf"}

        def start(name, *options, env=environment):
            command = [sys.executable, "-m", "jaxnets", "train", *words, "--run-dir", name, *options]
            return subprocess.Popen(
                command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )

        def finish(process):
            printed, _ = process.communicate(timeout=600)
            assert process.returncode == 0, printed.decode()
            return printed

        finish(start("whole"))
        killed = start("killed", env=doomed)
        checkpoints, deadline = tmp_path / "killed" / "checkpoints", time.monotonic() + 600
        while time.monotonic() < deadline:
            if any(path.name.isdigit() for path in checkpoints.glob("*")):
                break
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert killed.returncode == -signal.SIGKILL
        assert not (checkpoints / str(last)).exists()
        assert b"resumed at step" in finish(start("killed", "--resume"))
        folders = (tmp_path / name / "checkpoints" for name in ("whole", "killed"))
        return [Checkpointer(one, read_only=True).restore_variables() for one in folders]

    return whole_and_killed


def pytest_terminal_summary(terminalreporter):
    """Says how many architectures were compared with their references, and how near they came."""
    errors = dict(
        value
        for report in terminalreporter.getreports("passed")
        for key, value in report.user_properties
        if key == "golden"
    )
    if errors:
        worst = max(errors, key=errors.get)
        terminalreporter.write_line(
            f"{len(errors)} architectures gave the logits of their references; the largest relative "
            f"error was {errors[worst]:.1e} ({worst})"
        )
