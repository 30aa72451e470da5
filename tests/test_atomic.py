"""Files that are there whole or not at all."""

import os

import pytest

from jaxnets import atomic


def test_a_kill_while_writing_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "notes.txt"
    atomic.write_text(path, "zwölf\n")
    assert path.read_bytes() == "zwölf\n".encode()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_text(path, "thirteen\n")
    assert path.read_text(encoding="utf-8") == "zwölf\n"
