"""The task of the zoo's classifiers: one label an image."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets import losses
from jaxnets.data import augmentation
from jaxnets.data.augmentation import Augmentation
from jaxnets.data.whitening import normalize, to_float
from jaxnets.errors import InputError, unknown_name
from jaxnets.metrics import Mean, Metrics, Sum, confusion_matrix, in_top_k
from jaxnets.models import Classifier

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
        augment: `(key, example) -> example` with an `image` f32[H, W, C] in 0 to 1 and a `label`, on
            the device, for training only (`jaxnets.data.augmentation`).
        mix: `(key, images f32[N, H, W, C], targets f32[N, K]) -> (images, targets)`, such as
            `jaxnets.data.augmentation.mixup(0.2)`, for training only.
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
    auxiliary_weight: float = 0.3

    def __post_init__(self):
        if self.loss_name not in LOSSES:
            raise unknown_name("loss", self.loss_name, LOSSES)
        if self.model.num_classes == 0:
            raise InputError(
                "model: it was made with num_classes=0 and has no head to classify with; "
                "give create_model the number of classes"
            )
        if min(self.std) <= 0:
            raise InputError(f"std is {self.std}; every number must be above 0")
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
        images = normalize(to_float(batch["image"][:1]), self.mean, self.std)
        return self.model.init(key, images, train=False)

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Metrics]]:
        """The training loss of a batch: augmentation, forward pass in train mode, weighted mean.

        Computes in the dtype of the parameters it is given; scores and losses are float32.

        Returns:
            The scalar loss, the updated collections (`batch_stats`) and the sums `loss` and `top1`.
            `loss.weight` is the batch's total weight, so that means of several replicas or
            micro-batches can be joined exactly.
        """
        augment_key, mix_key, dropout_key = jax.random.split(key, 3)
        images = to_float(batch["image"])
        if self.augment is not None:
            images = augmentation.apply(augment_key, {**batch, "image": images}, self.augment)["image"]
        targets = self._targets(batch)
        if self.mix is not None:
            images, targets = self.mix(mix_key, images, targets)
        params = variables["params"]
        images = normalize(images, self.mean, self.std).astype(jax.tree.leaves(params)[0].dtype)
        kept = [name for name in variables if name != "params"]
        logits, sown = self.model.apply(
            variables,
            images,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=[*kept, "auxiliary"],
        )
        mean = self._mean_loss(logits, targets, batch, self.label_smoothing)
        total = mean.total
        for auxiliary in sown.get("auxiliary", {}).values():
            part = self._mean_loss(auxiliary, targets, batch, self.label_smoothing)
            total = total + self.auxiliary_weight * part.total
        mean = mean._replace(total=total)
        metrics = {"loss": mean, "top1": self._top_k(logits, batch, 1)}
        collections = {name: sown[name] for name in kept if name in sown}
        # A batch of nothing but padding has no loss; 0 / 1 keeps its gradient finite.
        return mean.total / jnp.where(mean.weight > 0, mean.weight, 1), (collections, metrics)

    def predict(self, variables: Variables, batch: Batch) -> jax.Array:
        """Scores f32[N, K] in eval mode."""
        images = normalize(to_float(batch["image"]), self.mean, self.std)
        dtype = jax.tree.leaves(variables["params"])[0].dtype
        return self.model.apply(variables, images.astype(dtype), train=False)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """The sums of `loss` (without smoothing), `top1`, `top5` and `confusion` of predictions."""
        sums = {
            "loss": self._mean_loss(outputs, self._targets(batch), batch, 0.0),
            "top1": self._top_k(outputs, batch, 1),
            "confusion": Sum(confusion_matrix(outputs, batch["label"], _weights(batch))),
        }
        if outputs.shape[-1] > 5:
            sums["top5"] = self._top_k(outputs, batch, 5)
        return sums

    def check(self, batch: Batch) -> None:
        """Refuses, on the host, a batch whose labels or images the compiled step cannot take."""
        labels, num_classes = np.asarray(batch["label"]), self.model.num_classes
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if outside.size:
            raise InputError(
                f"label {outside[0]} is out of range: the model has {num_classes} classes, "
                f"so labels run from 0 to {num_classes - 1}"
            )
        shape = np.shape(batch["image"])
        if len(shape) != 4:
            raise InputError(f"image has shape {shape}; wanted [N, H, W, C]")
        if labels.shape != shape[:1]:
            raise InputError(
                f"label has shape {labels.shape}; wanted one number for each of {shape[0]} images"
            )
        channels = {1, shape[-1]}
        if len(self.mean) not in channels or len(self.std) not in channels:
            raise InputError(
                f"image has {shape[-1]} channels, but mean has {len(self.mean)} entries and std "
                f"{len(self.std)}; give one number, or one a channel"
            )

    def _targets(self, batch: Batch) -> jax.Array:
        return jax.nn.one_hot(batch["label"], self.model.num_classes)

    def _top_k(self, logits: jax.Array, batch: Batch, k: int) -> Mean:
        return Mean.of(in_top_k(logits, batch["label"], k), _weights(batch))

    def _mean_loss(self, logits, targets, batch: Batch, label_smoothing: float) -> Mean:
        logits = logits.astype(jnp.float32)
        weights, class_weights = _weights(batch), None
        class_share = jnp.ones(len(targets))
        if self.class_weights is not None:
            class_weights = jnp.asarray(self.class_weights)
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


def _weights(batch: Batch) -> jax.Array:
    weights = batch.get("weight")
    return jnp.ones(len(batch["label"])) if weights is None else weights
