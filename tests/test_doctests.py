"""The examples in docstrings do what they print."""

import doctest
import importlib
from pathlib import Path

import pytest

import jaxnets

ROOT = Path(jaxnets.__file__).parent
MODULES = [
    ".".join(("jaxnets", *path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0
