"""A task that jaxnets does not have: by how many degrees a handwritten digit is turned.

Command: python experiments/own_task.py ; jaxnets train experiments/own_task.py
Result:  4.1 and 4.4 degrees of mean error on 360 held-out digits, seed 0 (2 CPU cores, jax 0.10.2)
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from jaxnets import create_model, data, metrics, models, recipes, runs, training


def turned(source, seed):  # any list of dicts of arrays is a source
    angles = np.random.default_rng(seed).uniform(-45, 45, len(source)).astype(np.float32)
    images = (Image.fromarray(source[k]["image"][..., 0]).rotate(a) for k, a in enumerate(angles))
    return [{"image": np.array(i)[..., None], "angle": a} for i, a in zip(images, angles, strict=True)]


@dataclass(frozen=True)
class Turn:  # the Task protocol of `jaxnets.training`
    model: models.Classifier
    headline = training.Headline("error", "error in degrees")

    def init(self, key, batch):
        return self.model.init(key, data.to_float(batch["image"]))

    def predict(self, variables, batch):
        return 45 * self.model.apply(variables, data.to_float(batch["image"]))[:, 0]

    def metrics(self, angles, batch):
        off, weight = angles - batch["angle"], batch["weight"]
        return {"loss": metrics.Mean.of(off**2, weight), "error": metrics.Mean.of(abs(off), weight)}

    def loss(self, variables, batch, key):
        sums = self.metrics(self.predict(variables, batch), batch)
        return sums["loss"].total / sums["loss"].weight, ({}, sums)


@dataclass(frozen=True)
class Config(runs.RunConfig):
    """Train a network to tell by how many degrees a digit is turned."""

    model: str = "lenet5"
    dataset: str = "digits"

    def load(self, about=None):
        digits = data.load(self.dataset)
        return data.Dataset("turned digits", turned(digits.train, 0), turned(digits.test, 1), ())

    def task(self, about=None, directory=None):
        return Turn(create_model(self.model, num_classes=1))


recipes.register(runs.Recipe("turn", Config, restore=Config.task, load=Config.load))
if __name__ == "__main__":
    digits, optimizer = Config().load(), training.create_optimizer("adam", 1e-3)
    training.fit(Config().task(), digits.train, test=digits.test, optimizer=optimizer, epochs=10)
