"""The task of detectors: the boxes, classes and perhaps masks of the objects in a picture."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data import checks, inputs
from jaxnets.data.augmentation import Augmentation
from jaxnets.data.inputs import weights_of
from jaxnets.data.resampling import cut_image
from jaxnets.detection.detector import Detector, Found, Truths
from jaxnets.detection.evaluation import evaluate
from jaxnets.errors import InputError
from jaxnets.metrics import Mean, Metrics
from jaxnets.training import Headline
from jaxnets.training.evaluation import Predictions
from jaxnets.training.terms import over_batch

Variables = dict
Batch = dict  # image, size, box, label, valid; crowd, mask and weight where there are any


@dataclass(frozen=True)
class Detection:
    """Detects objects, as a frozen set of pure functions (the Task protocol of `training.task`).

    A batch is a dict of

    - `image`, uint8[N, H, W, 3] or f32 in 0 to 1, pictures in the upper left of a canvas;
    - `size`, i32[N, 2], the (height, width) of each picture; the whole canvas where absent;
    - `box`, f32[N, M, 4], `label`, i32[N, M], and `valid`, bool[N, M], which of them are there; labels
      are those of the model, see `Detector.first_label`;
    - `crowd`, bool[N, M], boxes that are not learned from; none where absent;
    - `mask`, bool[N, M, H, W], for detectors of masks;
    - `weight`, f32[N], 0 for padding; 1 where absent.

    Neither more padding of boxes, nor a larger canvas, nor the other pictures of the batch change what
    is lost or found, but for batch normalization in training, which takes the padding in.

    Attributes:
        model: a detector of `create_detector` or `jaxnets.load_pretrained`.
        augment: `(key, example) -> example`, on the device, for training only.
    """

    model: Detector
    augment: Augmentation | None = None

    headline: ClassVar[Headline] = Headline("AP", "box AP")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Draws the variables of the model."""
        return self.model.init(key, self._images({"image": batch["image"][:1]}))

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Metrics]]:
        """The training loss of a batch: the sum of the model's terms, each a sum over the whole batch by
        a count over the whole batch, whatever the number of devices.

        Returns:
            The loss, the updated collections, and the sums `loss` and those of the terms.
        """
        augment_key, own_key, dropout_key = jax.random.split(key, 3)
        batch = inputs.augmented(augment_key, batch, self.augment)
        kept = [name for name in variables if name != "params"]
        terms, updated = self.model.apply(
            variables,
            self._images(batch, variables["params"]),
            batch.get("size"),
            truths_of(batch),
            own_key,
            method="losses",
            mutable=kept,
            rngs={"dropout": dropout_key},
        )
        weights = weights_of(batch).astype(jnp.float32)
        own = jnp.sum(weights)
        values = over_batch(terms, weights)
        total = sum(values.values())
        sums = {name: Mean(value * own, own) for name, value in {"loss": total, **values}.items()}
        return total, (dict(updated), sums)

    def predict(self, variables: Variables, batch: Batch) -> Found:
        """What is found in the pictures, in eval mode, in pixels of the canvas."""
        images = self._images(batch, variables["params"])
        return self.model.apply(variables, images, batch.get("size"), method="detect")

    def metrics(self, outputs: Found, batch: Batch) -> Metrics:
        """None: average precision is no sum over pictures."""
        return {}

    def measure(self, predictions: Predictions) -> Metrics:
        """Average precision over a whole set, as `jaxnets.metrics.detection.coco` has it."""
        return evaluate(predictions)

    def check(self, batch: Batch) -> None:
        """Checks a host batch.

        Raises:
            InputError: images, labels or boxes that the model cannot take.
        """
        resizing = self.model.resizing
        inputs.check_images(batch["image"], resizing.mean, resizing.std)
        if missing := [name for name in ("box", "label", "valid") if name not in batch]:
            raise InputError(f"batch: it has no {missing[0]}; wanted image, box, label and valid")
        valid = np.asarray(batch["valid"], bool)
        first = max(self.model.first_label, 0)
        labels = checks.labels(batch["label"])[valid]
        count = self.model.num_classes + min(self.model.first_label, 0)
        outside = labels[(labels < first) | (labels >= count)]
        if outside.size:
            raise InputError(
                f"label {outside[0]} is out of range: the detector's labels run to {count - 1}"
            )
        boxes = np.asarray(batch["box"])[valid]
        flat = boxes[~((boxes[:, 2:] > boxes[:, :2]).all(1) & np.isfinite(boxes).all(1))]
        if len(flat):
            raise InputError(
                f"box {flat[0].tolist()} has no area; wanted left, top, right, bottom: leave it out, or "
                "mark it by valid=False"
            )
        if self.model.finds_masks and "mask" not in batch:
            raise InputError(
                "batch: it has no mask, which this detector learns; load the data with masks"
            )

    def _images(self, batch: Batch, params: Any = None) -> jax.Array:
        """Normalized images, with zeros beyond the pictures."""
        resizing = self.model.resizing
        images = inputs.normalized(batch["image"], resizing.mean, resizing.std, params)
        return jax.vmap(cut_image)(images, batch["size"]) if "size" in batch else images


def truths_of(batch: Batch) -> Truths:
    """What of a batch is learned: objects that are there and no crowds."""
    valid = batch["valid"]
    if "crowd" in batch:
        valid = valid & ~batch["crowd"]
    return Truths(batch["box"].astype(jnp.float32), batch["label"], valid, batch.get("mask"))
