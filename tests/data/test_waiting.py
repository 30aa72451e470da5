"""What is shown of work that takes long."""

import pytest

from jaxnets.data import waiting


def test_quick_work_is_silent(capfd):
    assert list(waiting.tracked(iter("abc"), 3, "reading [bold]")) == ["a", "b", "c"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [False, True])
def test_slow_work_says_what_it_does_on_stderr(capfd, monkeypatch, terminal):
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(waiting.tracked(range(1000), 1000, "reading [side]")) == list(range(1000))
    out, err = capfd.readouterr()
    assert out == ""
    assert "reading [side]" in err
    assert terminal or err.count("\n") == 1
