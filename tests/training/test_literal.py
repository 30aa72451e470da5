"""Checkpoints in directories whose names are patterns."""

import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.training import Checkpointer
from jaxnets.training.literal import LiteralPath
from jaxnets.training.state import TrainState


@pytest.mark.parametrize("name", ["data[v2]", "a*", "what?", "[!x]{1}"])
def test_what_is_saved_below_a_pattern_is_read_back(name, tmp_path):
    fields = {"step": np.int32(3), "params": {"w": np.arange(4.0)}, "collections": {}}
    state = TrainState(**fields, opt_state=(), key=np.zeros(2, np.uint32), ema=None)
    for place in (tmp_path / name, tmp_path / "other" / name):
        checkpointer = Checkpointer(place / "checkpoints")
        checkpointer.save(state, {})
        checkpointer.wait()
        restored = checkpointer.restore_variables(3)
        checkpointer.close()
        np.testing.assert_array_equal(restored["params"]["w"], np.arange(4.0))


def test_only_the_pattern_itself_is_one(tmp_path):
    for folder in ("a*", "ab"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").touch()
    found = list(LiteralPath(tmp_path / "a*").glob("*.txt"))
    assert list(map(str, found)) == [str(tmp_path / "a*" / "x.txt")]


def test_a_backslash_which_tensorstore_takes_for_a_slash_is_refused(tmp_path):
    with pytest.raises(InputError, match="backslash"):
        Checkpointer(tmp_path / "a\\b")
    assert not list(tmp_path.iterdir())
