"""Traces a few training steps with JAX's profiler."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from jaxnets.training.step import TrainStep

FIRST, COUNT = 5, 5  # number of skipped steps, which include compilation, and of traced steps


@contextmanager
def traced(step: TrainStep, directory: str | Path) -> Iterator[TrainStep]:
    """Yields a step equal to `step` that writes a trace of steps 6 to 10 into a directory.

    Open its `perfetto_trace.json.gz` in the Perfetto viewer, and the rest in TensorBoard's profiler.
    If the run ends earlier, the trace covers the steps taken from the sixth on.
    """
    taken, tracing = 0, False

    def stop():
        nonlocal tracing
        tracing = False
        jax.profiler.stop_trace()

    def run(state, batch):
        nonlocal taken, tracing
        if taken == FIRST:
            jax.block_until_ready(state)  # earlier steps must not appear in the trace
            jax.profiler.start_trace(str(directory), create_perfetto_trace=True)
            tracing = True
        state, sums = step(state, batch)
        taken += 1
        if tracing and taken == FIRST + COUNT:
            jax.block_until_ready(state)
            stop()
        return state, sums

    try:
        yield run
    finally:
        if tracing:
            stop()
