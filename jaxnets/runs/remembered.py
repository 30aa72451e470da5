"""What a run remembers of its data, so that it is only resumed on the same."""

from collections.abc import Mapping
from typing import Any

from jaxnets.config import RunConfig
from jaxnets.data import Dataset
from jaxnets.errors import InputError


def with_files(about: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What a run is to remember, with the number of its examples and the hash of their files."""
    return {**about, "examples": len(dataset.train), "files": dataset.fingerprint}


def refuse_other_files(about: Mapping[str, Any], dataset: Dataset, config: RunConfig) -> None:
    """Checks that a dataset is the one that a run was begun with, wherever it lies now.

    Args:
        about: what the run remembers; one that was begun before files were remembered has only the
            names of classes, which its recipe compares.
        dataset: to resume it on.
        config: of the run.

    Raises:
        InputError: it holds other examples.
    """
    before, now = about.get("examples"), len(dataset.train)
    if before not in (None, now):
        raise InputError(
            f"resume: {dataset.name} has {now} training examples, but the run in {config.run_dir} was "
            f"begun with {before}; give it the same, or start a new run"
        )
    if None not in (about.get("files"), dataset.fingerprint) and about["files"] != dataset.fingerprint:
        raise InputError(
            f"resume: the files in {dataset.name} are called otherwise than those that the run in "
            f"{config.run_dir} was begun with; give it the same, or start a new run"
        )
