"""The task of segmenters: the class of each pixel."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data import checks, inputs
from jaxnets.data.augmentation import Augmentation
from jaxnets.data.example import IGNORE
from jaxnets.data.inputs import weights_of
from jaxnets.data.resampling import cut_image
from jaxnets.errors import InputError, unknown_name
from jaxnets.metrics import Mean, Metrics, Share
from jaxnets.metrics import segmentation as measures
from jaxnets.segmentation.losses import LOSSES
from jaxnets.segmentation.segmenter import Segmenter
from jaxnets.training import Headline
from jaxnets.training.terms import over_batch

Variables = dict
Batch = dict  # image, segmentation; size and weight where there are any


@dataclass(frozen=True)
class Segmentation:
    """Segments pictures, as a frozen set of pure functions (the Task protocol of `training.task`).

    A batch is a dict of

    - `image`, uint8[N, H, W, 3] or f32 in 0 to 1, pictures in the upper left of a canvas;
    - `segmentation`, an integer[N, H, W], the class of each pixel, or 255 for pixels that are neither
      learned nor measured;
    - `size`, i32[N, 2], the (height, width) of each picture; the whole canvas where absent;
    - `weight`, f32[N], 0 for padding; 1 where absent.

    Attributes:
        model: a segmenter of `create_segmenter` or `jaxnets.load_pretrained`.
        augment: `(key, example) -> example`, on the device, for training only.
        loss_name: a key of `losses.LOSSES`, or several that are added, such as "cross_entropy+dice".
        class_weights: K numbers that weigh the pixels of each class in the losses; None for 1.
        auxiliary_weight: of the losses of auxiliary heads.
    """

    model: Segmenter
    augment: Augmentation | None = None
    loss_name: str = "cross_entropy"
    class_weights: tuple[float, ...] | None = None
    auxiliary_weight: float = 0.5

    headline: ClassVar[Headline] = Headline("miou", "mIoU")

    def __post_init__(self):
        for name in self.loss_name.split("+"):
            if name not in LOSSES:
                raise unknown_name("loss", name, LOSSES)
        count = self.model.num_classes
        if count > IGNORE:
            raise InputError(
                f"model: it has {count} classes, and label {IGNORE} stands for pixels that are ignored; "
                f"give at most {IGNORE}"
            )
        if self.class_weights is not None and len(self.class_weights) != count:
            raise InputError(
                f"class_weights has {len(self.class_weights)} entries for {count} classes; give one a "
                "class"
            )

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Draws the variables of the model."""
        return self.model.init(key, self._images({"image": batch["image"][:1]}))

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Metrics]]:
        """The training loss of a batch: augmentation, forward pass in train mode, and a mean over the
        pixels of the whole batch, or what else the losses are, whatever the number of devices.

        Returns:
            The loss, the updated collections, and the sums `loss` and `pixel_accuracy`.
        """
        augment_key, dropout_key = jax.random.split(key)
        batch = inputs.augmented(augment_key, batch, self.augment)
        kept = [name for name in variables if name != "params"]
        logits, sown = self.model.apply(
            variables,
            self._images(batch, variables["params"]),
            train=True,
            rngs={"dropout": dropout_key},
            mutable=[*kept, "auxiliary"],
        )
        total = self._loss(logits, batch)
        for auxiliary in sown.get("auxiliary", {}).values():
            total = total + self.auxiliary_weight * self._loss(auxiliary, batch)
        own = jnp.sum(weights_of(batch).astype(total.dtype))
        labels = labels_of(batch)
        counted = labels != IGNORE
        right = counted & (jnp.argmax(logits, -1).astype(jnp.int32) == labels)
        pixels = Share(jnp.sum(right).astype(jnp.float32), jnp.sum(counted).astype(jnp.float32))
        collections = {name: sown[name] for name in kept if name in sown}
        return total, (collections, {"loss": Mean(total * own, own), "pixel_accuracy": pixels})

    def predict(self, variables: Variables, batch: Batch) -> jax.Array:
        """Scores f32[N, H, W, K] in eval mode."""
        return self.model.apply(variables, self._images(batch, variables["params"]), train=False)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """The sums of `loss`, and of the measures of `metrics.segmentation`, which are those of one
        confusion matrix over the whole set: `miou`, `iou` of each class, `pixel_accuracy`,
        `mean_accuracy`, `fw_iou`; and the matrix itself, `confusion`."""
        own = jnp.sum(weights_of(batch).astype(outputs.dtype))
        found = jnp.argmax(outputs, -1).astype(jnp.int32)
        sums = measures.confusion_sums(labels_of(batch), found, self.model.num_classes)
        return {"loss": Mean(self._loss(outputs, batch) * own, own), **measures.of_confusion(sums)}

    def check(self, batch: Batch) -> None:
        """Checks a host batch.

        Raises:
            InputError: images or labels that the model cannot take.
        """
        resizing, count = self.model.resizing, self.model.num_classes
        inputs.check_images(batch["image"], resizing.mean, resizing.std)
        if "segmentation" not in batch:
            raise InputError("batch: it has no segmentation; wanted image and segmentation")
        labels, wanted = np.asarray(batch["segmentation"]), np.shape(batch["image"])[:3]
        if labels.shape != wanted:
            raise InputError(
                f"segmentation has shape {list(labels.shape)}; wanted {list(wanted)}, that of the images"
            )
        checks.labels(labels)
        outside = labels[((labels < 0) | (labels >= count)) & (labels != IGNORE)]
        if outside.size:
            raise InputError(
                f"segmentation: label {outside[0]} is out of range: the model has {count} classes, so "
                f"labels run from 0 to {count - 1}, and {IGNORE} for pixels that are ignored"
            )

    def _loss(self, logits: jax.Array, batch: Batch) -> jax.Array:
        labels, weights, own = labels_of(batch), weights_of(batch), None
        if self.class_weights is not None:
            own = jnp.asarray(self.class_weights, logits.dtype)
        terms = {name: LOSSES[name](logits, labels, own) for name in self.loss_name.split("+")}
        return sum(over_batch(terms, weights.astype(logits.dtype)).values())

    def _images(self, batch: Batch, params: Any = None) -> jax.Array:
        """Normalized images, with zeros beyond the pictures."""
        resizing = self.model.resizing
        images = batch["image"] if resizing.order == "RGB" else batch["image"][..., ::-1]
        images = inputs.normalized(images, resizing.mean, resizing.std, params)
        return jax.vmap(cut_image)(images, batch["size"]) if "size" in batch else images


def labels_of(batch: Batch) -> jax.Array:
    """The label maps i32[N, H, W]; of pictures of weight 0 all is ignored."""
    there = (weights_of(batch) > 0)[:, None, None]
    return jnp.where(there, batch["segmentation"].astype(jnp.int32), IGNORE)
