"""A small net with batch statistics, and a small set of images to train it on."""

import flax.linen as nn
import numpy as np
import pytest

from jaxnets import Classification, layers
from jaxnets.data import ArraySource
from jaxnets.models import Classifier


class TinyBackbone(nn.Module):
    """Two convolutions, each with batch normalization."""

    @nn.compact
    def __call__(self, images, train=False):
        x, out = images, {}
        for i, width in enumerate((8, 16), start=1):
            x = layers.Conv(width, 3, strides=2, padding=1, use_bias=False, name=f"conv{i}")(x)
            x = layers.BatchNorm(use_running_average=not train, name=f"bn{i}")(x)
            x = out[f"stage{i}"] = nn.relu(x)
        return out


def make_task(num_classes=4, dropout=0.0, **options):
    model = Classifier(
        backbone=TinyBackbone(),
        head=layers.LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(8, 8, 1),
    )
    return Classification(model, **options)


def make_source(count=128, num_classes=4, seed=0):
    """Noise with a bright quarter that tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    images = rng.integers(0, 150, (count, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 60
    return ArraySource(images, labels, [str(k) for k in range(num_classes)])


@pytest.fixture(scope="session")
def make_small():
    """What makes tasks and sources like the ones below."""
    return make_task, make_source


@pytest.fixture(scope="session")
def task():
    return make_task()


@pytest.fixture(scope="session")
def source():
    return make_source()


@pytest.fixture(scope="session")
def ragged():
    """Examples that no batch size divides."""
    return make_source(count=45, seed=1)


@pytest.fixture
def batch(source):
    """32 examples as a batch."""
    return {
        "image": source.images[:32],
        "label": source.labels[:32],
        "weight": np.ones(32, np.float32),
    }
