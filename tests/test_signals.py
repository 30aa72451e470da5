"""A process that is told to end lets the run end its step, and insists where that takes too long."""

import os
import signal
import time

import pytest

from jaxnets.cli.signals import Terminated, until_terminated


def test_the_run_is_asked_to_stop_and_the_usual_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with until_terminated() as stop:
        assert not stop(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop(2)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_that_does_not_end_is_interrupted():
    def wait_for_ever():
        with until_terminated(grace=0.05):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    with pytest.raises(Terminated):
        wait_for_ever()
    assert issubclass(Terminated, KeyboardInterrupt)
