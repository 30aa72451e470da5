"""The measured ceilings of the machine that benchmarks run on.

`python benchmarks/machine.py [float32 | bfloat16]` prints the ceilings as JSON, so that who asks need
not take the accelerator's memory itself.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def ceilings(precision: str = "float32") -> dict[str, float]:
    """What the device does at best.

    Returns:
        `flops`: operations a second of a product of large matrices; `bytes`: those a second that are
        read and written where an array, which no cache holds, is changed in its place. (A copy to fresh
        memory would measure how fast the system gives pages.)
    """
    import jax
    import jax.numpy as jnp

    side, numbers = (4096, 2**27) if jax.default_backend() == "cpu" else (8192, 2**29)
    product = _fastest(jax.jit(lambda a: a @ a), jnp.full((side, side), 1 / side, precision))
    change = _fastest(jax.jit(lambda a: a + 1, donate_argnums=0), jnp.ones(numbers))
    return {"flops": 2 * side**3 / product, "bytes": 2 * 4 * numbers / change}


def ceilings_apart(precision: str) -> dict[str, float]:
    """`ceilings`, measured by a process of its own."""
    command = [sys.executable, __file__, precision]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _fastest(run: Callable, argument: Any) -> float:
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        argument = run(argument).block_until_ready()
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    print(json.dumps(ceilings(*sys.argv[1:])))
