"""What training asks of a task. Any object with these pure functions is one; none inherits."""

from typing import Any, NamedTuple, Protocol

import jax

from jaxnets.metrics import Metrics

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}
Batch = dict[str, jax.Array]


class Headline(NamedTuple):
    """The number that runs of a task are judged by.

    Attributes:
        metric: its name among the task's metrics, or among the measures of whole sets.
        words: what it is called before a person: "accuracy".
    """

    metric: str
    words: str


LOSS = Headline("loss", "loss")


class Task(Protocol):
    """A learning problem: a model, a loss and its measures.

    It knows nothing of devices, data sources or optimizers. It computes in the dtype of the parameters
    it is given, and keeps losses and metrics in float32.

    Attributes:
        headline: the number that it is judged by; a task without one is judged by its loss.
    """

    headline: Headline

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Draws variables for batches of this shape."""

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Metrics]]:
        """The mean loss in train mode, the updated collections, and sums to report.

        Collections that are not among them stay as they are.

        The sums hold `loss`, a `Mean` whose weight is what this batch counts when its mean loss is
        joined with that of other replicas or micro-batches.
        """

    def predict(self, variables: Variables, batch: Batch) -> Any:
        """Outputs in eval mode."""

    def metrics(self, outputs: Any, batch: Batch) -> Metrics:
        """Sums that measure the outputs of `predict`."""

    def check(self, batch: Batch) -> None:
        """Raises an `InputError` for a host batch that the task cannot take; it may be left out."""


def headline_of(task: Any) -> Headline:
    """The number that a task is judged by."""
    return getattr(task, "headline", LOSS)
