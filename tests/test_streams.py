"""Where output goes: any encoding, closed streams and pipes without a reader."""

import io
import os
import sys

import pytest

from jaxnets import cli
from jaxnets.training.progress import Reporter


def test_text_that_the_output_cannot_encode_is_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    cli.main(["summary", "lenet5"])
    assert b"\\u2500" in written.getvalue()  # a line of the table


@pytest.mark.parametrize("closed", [("stdout",), ("stdout", "stderr")])
def test_a_command_works_with_closed_output(monkeypatch, closed):
    for name in closed:
        monkeypatch.setattr(sys, name, None)
    cli.main(["models", "alexnet"])
    with pytest.raises(SystemExit) as stop:
        cli.main(["models", "--pretrained", "--no-such-option"])
    assert stop.value.code == 2


def test_a_run_goes_on_when_its_reader_is_gone(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with Reporter(1, 1) as reporter:
            for _ in range(2):
                reporter.say("a line")
                pipe.flush()


def test_an_error_that_nobody_reads_keeps_its_status(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    with pytest.raises(SystemExit) as stop:
        cli.main(["eval", "no-such-model"])
    assert stop.value.code == 2
