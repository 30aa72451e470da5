"""A map over processes that keeps the order and reads only a little ahead."""

import contextlib
import itertools
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from jaxnets.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16  # items that a process is given at once
_AHEAD = 4  # chunks in progress for each process


@contextlib.contextmanager
def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Iterator[Result]]:
    """The results of a function for each item, in order, computed by other processes.

    They import the main script again, end with this process even if it is killed, and leave
    interrupts to it.

    Args:
        function: a function that can be pickled.
        items: the items; there may be millions, since few are asked for ahead of their turn.
        processes: number of processes; 1 computes here.

    Yields:
        The iterator of results. It raises what the function raises, and InputError if a process dies.
    """
    if processes == 1:
        yield map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # jax has threads, which a fork would break
    pool = ProcessPoolExecutor(processes, context, initializer=_end_with_parent)
    try:
        yield _results(pool, function, iter(items), _AHEAD * processes)
    finally:
        pool.shutdown(cancel_futures=True)


def _results(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Iterator[Item], ahead: int
) -> Iterator[Result]:
    pending = deque()
    try:
        while chunk := list(itertools.islice(items, _CHUNK)):
            pending.append(pool.submit(_map, function, chunk))
            if len(pending) > ahead:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process has died: if memory ran out, use fewer processes; a script that starts them must "
            'be guarded by `if __name__ == "__main__":`'
        ) from error


def _map(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_the_end_of_parent, daemon=True).start()


def _wait_for_the_end_of_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
