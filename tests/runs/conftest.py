"""A quick network on a few pictures, for tests that are not about learning."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnets import cli

SMALL = (
    "--strategy", "single", "--model", "mlp", "--settings", "widths=[8]", "--image-size", "8",
    "--augment", "none", "--epochs", "1",
)  # fmt: skip


@pytest.fixture(scope="session")
def folder_of():
    """Makes a folder of classes, six pictures of random pixels each; returns it."""

    def folder_of(path, classes=("cat", "dog")):
        rng = np.random.default_rng(0)
        for name in classes:
            (Path(path) / name).mkdir(parents=True)
            for k in range(6):
                pixels = rng.integers(0, 255, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(Path(path) / name / f"{k}.png")
        return Path(path)

    return folder_of


@pytest.fixture(scope="session")
def train_small():
    """Trains it on a dataset by the command line, with further words."""
    return lambda dataset, *words: cli.main(["train", *SMALL, "--dataset", dataset, *words])
