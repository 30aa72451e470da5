"""Metrics are kept as sums and weights: added over examples, batches, devices and hosts, they stay
exact whatever the sizes of the parts, a ragged last batch included. They are divided once, at the end.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Mean(NamedTuple):
    """A weighted mean still in two parts.

    Attributes:
        total: sum of weight times value.
        weight: sum of weights.
    """

    total: jax.Array
    weight: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array) -> "Mean":
        """The weighted mean of `values` [N] with `weights` [N]."""
        # `where`, not a product: a padded example may hold a NaN, and 0 * NaN is NaN.
        return cls(jnp.sum(jnp.where(weights > 0, values * weights, 0.0)), jnp.sum(weights))

    def compute(self) -> np.ndarray:
        total, weight = np.asarray(self.total), np.asarray(self.weight)
        return total / weight if weight > 0 else np.full_like(total, np.nan)


class Sum(NamedTuple):
    """A plain sum, such as the counts of a confusion matrix."""

    total: jax.Array

    def compute(self) -> np.ndarray:
        return np.asarray(self.total)


Metrics = Mapping[str, Mean | Sum]


def add(parts: Iterable[Metrics]) -> Metrics:
    """Adds the metrics of several batches, on the host in double precision: {} for none."""
    parts = [jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part) for part in parts]
    return jax.tree.map(lambda *leaves: sum(leaves), *parts) if parts else {}


def reduce(metrics: Metrics, axis_name: str) -> Metrics:
    """Adds the metrics of all devices of a mapped axis, inside the compiled step."""
    return jax.tree.map(partial(jax.lax.psum, axis_name=axis_name), metrics)


def compute(metrics: Metrics) -> dict[str, float | np.ndarray]:
    """Divides the sums: a float for each scalar metric, an array for the others.

    A mean over no weight at all is NaN.
    """
    values = {name: metric.compute() for name, metric in metrics.items()}
    return {name: float(v) if v.ndim == 0 else v for name, v in values.items()}
