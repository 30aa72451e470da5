"""The program `jaxnets`: it begins anew with large pages, once, and is the command line then."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import jaxnets
from jaxnets import __main__, cli
from jaxnets.__main__ import with_large_pages

TUNABLES = "GLIBC_TUNABLES"


@pytest.fixture
def kernel(tmp_path):
    """A file such as Linux keeps about large pages."""

    def make(chosen):
        path = tmp_path / "enabled"
        words = ("always", "madvise", "never")
        path.write_text(" ".join(f"[{word}]" if word == chosen else word for word in words) + "\n")
        return path

    return make


def test_large_pages_are_asked_for_beside_what_is_set_already(kernel):
    path = kernel("madvise")
    found = with_large_pages({"HOME": "/x"}, "linux", path)
    assert found == {"HOME": "/x", TUNABLES: "glibc.malloc.hugetlb=1"}
    found = with_large_pages({TUNABLES: "glibc.malloc.check=1"}, "linux", path)
    assert found == {TUNABLES: "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize("chosen", ["always", "never"])
def test_where_asking_changes_nothing_the_process_goes_on(kernel, chosen):
    assert with_large_pages({}, "linux", kernel(chosen)) is None


def test_whoever_has_decided_is_obeyed_and_other_systems_are_left_alone(kernel, tmp_path):
    path = kernel("madvise")
    assert with_large_pages({TUNABLES: "glibc.malloc.hugetlb=0"}, "linux", path) is None
    assert with_large_pages({}, "darwin", path) is None
    assert with_large_pages({}, "linux", tmp_path / "absent") is None


def test_an_interrupt_while_the_command_line_is_read_in_is_told_in_a_line(monkeypatch, capsys):
    def interrupted(name, *rest):
        if name == "jaxnets.cli":
            raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "with_large_pages", lambda *given: None)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=interrupted), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "jaxnets.cli", raising=False)
    monkeypatch.delattr(jaxnets, "cli", raising=False)
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "\njaxnets: interrupted\n"


@pytest.mark.parametrize(("code", "at_once"), [(130, True), (143, True), (2, False), (0, False)])
def test_what_is_interrupted_ends_at_once(monkeypatch, code, at_once):
    ended = []
    monkeypatch.setattr(__main__, "with_large_pages", lambda *given: None)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(cli, "main", lambda: sys.exit(code))
    with pytest.raises(SystemExit):
        __main__.main()
    assert ended == [code] * at_once


def test_the_program_begins_anew_once_with_its_arguments():
    """Run as `python -m jaxnets`, where the system has large pages on demand or has not."""
    environment = {name: value for name, value in os.environ.items() if name != TUNABLES}
    for extra in ({}, {TUNABLES: "glibc.malloc.hugetlb=0"}):
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-m", "jaxnets", "models", "lenet*"],
            env={**environment, **extra}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "lenet5" in done.stdout
