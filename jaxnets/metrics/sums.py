"""Metrics as sums and weights, which are divided only once, at the end.

Sums over examples, batches, devices and hosts are exact for parts of any sizes, including a smaller
last batch.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.dtypes import at_least_float32


class Metric(Protocol):
    """The protocol of a metric: a pytree of sums, which are added, and divided once by `compute`.

    Attributes:
        form: format string of its value, such as `"{:.2%}"`.
        lower_is_better: whether lower values are better.
    """

    form: str
    lower_is_better: bool

    def compute(self) -> np.ndarray:
        """Divides the sums, on the host."""


class Mean(NamedTuple):
    """A weighted mean, such as a loss or an error, as a sum and a weight; lower is better.

    Attributes:
        total: sum of weight times value.
        weight: sum of weights.
    """

    total: jax.Array
    weight: jax.Array

    form = "{:.4f}"
    lower_is_better = True

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array) -> "Mean":
        """The weighted mean of `values` [N] with `weights` [N]."""
        # `where`, not a product: a padded example may hold a NaN, and 0 * NaN is NaN.
        values = at_least_float32(values)
        parts = jnp.where(weights > 0, values * weights.astype(values.dtype), 0.0)
        return cls(jnp.sum(parts), jnp.sum(weights))

    def compute(self) -> np.ndarray:
        total, weight = np.asarray(self.total), np.asarray(self.weight)
        return total / weight if weight > 0 else np.full_like(total, np.nan)


class Score(Mean):
    """A mean for which higher is better, such as the BLEU of a whole set."""

    lower_is_better = False


class Share(Score):
    """A mean of zeros and ones in percent, such as an accuracy: higher is better."""

    form = "{:.2%}"


class Ratio(Score):
    """A measure from 0 to 1, such as an average precision: higher is better."""

    form = "{:.3f}"


class Sum(NamedTuple):
    """A plain sum, such as the counts of a confusion matrix."""

    total: jax.Array

    form = "{:,.0f}"
    lower_is_better = False

    def compute(self) -> np.ndarray:
        return np.asarray(self.total)


Metrics = Mapping[str, Metric]


def add(parts: Iterable[Metrics]) -> Metrics:
    """Adds the metrics of several batches, on the host in double precision; {} if there are none."""
    parts = [jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part) for part in parts]
    return jax.tree.map(lambda *leaves: sum(leaves), *parts) if parts else {}


def reduce(metrics: Metrics, axis_name: str) -> Metrics:
    """Adds the metrics of all devices on a mapped axis, inside the compiled step."""
    return jax.tree.map(partial(jax.lax.psum, axis_name=axis_name), metrics)


def compute(metrics: Metrics) -> dict[str, float | np.ndarray]:
    """Divides the sums: a float for each scalar metric, an array for the others.

    A mean with a total weight of 0 is NaN.
    """
    values = {name: metric.compute() for name, metric in metrics.items()}
    return {name: float(v) if v.ndim == 0 else v for name, v in values.items()}


def scalars(metrics: Metrics) -> dict[str, float]:
    """The values of the scalar metrics only; see `compute`."""
    return {name: value for name, value in compute(metrics).items() if isinstance(value, float)}


def as_text(metric: Metric) -> str:
    """Formats a scalar metric.

    >>> as_text(Share(3, 4))
    '75.00%'
    """
    return metric.form.format(float(metric.compute()))
