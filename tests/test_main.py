"""The program `jaxnets`: it begins anew with large pages, once, and is the command line then."""

import os
import subprocess
import sys

import pytest

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
