"""A trace of a few steps for JAX's profiler: where the time of a step goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from jaxnets.training.step import TrainStep

FIRST, COUNT = 5, 5  # steps that are left out, compilation among them, and steps that are traced


@contextmanager
def traced(step: TrainStep, directory: str | Path) -> Iterator[TrainStep]:
    """Gives a step that is `step`, and writes what steps 6 to 10 did into a directory.

    The `perfetto_trace.json.gz` in it opens in the Perfetto viewer, and the rest in TensorBoard's
    profiler. A run that ends before has the trace of the steps that it took from the sixth on.
    """
    taken, tracing = 0, False

    def stop():
        nonlocal tracing
        tracing = False
        jax.profiler.stop_trace()

    def run(state, batch):
        nonlocal taken, tracing
        if taken == FIRST:
            jax.block_until_ready(state)  # what was begun before is not to be seen
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
