"""A process that is told to end lets the run end its step, and insists where that takes too long."""

import os
import signal
import time
from types import SimpleNamespace

import pytest

from jaxnets import cli
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


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_an_interrupt_that_python_ignores_is_sent_again(kind, capsys):
    """As in JAX's callback of the garbage collector, where many arrive."""

    def ignored():
        with until_terminated(grace=100):
            if kind is Terminated:
                os.kill(os.getpid(), signal.SIGTERM)  # which asked, and is insisted upon
            cli._print_unless_known(SimpleNamespace(exc_type=kind, exc_value=kind()))
            time.sleep(10)

    with pytest.raises(kind):
        ignored()
    assert capsys.readouterr().err == ""
