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
