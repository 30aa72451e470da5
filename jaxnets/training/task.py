"""The protocol of a task. Any object with these pure functions is a task; no inheritance is needed."""

from typing import Any, NamedTuple, Protocol

import jax

from jaxnets.metrics import Metrics

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}
Batch = dict[str, jax.Array]


class Headline(NamedTuple):
    """The main metric of a task, by which its runs are judged.

    Attributes:
        metric: its name among the task's metrics, or among the metrics of whole sets.
        words: its display name, such as "accuracy".
    """

    metric: str
    words: str


LOSS = Headline("loss", "loss")


class Task(Protocol):
    """A learning problem: a model, a loss and its metrics.

    A task is independent of devices, data sources and optimizers. It computes in the dtype of the
    parameters it is given, and keeps losses and metrics in float32.

    Attributes:
        headline: the main metric; a task without one is judged by its loss.
    """

    headline: Headline

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Initializes variables for batches of this shape."""

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Metrics]]:
        """The mean loss in train mode, the updated collections, and metric sums to report.

        Collections that are not returned stay unchanged.

        The sums include `loss`, a `Mean` whose weight is the weight of this batch when its mean loss is
        averaged with those of other replicas or micro-batches.
        """

    def predict(self, variables: Variables, batch: Batch) -> Any:
        """Outputs in eval mode."""

    def metrics(self, outputs: Any, batch: Batch) -> Metrics:
        """Metric sums of the outputs of `predict`."""

    def measure(self, predictions: Any) -> Metrics:
        """Measures of a whole set, from what `training.predict_all` yields; this method is optional."""

    def check(self, batch: Batch) -> None:
        """Raises an `InputError` for a host batch that the task cannot take; this method is optional."""


def headline_of(task: Any) -> Headline:
    """The main metric of a task; the loss if it has none."""
    return getattr(task, "headline", LOSS)
