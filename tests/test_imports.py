"""The package imports quickly, lazily, and one way only."""

import subprocess
import sys

import pytest

import jaxnets

HEAVY = {
    "tensorflow",
    "torch",
    "orbax",
    "matplotlib",
    "grain",
    "sklearn",
    "tensorflow_datasets",
    "dm_pix",
}


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_jaxnets_pulls_in_nothing_that_is_not_needed_yet():
    loaded = run("import sys, jaxnets; print(*sys.modules)").split()
    assert "jaxnets" in loaded
    assert not ({"jax", "flax"} | HEAVY) & set(loaded)


def test_models_and_tasks_pull_in_no_heavy_package():
    program = "import sys, jaxnets; jaxnets.create_model('lenet5'); jaxnets.Classification; "
    loaded = run(program + "jaxnets.training, jaxnets.data; print(*sys.modules)").split()
    assert "jaxnets.training" in loaded
    assert not HEAVY & set(loaded)


def test_importing_takes_no_device():
    used = run(
        "import jaxnets, jaxnets.cli, jaxnets.runs, jax; "
        "print(jax._src.xla_bridge.backends_are_initialized())"
    )
    assert used.strip() == "False"


def test_every_public_name_is_there():
    for name in jaxnets.__all__:
        assert getattr(jaxnets, name) is not None
    with pytest.raises(AttributeError, match="create_modle"):
        _ = jaxnets.create_modle


def test_imports_run_one_way_only():
    """The contracts are in pyproject.toml, under [tool.importlinter]."""
    program = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout
