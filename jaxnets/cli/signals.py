"""Ends a training run when its process is told to end, as the scheduler of a cluster does."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE = 10.0  # seconds; schedulers commonly wait for 30 before they kill


class Terminated(KeyboardInterrupt):
    """The process was told to end, by SIGTERM."""


@contextmanager
def until_terminated(grace: float = GRACE) -> Iterator[Callable[[int], bool]]:
    """Yields the `stop` of `training.fit`, which is true after a SIGTERM; the run then saves and ends.

    Where no step ends within the grace, as during an evaluation, a `Terminated` is raised instead.
    """
    asked = False
    insist = threading.Timer(grace, os.kill, (os.getpid(), signal.SIGTERM))
    insist.daemon = True

    def terminate(number, frame):
        nonlocal asked
        if asked:
            raise Terminated
        asked = True
        insist.start()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield lambda step: asked
    finally:
        insist.cancel()
        signal.signal(signal.SIGTERM, before)
