"""Prefetching of batches to the device."""

import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from jaxnets.errors import InputError


class Prefetch:
    """An iterator that reads another one in a background thread; made by `prefetch`."""

    def __init__(self, iterator: Iterator[Any], put: Callable[[Any], Any], depth: int):
        self._iterator = iterator
        self._put = put
        self._depth = depth
        self._state = iterator.get_state() if hasattr(iterator, "get_state") else None
        self._stop = None  # set while a thread is running
        self._done = False

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Any:
        if self._done:
            raise StopIteration
        if self._stop is None:
            self._start()
        batch, state, error = self._ready.get()
        if error is not None:
            self._done = True
            self._stop()
            raise error
        self._state = state
        return batch

    def get_state(self) -> Any:
        """The position after the last batch that was returned, not the last that was prefetched.

        Raises:
            InputError: the underlying iterator has no `get_state()`.
        """
        if self._state is None:
            raise InputError(
                f"the position of a {type(self._iterator).__name__} cannot be saved: "
                "it has no get_state()"
            )
        return self._state

    def set_state(self, state: Any) -> None:
        """Resumes from a position returned by `get_state`; prefetched batches are dropped."""
        self._halt()
        self._iterator.set_state(state)
        self._state = state
        self._done = False

    def close(self) -> None:
        """Stops the thread and closes the underlying iterator."""
        self._halt()
        self._done = True
        if hasattr(self._iterator, "close"):
            self._iterator.close()

    def _start(self) -> None:
        self._ready = queue.Queue(self._depth)
        stopping = threading.Event()
        thread = threading.Thread(
            target=_fetch,
            args=(self._iterator, self._put, self._ready, stopping),
            name="jaxnets-prefetch",
            daemon=True,
        )
        # The thread refers to the queue and not to this object, so dropping the object stops the thread.
        self._stop = weakref.finalize(self, _end, thread, self._ready, stopping)
        thread.start()

    def _halt(self) -> None:
        if self._stop is not None:
            self._stop()
            self._stop = None


def prefetch(iterator: Iterator[Any], put: Callable[[Any], Any], depth: int = 2) -> Prefetch:
    """Prefetches batches: reads them and puts them on the device, in a background thread.

    Exceptions from `iterator` and `put` are raised unchanged when their batch is requested. The thread
    stops when the batches end, on ``close()``, or when the result is dropped.

    Args:
        iterator: iterator of batches, to be used only through the result from now on. If it has
            ``get_state()`` and ``set_state(state)``, so does the result; its position is that after
            the last batch it returned.
        put: function that moves a batch to the device, such as ``jax.device_put``.
        depth: maximum number of batches waiting on the device, at least 1; one more may be in transit.

    Raises:
        InputError: `depth` below 1.
    """
    if depth < 1:
        raise InputError(f"depth must be at least 1, got {depth}")
    return Prefetch(iterator, put, depth)


def _fetch(
    iterator: Iterator[Any],
    put: Callable[[Any], Any],
    ready: queue.Queue,
    stopping: threading.Event,
) -> None:
    """Fills the queue with (batch on the device, position after it, None) until an error."""
    tell = getattr(iterator, "get_state", lambda: None)
    while not stopping.is_set():
        try:
            item = put(next(iterator)), tell(), None
        except BaseException as error:  # including StopIteration: the consumer gets every exception
            item = None, None, error
        ready.put(item)
        if item[2] is not None:
            return


def _end(thread: threading.Thread, ready: queue.Queue, stopping: threading.Event) -> None:
    """Stops the thread, which may be waiting for room in the queue, and waits for it."""
    stopping.set()
    while thread.is_alive():
        try:
            ready.get_nowait()
        except queue.Empty:
            if thread is threading.current_thread():  # the garbage collector may run there
                return
            thread.join(0.01)
