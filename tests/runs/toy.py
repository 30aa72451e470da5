"""A task of the tests: y = w x + b in noise, with a step of its own and a measure of the whole set.

It has two optimizers, the one that is configured for w and plain SGD for b, and is judged by the median
error, which is better when lower and is no mean of examples.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets import data, metrics, recipes, runs, training
from jaxnets.layers import DATA_AXIS, axis_is_bound

SLOPE, OFFSET = np.array([1.0, -2.0, 0.5], np.float32), 3.0


def examples(count, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    y = x @ SLOPE + OFFSET + 0.1 * rng.normal(size=count)
    return [{"x": row, "y": np.float32(value)} for row, value in zip(x, y, strict=True)]


@dataclass(frozen=True)
class Line:
    headline = training.Headline("median", "median error")

    def init(self, key, batch):
        return {"params": {"w": jax.random.normal(key, (3, 1)), "b": jnp.zeros(())}}

    def predict(self, variables, batch):
        return (batch["x"] @ variables["params"]["w"])[:, 0] + variables["params"]["b"]

    def metrics(self, outputs, batch):
        return {"loss": metrics.Mean.of((outputs - batch["y"]) ** 2, batch["weight"])}

    def loss(self, variables, batch, key):
        noisy = {**batch, "x": batch["x"] + 0.01 * jax.random.normal(key, batch["x"].shape)}
        sums = self.metrics(self.predict(variables, noisy), batch)
        seen = metrics.Sum(batch["weight"].sum())
        return sums["loss"].total / sums["loss"].weight, ({}, {**sums, "seen": seen})


def make_rule(task, optimizer, **options):
    plain = optax.sgd(0.1)

    def init(params):
        return {"w": optimizer.init(params["w"]), "b": plain.init(params["b"])}

    def step(state, batch):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        if axis_is_bound(DATA_AXIS):
            key = jax.random.fold_in(key, jax.lax.axis_index(DATA_AXIS))
        gradient = jax.grad(lambda params: task.loss({"params": params}, batch, key), has_aux=True)
        grads, (_, sums) = gradient(state.params)
        grads, sums = training.joined(grads), training.joined_sums(sums)
        params, opt_state = {}, {}
        for name, rule in (("w", optimizer), ("b", plain)):
            old = state.params[name]
            updates, opt_state[name] = rule.update(grads[name], state.opt_state[name], old)
            params[name] = optax.apply_updates(old, updates)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), sums

    return training.UpdateRule(init, step)


def median(task, predictions):
    errors = [np.abs(outputs - batch["y"]) for batch, outputs in predictions]
    return {"median": metrics.Mean(np.median(np.concatenate(errors)), 1.0)}


@dataclass(frozen=True)
class Config(runs.RunConfig):
    """Train a line."""

    dataset: str = "line"
    optimizer: str = "momentum"
    batch_size: int | None = 16
    examples: int = 80
    """Examples to train on."""


def load(config, about):
    return data.Dataset("line", examples(config.examples, 0), examples(37, 1), ())


def prepare(config, dataset, about):
    return runs.Prepared("line", Line(), dataset.train, dataset.test, about={"slope": SLOPE.tolist()})


def draw(run):
    path = run.directory / "line.png"
    path.write_bytes(b"a picture")
    return [path]


RECIPE = runs.Recipe(
    "line", Config, lambda *_: Line(), load, prepare, median, draw=draw, make_rule=make_rule
)
recipes.register(RECIPE)
