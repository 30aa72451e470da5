"""The notebook for a TPU in Colab runs whole on two CPU devices, and goes on after a disconnect."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "experiments" / "colab_tpu.ipynb"


def code_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_it_holds_no_outputs_and_installs_nothing_outside_of_colab():
    for cell in code_cells():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        source = "".join(cell["source"])
        if re.search("google.colab import|pip|download_and_prepare", source):
            first, *rest = source.splitlines()
            assert first == "if COLAB:"
            assert all(line.startswith("    ") or not line for line in rest)


def run_all(**options):
    """All of its cells, one after the other, in one process, as a kernel runs them."""
    program = "\n".join("".join(cell["source"]) for cell in code_cells())
    devices = {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | devices,
        **options,
    )


@pytest.mark.slow
def test_it_runs_whole_on_two_devices_and_resumes_after_it_was_killed(tmp_path):
    run = tmp_path / "runs" / "lenet5_digits_notebook"
    cut_off = run_all(cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not any(saved.name.isdigit() for saved in run.glob("checkpoints/*")):
        assert time.monotonic() < deadline
        assert cut_off.poll() is None
        time.sleep(0.05)
    cut_off.kill()
    cut_off.communicate()

    said, _ = run_all(cwd=tmp_path).communicate(timeout=240)
    assert "2 x cpu, pmap\n" in said
    step, steps = map(int, re.search(r"resumed at step (\d+) of (\d+)", said).groups())
    assert 0 < step < steps
    (accuracy,) = re.findall(r"test accuracy (\S+)% after 8 epochs", said)
    assert float(accuracy) > 93
    assert len(re.findall(r"is said to be", said)) == 8
    steps_seen = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps_seen == sorted(steps_seen)
