"""A dataset that jaxnets does not have: discs and squares in noise, drawn as they are asked for.

Command: python experiments/own_dataset.py
         jaxnets train experiments/own_dataset.py --dataset shapes --epochs 15
Result:  95.5 % and, with augmentation, 92.3 % test accuracy, seed 0 (2 CPU cores, jax 0.10.2)
"""

import numpy as np

import jaxnets
from jaxnets import data

NAMES = ("disc", "square")


class Shapes:
    """A random-access source: `len(source)` and `source[i]`, a dict of arrays of one shape each.

    Args:
        numbers: of the images; the same number is the same image.
        size: side of the images in pixels.
        channels: 1 or 3.
    """

    def __init__(self, numbers, size, channels):
        self.numbers, self.class_names, self.image_shape = numbers, NAMES, (size, size, channels)

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        rng = np.random.default_rng(self.numbers[index])
        size, _, channels = self.image_shape
        label, radius = rng.integers(2), size * rng.uniform(0.15, 0.3)
        row, column = rng.uniform(radius, size - radius, 2)
        down, right = np.abs(np.mgrid[:size, :size] - np.array([row, column])[:, None, None])
        inside = np.hypot(down, right) < radius if label == 0 else np.maximum(down, right) < radius
        image = rng.integers(0, 120, (size, size, channels)) + 120 * inside[..., None]
        return {"image": image.astype(np.uint8), "label": np.int32(label)}


def load_shapes(*, size: int = 32, channels: int = 1, count: int = 2000) -> data.Dataset:
    """The dataset: `count` images to train on, and a fifth of that held out."""
    train, test = range(count), range(count, count + count // 5)
    sources = (Shapes(numbers, size, channels) for numbers in (train, test))
    return data.Dataset("shapes", *sources, NAMES)


data.register("shapes", load_shapes)

if __name__ == "__main__":
    shapes = data.load("shapes")
    task = jaxnets.Classification(jaxnets.create_model("lenet5", num_classes=2))
    optimizer = jaxnets.training.create_optimizer("adamw", 1e-3)
    jaxnets.training.fit(task, shapes.train, test=shapes.test, optimizer=optimizer, epochs=15)
