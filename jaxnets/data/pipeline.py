"""Batches of a source, in an order that depends only on the seed and can be resumed exactly.

Grain reads ahead, in parallel where it pays off. It is given the indices of each batch, and a batch is
read at once, which for arrays in memory is a single indexing operation. The order is one global
shuffle per epoch, of which step k takes the k-th slice of ``batch_size * shard_count`` examples, and
each shard every ``shard_count``-th example of that slice. The examples of a step therefore do not
depend on the number of processes. Of a source with `repeats` (`sampling.repeated`), a shard takes so
many times fewer examples and copies them, and a shuffle lasts for so many times more steps.
"""

import dataclasses
import functools
import os
import sys
import weakref
from typing import Any

import numpy as np

from jaxnets.data.dataset import Batch, Source, in_memory, read_batch
from jaxnets.errors import InputError


class BatchIterator:
    """Batches in a fixed order, with a position that can be saved and restored.

    Made by `train_batches` and `eval_batches`. Threads and worker processes start with the first
    batch and end with the last, with `close`, or when the iterator is dropped.

    Args:
        batches: a Grain MapDataset whose k-th element is the k-th batch.
        identity: the settings that determine the order; saved with the position, and checked when it
            is restored.
        threads: number of threads that read ahead, one batch each, in every worker.
        workers: number of processes that read ahead.
    """

    def __init__(self, batches: Any, identity: dict[str, int | None], *, threads: int, workers: int):
        self._batches = batches
        self._identity = identity
        self._threads = threads
        self._workers = workers
        self._step = 0
        self._readers = []  # the active Grain iterator, if any
        # Also on garbage collection, and at exit before the interpreter tears down Grain's modules.
        weakref.finalize(self, _close_all, self._readers)

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        if self._step >= len(self._batches):
            self.close()
            raise StopIteration
        if not self._readers:
            self._readers.append(self._start())
        batch = next(self._readers[0])
        self._step += 1
        if self._workers:  # copy out of shared memory, which must not outlive the reader
            batch = {name: np.array(values) for name, values in batch.items()}
        return batch

    def get_state(self) -> dict[str, int | None]:
        """The position as a JSON-serializable dict; it does not depend on threads and workers."""
        return {"step": self._step, **self._identity}

    def set_state(self, state: dict[str, int | None]) -> None:
        """Resumes from a position returned by `get_state`, in this or another run.

        Raises:
            InputError: the position belongs to another order: another seed, number of examples,
                global batch size or number of repeats.
        """
        state = {"repeats": 1, **state}  # positions of before there were any
        for name, mine in self._identity.items():
            if state.get(name) != mine:
                raise InputError(
                    f"the saved data position has {name}={state.get(name)}, this run has "
                    f"{name}={mine}: resume with the old value, or restart the data"
                )
        self.close()
        self._step = state["step"]

    def close(self) -> None:
        """Stops threads and workers; the next batch restarts them."""
        _close_all(self._readers)

    def _start(self) -> Any:
        import grain

        rest = self._batches[self._step :].to_iter_dataset(
            grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        )
        if self._workers:
            from absl import flags

            # Grain's workers read absl's flags, which are not parsed outside of an absl app.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            rest = rest.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        return iter(rest)


def _close_all(readers: list[Any]) -> None:
    while readers:
        readers.pop().close()


def steps_per_epoch(source: Source, batch_size: int, shard_count: int = 1) -> int:
    """The number of training batches per epoch in each shard: ``N // (batch_size * shard_count)``.

    Raises:
        InputError: too few examples for one batch in every shard.
    """
    _check_not_empty(source)
    steps = len(source) // (batch_size * shard_count)
    if steps == 0:
        shards = f" in each of {shard_count} shards" if shard_count > 1 else ""
        raise InputError(
            f"batch_size={batch_size}{shards} is more than the {len(source)} examples of the source; "
            f"use at most {len(source) // shard_count}"
        )
    return steps


