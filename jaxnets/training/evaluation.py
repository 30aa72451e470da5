"""Passes over a whole set of examples: predictions and evaluation."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxnets import data, metrics
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics
from jaxnets.training.parallel import DataParallel
from jaxnets.training.precision import cast, compute_dtype
from jaxnets.training.step import make_eval_step
from jaxnets.training.task import Batch, Task, Variables

Predictions = Iterator[tuple[Batch, Any]]

_AHEAD = 2  # batches in flight on the devices while the host fetches the results of earlier ones


def evaluate(
    task: Task,
    variables: Variables,
    source: data.Source,
    *,
    batch_size: int = 128,
    precision: str = "float32",
    parallel: DataParallel | None = None,
) -> dict[str, float | np.ndarray]:
    """Evaluates variables on every example of a source exactly once.

    Args:
        task: the task whose metrics to compute.
        variables: such as `state.variables`.
        source: the examples.
        batch_size: over all devices; the last batch is padded, and the padding does not count.
        precision: "float32" or "bfloat16".
        parallel: how to use the devices; None for all of them.

    Returns:
        The metrics of the task by name, such as `loss`, `top1`, `top5` and `confusion`.
    """
    options = {"batch_size": batch_size, "precision": precision, "parallel": parallel}
    return metrics.compute(measured(task, variables, source, **options))


def measured(
    task: Task,
    variables: Variables,
    source: data.Source,
    *,
    batch_size: int = 128,
    precision: str = "float32",
    parallel: DataParallel | None = None,
    measure: Callable[[Predictions], Metrics] | None = None,
) -> Metrics:
    """What `evaluate` divides: the task's metrics, and measures of the whole set, by `measure` or the
    task's own where it has one."""
    options = {"precision": precision, "parallel": parallel or DataParallel.create()}
    sums = make_measure(task, **options)(variables, source, batch_size)
    measure = measure or getattr(task, "measure", None)
    if measure is None:
        return sums
    found = predict_all(task, variables, source, batch_size=batch_size, **options)
    return {**sums, **measure(found)}


def predict_all(
    task: Any,
    variables: Variables,
    source: data.Source,
    *,
    batch_size: int = 128,
    precision: str = "float32",
    parallel: DataParallel | None = None,
) -> Predictions:
    """Predicts every example of a source exactly once, in order, on all devices and processes.

    Metrics of whole sets, such as mean average precision or CIDEr, and figures are functions of its
    result.

    Args:
        task: the task whose `predict(variables, batch)` to call; its outputs have a row per example.
        variables: such as `state.variables`.
        source: N examples.
        batch_size: over all devices; rounded up to a multiple of their number.
        precision: "float32" or "bfloat16".
        parallel: how to use the devices; None for all of them.

    Yields:
        Batches and their outputs, on the host, N rows in total: the padding of the last batch is cut
        off. An example that could not be read has `weight` 0. With several processes, every process
        gets all rows.
    """
    parallel = parallel or DataParallel.create()
    predict = make_predictor(task, precision=precision, parallel=parallel)
    yield from predict(variables, source, batch_size)


def make_measure(
    task: Task, *, precision: str, parallel: DataParallel
) -> Callable[[Variables, data.Source, int], Metrics]:
    """A function from (variables, source, batch size) to a task's metric sums, compiled once."""
    step = parallel.compile_eval_step(make_eval_step(task, precision=precision))

    def measure(variables: Variables, source: data.Source, batch_size: int) -> Metrics:
        variables, seen = parallel.replicate(variables), []

        def steps(batches: Iterator[tuple[Batch, Batch]]) -> Iterator[Metrics]:
            for batch, placed in batches:
                sums = step(variables, placed)
                seen.append(batch["weight"].any() or not sums)
                yield sums
                if not sums:  # the task is measured on whole sets alone
                    return

        with _placed(task, source, batch_size, parallel) as batches:
            sums = metrics.add(steps(batches))
        if not any(seen) and jax.process_count() == 1:
            raise InputError(
                f"none of the {len(source)} examples to measure by can be read; repair or replace them"
            )
        return sums

    return measure


def make_predictor(
    task: Any, *, precision: str, parallel: DataParallel
) -> Callable[[Variables, data.Source, int], Predictions]:
    """A function from (variables, source, batch size) to what `predict_all` yields, compiled once."""
    dtype = compute_dtype(precision)

    def run(variables: Variables, batch: Batch) -> Any:
        if "params" in variables:
            variables = {**variables, "params": cast(variables["params"], dtype)}
        return task.predict(variables, batch)

    compiled = parallel.compile_predict(run)

    def predict(variables: Variables, source: data.Source, batch_size: int) -> Predictions:
        variables = parallel.replicate(variables)
        waiting, left = deque(), len(source)
        with _placed(task, source, batch_size, parallel) as batches:
            for batch, placed in batches:
                waiting.append((batch, compiled(variables, placed)))
                if len(waiting) > _AHEAD:
                    found = _fetched(*waiting.popleft(), left)
                    left -= len(found[0]["weight"])
                    yield found
            for batch, outputs in waiting:
                found = _fetched(batch, outputs, left)
                left -= len(found[0]["weight"])
                yield found

    return predict


def _placed(task: Any, source: data.Source, batch_size: int, parallel: DataParallel) -> closing:
    """This process's batches of a source, checked, both on the host and on its devices."""
    batch_size = min(batch_size, max(1, len(source)))  # more would be padding alone
    whole = -(-batch_size // parallel.replicas) * parallel.replicas
    check = getattr(task, "check", lambda batch: None)

    def place(batch: Batch) -> tuple[Batch, Batch]:
        check(batch)
        return batch, parallel.put(batch)

    batches = data.eval_batches(
        source,
        parallel.local_batch_size(whole),
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )
    return closing(data.prefetch(batches, place))


def _fetched(batch: Batch, outputs: Any, left: int) -> tuple[Batch, Any]:
    """A batch and its outputs on the host, in the order of the source, with at most `left` rows."""
    processes = jax.process_count()
    if processes > 1:
        batch, outputs = multihost_utils.process_allgather((batch, outputs), tiled=True)

    def rows(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        if processes > 1:  # process p has examples p, p + processes, p + 2 * processes, ...
            leaf = leaf.reshape(processes, -1, *leaf.shape[1:]).swapaxes(0, 1)
            leaf = leaf.reshape(-1, *leaf.shape[2:])
        return leaf[:left]

    return jax.tree.map(rows, (batch, outputs))
