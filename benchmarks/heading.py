"""The head of a table: what was run, on what machine, with which packages."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

PACKAGES = (
    "jax", "flax", "optax", "numpy", "grain", "pillow", "safetensors",
    "keras", "torch", "torchvision", "tensorflow",
)  # fmt: skip


def print_heading(title: str, measured: str, pythons: Iterable[str] = (sys.executable,)) -> None:
    """Prints the title, how it was measured, the machine, and the versions under each interpreter."""
    print(f"# {title}\n\n{measured}\n\n- {hardware()}")
    for python in dict.fromkeys(pythons):
        print(f"- {versions(python)}")


def hardware() -> str:
    """What the machine computes on, and how busy it is with other things."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((l.split(": ")[1] for l in lines if l.startswith("model name")), model)
    load = os.getloadavg()[0]
    devices = subprocess.run(
        # A process of its own, so that the accelerator's memory is not taken here.
        [sys.executable, "-c", "import jax; print(jax.devices()[0].device_kind)"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    return f"{os.cpu_count()} cores ({model}), load {load:.1f} before the start; JAX on {devices}"


def versions(python: str) -> str:
    """Python's version and those of the packages that contend under it."""
    program = f"""
import platform
from importlib.metadata import PackageNotFoundError, version
found = [f"Python {{platform.python_version()}}"]
for name in {PACKAGES}:
    try:
        found.append(f"{{name}} {{version(name)}}")
    except PackageNotFoundError:
        pass
print(", ".join(found))
"""
    return subprocess.run([python, "-c", program], capture_output=True, text=True).stdout.strip()
