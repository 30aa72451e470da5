"""The machine that benchmarks run on: its name, how busy it is, and its measured ceilings.

`python benchmarks/machine.py [float32 | bfloat16]` prints the ceilings as JSON, so that who asks need
not take the accelerator's memory itself.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def hardware() -> str:
    """What the machine computes on, and how busy it is with other things."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((l.split(": ")[1] for l in lines if l.startswith("model name")), model)
    load = os.getloadavg()[0]
    devices = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.devices()[0].device_kind)"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    return f"{os.cpu_count()} cores ({model}), load {load:.1f} before the start; JAX on {devices}"


def versions(python: str) -> str:
    """Python's version and those of the packages that contend under it."""
    program = """
import platform
from importlib.metadata import PackageNotFoundError, version
found = [f"Python {platform.python_version()}"]
for name in ("jax", "flax", "keras", "torch", "torchvision"):
    try:
        found.append(f"{name} {version(name)}")
    except PackageNotFoundError:
        pass
print(", ".join(found))
"""
    return subprocess.run([python, "-c", program], capture_output=True, text=True).stdout.strip()


def ceilings(precision: str = "float32") -> dict[str, float]:
    """What the device does at best.

    Returns:
        `flops`: operations a second of a product of large matrices; `bytes`: those a second that a
        copy of an array reads and writes that no cache holds.
    """
    import jax
    import jax.numpy as jnp

    side, numbers = (4096, 2**27) if jax.default_backend() == "cpu" else (8192, 2**29)
    product = _fastest(jax.jit(lambda a: a @ a), jnp.ones((side, side), precision))
    copy = _fastest(jax.jit(lambda a: a + 1), jnp.ones(numbers))
    return {"flops": 2 * side**3 / product, "bytes": 2 * 4 * numbers / copy}


def ceilings_apart(precision: str) -> dict[str, float]:
    """`ceilings`, measured by a process of its own."""
    command = [sys.executable, __file__, precision]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _fastest(run: Callable, argument: Any) -> float:
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        run(argument).block_until_ready()
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    print(json.dumps(ceilings(*sys.argv[1:])))