def train_batches(
    source: Source,
    batch_size: int,
    *,
    seed: int,
    shard_index: int = 0,
    shard_count: int = 1,
    threads: int | None = None,
    workers: int = 0,
) -> BatchIterator:
    """Endless batches for training, reshuffled every epoch.

    Within an epoch the shards are disjoint and have `steps_per_epoch` batches each. Together they
    cover the source except for ``N % (batch_size * shard_count)`` examples, which differ every epoch.

    Args:
        source: N examples; of one by `sampling.repeated`, a batch has several copies.
        batch_size: examples per batch of this process.
        seed: seed of the order; at least 0.
        shard_index: index of this process, as ``jax.process_index()``.
        shard_count: number of processes that share the source, as ``jax.process_count()``.
        threads: number of threads that read ahead, one batch each. Default: one per core, up to
            eight; none for a source in memory, where they do not pay off, or with workers.
        workers: number of processes that read ahead, for sources too slow for threads. They import
            the main script again, which must be guarded by ``if __name__ == "__main__":``.

    Raises:
        InputError: an argument out of range, or too few examples for one batch in every shard.
    """
    _check(batch_size, shard_index, shard_count, threads, workers)
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed must be an integer of at least 0, got {seed!r}")
    steps = steps_per_epoch(source, batch_size, shard_count)
    repeats = getattr(source, "repeats", 1)
    if repeats > 1:
        steps = len(source) // (-(-batch_size // repeats) * shard_count)
    plan = _Plan(len(source), batch_size, shard_index, shard_count, steps, int(seed), repeats)
    return _batches(source, plan, threads, workers)


def eval_batches(
    source: Source,
    batch_size: int,
    *,
    shard_index: int = 0,
    shard_count: int = 1,
    threads: int | None = None,
    workers: int = 0,
) -> BatchIterator:
    """One pass over a source, in order, in batches of equal size.

    The last batch is padded with examples of weight 0. To keep hosts in step, every shard has
    ``ceil(N / (batch_size * shard_count))`` batches, the last of which may be all padding. The weights
    of all shards sum to N minus the number of unreadable images.

    Args:
        source: N examples.
        batch_size: examples per batch of this process.
        shard_index: as for `train_batches`.
        shard_count: as for `train_batches`.
        threads: as for `train_batches`.
        workers: as for `train_batches`.

    Raises:
        InputError: an argument out of range, or an empty source.
    """
    _check(batch_size, shard_index, shard_count, threads, workers)
    _check_not_empty(source)
    steps = -(-len(source) // (batch_size * shard_count))
    plan = _Plan(len(source), batch_size, shard_index, shard_count, steps, seed=None)
    return _batches(source, plan, threads, workers)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The indices of each batch of one shard, int[B / repeats], as a random-access source for Grain.

    Attributes:
        steps: number of batches that one shuffle lasts for.
        seed: seed of the order, which is endless; None for one pass in order, whose last batches may
            have indices past the end.
        repeats: number of copies of each example in a batch.
    """

    examples: int
    batch_size: int
    shard_index: int
    shard_count: int
    steps: int
    seed: int | None
    repeats: int = 1

    def __len__(self) -> int:
        return self.steps if self.seed is None else sys.maxsize

    def __getitem__(self, index: int) -> np.ndarray:
        number, step = divmod(index, self.steps)
        slice_size = -(-self.batch_size // self.repeats) * self.shard_count
        start = step * slice_size
        places = np.arange(start + self.shard_index, start + slice_size, self.shard_count)
        return places if self.seed is None else _shuffle(self.seed, number, self.examples)[places]


@functools.lru_cache(maxsize=2)  # two epochs are in use around the end of one
def _shuffle(seed: int, number: int, examples: int) -> np.ndarray:
    # Not Grain's own shuffle, which computes each index separately: 40 us for one of 1,437, 4 ms of 8.
    return np.random.default_rng((seed, number)).permutation(examples)


def _batches(source: Source, plan: _Plan, threads: int | None, workers: int) -> BatchIterator:
    import grain

    if threads is None:
        threads = 0 if workers or in_memory(source) else min(8, os.cpu_count() or 1)
    batches = grain.MapDataset.source(plan).map(functools.partial(_read, source, plan))
    identity = {
        "seed": plan.seed,
        "examples": plan.examples,
        "global_batch_size": plan.batch_size * plan.shard_count,
        "repeats": plan.repeats,
    }
    return BatchIterator(batches, identity, threads=threads, workers=workers)


def _read(source: Source, plan: _Plan, indices: np.ndarray) -> Batch:
    """A batch of so many copies of the examples; they lie apart, so that devices share them."""
    batch = read_batch(source, indices)
    if plan.repeats == 1:
        return batch
    copies = np.arange(plan.batch_size) % len(indices)
    return {name: values[copies] for name, values in batch.items()}


def _check_not_empty(source: Source) -> None:
    if len(source) == 0:
        raise InputError("the source is empty; wanted at least one example")


def _check(
    batch_size: int, shard_index: int, shard_count: int, threads: int | None, workers: int
) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= shard_index < shard_count:
        raise InputError(
            f"shard_index must be from 0 to shard_count - 1, got shard_index={shard_index} "
            f"with shard_count={shard_count}"
        )
    for name, value in {"threads": threads or 0, "workers": workers}.items():
        if value < 0:
            raise InputError(f"{name} must be at least 0, got {value}")
