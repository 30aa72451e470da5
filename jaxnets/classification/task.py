"""The task of the zoo's classifiers: one label an image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets import losses
from jaxnets.classification.distilling import Teacher
from jaxnets.data import checks, inputs
from jaxnets.data.augmentation import Augmentation
from jaxnets.data.inputs import weights_of
from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError, unknown_name
from jaxnets.metrics import Mean, Metrics, Share, Sum, confusion_matrix, in_top_k
from jaxnets.models import Classifier
from jaxnets.training import Headline

LOSSES = ("cross_entropy", "hinge", "mse", "bce")

Variables = dict
Batch = dict  # image uint8 or f32 [N, H, W, C], label i32[N], weight f32[N]


@dataclass(frozen=True)
class Classification:
    """Classifies images, as a frozen set of pure functions (the Task protocol of `training.task`).

    A batch is a dict of `image` (uint8[N, H, W, C], or f32 in 0 to 1), `label` (i32[N]) and, where
    some examples are padding, `weight` (f32[N]; 1 where absent). All means are weighted by it.

    Attributes:
        model: a classifier of `jaxnets.create_model`.
        mean, std: per channel, in units of 0 to 1; images become (image - mean) / std. One number
            serves all channels.
        loss_name: "cross_entropy"; "hinge", the multi-class support vector machine; "mse" and "bce",
            on one-hot targets.
        label_smoothing: the share of the target spread over all classes, in the training loss only.
        class_weights: one weight a class, for imbalanced data (`jaxnets.data.class_weights`).
        augment: `(key, example) -> example`, on the device, for training only, where an example is a
            dict of `image` (f32[H, W, C] in 0 to 1) and `label` (`jaxnets.data.augmentation`).
        mix: `(key, images f32[N, H, W, C], targets f32[N, K]) -> (images, targets)`, such as
            `jaxnets.data.augmentation.mixup(0.2)`, for training only.
        teacher: a classifier to learn from besides the labels, of whose loss it has a share.
        auxiliary_weight: what each auxiliary head adds to the training loss (0.3: Szegedy et al.
            2014, section 5).

    Raises:
        InputError: for an unknown loss, or as many class weights as there are not classes.
    """

    model: Classifier
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    loss_name: str = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    augment: Augmentation | None = None
    mix: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None
    teacher: Teacher | None = None
    auxiliary_weight: float = 0.3

    several: ClassVar[bool] = False  # labels that an image may have
    headline: ClassVar[Headline] = Headline("top1", "accuracy")

    def __post_init__(self):
        if self.loss_name not in LOSSES:
            raise unknown_name("loss", self.loss_name, LOSSES)
        if self.model.num_classes == 0:
            raise InputError(
                "model: it was made with num_classes=0 and has no head to classify with; "
                "give create_model the number of classes"
            )
        if self.teacher is not None and self.class_weights is not None:
            raise InputError("teacher: class weights do not apply to it; leave one of them out")
        inputs.check_constants(self.mean, self.std)
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}; it must be in [0, 1)")
        if self.label_smoothing and self.loss_name != "cross_entropy":
            raise InputError(
                f"label_smoothing belongs to cross_entropy; loss_name is {self.loss_name!r}"
            )
        if self.class_weights is not None and len(self.class_weights) != self.model.num_classes:
            raise InputError(
                f"class_weights has {len(self.class_weights)} entries for "
                f"{self.model.num_classes} classes; give one a class"
            )

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Draws the variables of the model for images of this batch's shape."""
        images = inputs.normalized(batch["image"][:1], self.mean, self.std)
        return self.model.init(key, images, train=False)

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Metrics]]:
        """The training loss of a batch: augmentation, forward pass in train mode, weighted mean.

        Computes in the dtype of the parameters it is given; scores and losses are float32 at least.

        Returns:
            The scalar loss, the updated collections (`batch_stats`) and the sums `loss` and `top1`.
            `loss.weight` is the batch's total weight, so that means of several replicas or
            micro-batches can be joined exactly.
        """
        augment_key, mix_key, dropout_key = jax.random.split(key, 3)
        images = inputs.augmented(augment_key, batch, self.augment)["image"]
        targets = self._targets(batch)
        if self.mix is not None:
            images, targets = self.mix(mix_key, images, targets)
        kept = [name for name in variables if name != "params"]
        logits, sown = self.model.apply(
            variables,
            inputs.normalized(images, self.mean, self.std, variables["params"]),
            train=True,
            rngs={"dropout": dropout_key},
            mutable=[*kept, "auxiliary"],
        )
        mean = self._mean_loss(logits, targets, batch, self.label_smoothing)
        total = mean.total
        if self.teacher is not None:
            share, weights = self.teacher.weight, weights_of(batch)
            told = jnp.sum(jnp.where(weights > 0, self.teacher.losses(images, logits) * weights, 0.0))
            total = (1 - share) * total + share * told
        for auxiliary in sown.get("auxiliary", {}).values():
            part = self._mean_loss(auxiliary, targets, batch, self.label_smoothing)
            total = total + self.auxiliary_weight * part.total
        mean = mean._replace(total=total)
        metrics = {"loss": mean, **self._counted(logits, batch)}
        collections = {name: sown[name] for name in kept if name in sown}
        # A batch of nothing but padding has no loss; 0 / 1 keeps its gradient finite.
        return mean.total / jnp.where(mean.weight > 0, mean.weight, 1), (collections, metrics)

    def predict(self, variables: Variables, batch: Batch) -> jax.Array:
        """Scores f32[N, K] in eval mode."""
        images = inputs.normalized(batch["image"], self.mean, self.std, variables["params"])
        return self.model.apply(variables, images, train=False)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """The sums of `loss` (without smoothing), `top1`, `top5` and `confusion` of predictions."""
        sums = {
            "loss": self._mean_loss(outputs, self._targets(batch), batch, 0.0),
            "top1": self._top_k(outputs, batch, 1),
            "confusion": Sum(confusion_matrix(outputs, batch["label"], weights_of(batch))),
        }
        if outputs.shape[-1] > 5:
            sums["top5"] = self._top_k(outputs, batch, 5)
        return sums

    def check(self, batch: Batch) -> None:
        """Refuses, on the host, a batch whose labels or images the compiled step cannot take."""
        for name in ("image", "label"):
            if name not in batch:
                has = ", ".join(sorted(batch.keys() - {"weight"}))
                raise InputError(f"an example has {has}, and no {name}; wanted image and label")
        inputs.check_images(batch["image"], self.mean, self.std)
        self._check_labels(checks.labels(batch["label"]), len(batch["image"]))

    def _check_labels(self, labels: np.ndarray, count: int) -> None:
        """Refuses labels that are not a class for each of `count` images."""
        num_classes = self.model.num_classes
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if outside.size:
            raise InputError(
                f"label {outside[0]} is out of range: the model has {num_classes} classes, "
                f"so labels run from 0 to {num_classes - 1}"
            )
        if labels.shape != (count,):
            raise InputError(
                f"label has shape {labels.shape}; wanted one number for each of {count} images"
            )

    def _counted(self, logits: jax.Array, batch: Batch) -> Metrics:
        """What a training step reports besides the loss."""
        return {"top1": self._top_k(logits, batch, 1)}

    def _targets(self, batch: Batch) -> jax.Array:
        return jax.nn.one_hot(batch["label"], self.model.num_classes, dtype=jnp.float32)

    def _top_k(self, logits: jax.Array, batch: Batch, k: int) -> Share:
        return Share.of(in_top_k(logits, batch["label"], k), weights_of(batch))

    def _mean_loss(self, logits, targets, batch: Batch, label_smoothing: float) -> Mean:
        logits = at_least_float32(logits)
        targets = targets.astype(logits.dtype)
        weights, class_weights = weights_of(batch).astype(logits.dtype), None
        class_share = jnp.ones(len(targets), logits.dtype)
        if self.class_weights is not None:
            class_weights = jnp.asarray(self.class_weights, logits.dtype)
            class_share = losses.target_weights(targets, class_weights)
        if self.loss_name == "cross_entropy":
            values = losses.cross_entropy(logits, targets, label_smoothing, class_weights)
        else:
            function = {
                "hinge": losses.hinge,
                "mse": losses.mean_squared_error,
                "bce": losses.binary_cross_entropy,
            }[self.loss_name]
            values = function(logits, targets) * class_share
        total = jnp.sum(jnp.where(weights > 0, values * weights, 0.0))
        return Mean(total, jnp.sum(weights * class_share))
