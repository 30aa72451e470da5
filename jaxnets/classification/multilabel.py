"""The task of images that may have several labels, or none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.classification.task import Batch, Classification
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics, Ratio, Sum, average_precision
from jaxnets.training import Headline
from jaxnets.training.evaluation import Predictions


@dataclass(frozen=True)
class MultiLabel(Classification):
    """Tells of each class, by itself, whether an image has it (the Task protocol of `training.task`).

    As `Classification`, but that the `label` of a batch is [N, K], 1 for each class of an image and 0
    for the others; that the loss is sigmoid cross entropy, the mean over the classes; and that whole
    sets are measured by the mean of the classes' average precision.

    Raises:
        InputError: another loss than "bce", class weights or a teacher, which are for one label an
            image; or as of `Classification`.
    """

    loss_name: str = "bce"

    several: ClassVar[bool] = True
    headline: ClassVar[Headline] = Headline("mAP", "mAP")

    def __post_init__(self):
        super().__post_init__()
        if self.loss_name != "bce":
            raise InputError(
                f"loss is {self.loss_name}, which is for one label an image; several take bce"
            )
        for name in ("class_weights", "teacher"):
            if getattr(self, name) is not None:
                raise InputError(f"{name}: it is for one label an image, and not for several")

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """The sum `loss` of predictions."""
        return {"loss": self._mean_loss(outputs, self._targets(batch), batch, 0.0)}

    def measure(self, predictions: Predictions) -> Metrics:
        """`mAP`, over the classes of which there is an image, and the `AP` f64[K] of each, NaN for the
        others."""
        found = average_precision(*gathered(predictions))
        known = found[~np.isnan(found)]
        return {"mAP": Ratio(known.sum(), len(known)), "AP": Sum(found)}

    def _counted(self, logits: jax.Array, batch: Batch) -> Metrics:
        return {}

    def _check_labels(self, labels: np.ndarray, count: int) -> None:
        wanted = (count, self.model.num_classes)
        if labels.shape != wanted:
            raise InputError(
                f"label has shape {labels.shape}; wanted {wanted}, 0 or 1 for each class of an image"
            )
        if labels.size and not 0 <= labels.min() <= labels.max() <= 1:
            raise InputError(f"label has {labels.max()}; wanted 0 or 1 for each class of an image")

    def _targets(self, batch: Batch) -> jax.Array:
        return batch["label"].astype(jnp.float32)


def gathered(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """The scores and the labels [N, K] of all images that could be read."""
    rows = ((scores, batch["label"], batch["weight"] > 0) for batch, scores in predictions)
    scores, labels, readable = (np.concatenate(column) for column in zip(*rows, strict=True))
    return scores[readable], labels[readable]


def by_class(average_precisions: np.ndarray, class_names: Sequence[str]) -> Metrics:
    """The average precision of each class by its own name, but of classes without an image."""
    rows = zip(class_names, average_precisions, strict=True)
    return {f"AP {name}": Ratio(value, 1.0) for name, value in rows if not np.isnan(value)}
