"""Knowledge distillation: a classifier that learns from the scores of another."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets import losses
from jaxnets.data import inputs
from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError
from jaxnets.models import Classifier
from jaxnets.weights import Pretrained, preprocessing_of


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained classifier to learn from (Hinton et al. 2015, arXiv:1503.02531, section 2).

    Attributes:
        pretrained: the classifier, its weights and its images.
        class_names: of the student, in its order.
        weight: share of the teacher in the loss; the labels have the rest.
        temperature: that both scores are divided by, before softmax.

    Raises:
        InputError: it is no classifier, or one of other classes; a weight or temperature out of range.
    """

    pretrained: Pretrained
    class_names: Sequence[str]
    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self):
        theirs, origin = self.pretrained.class_names, self.pretrained.origin
        if not isinstance(self.pretrained.model, Classifier) or self.pretrained.headless:
            raise InputError(f"teacher: {origin} does not score classes; give a classifier")
        if set(theirs) != set(self.class_names):
            raise InputError(
                f"teacher: {origin} has {len(theirs)} classes, and the dataset has "
                f"{len(self.class_names)} that are not the same; fine-tune the teacher on them first"
            )
        if not 0 < self.weight <= 1:
            raise InputError(f"teacher_weight is {self.weight}; it must be above 0 and at most 1")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}; it must be above 0")

    def scores(self, images: jax.Array) -> jax.Array:
        """Its scores f32[N, K], in the student's order of classes, of images f32[N, H, W, C] in 0 to 1,
        which are scaled to its own size."""
        wanted = preprocessing_of(self.pretrained)
        count, *_, channels = images.shape
        own = len(wanted.mean)
        if channels != own:
            images = images if channels == 1 else images.mean(axis=-1, keepdims=True)
            images = jnp.broadcast_to(images, (*images.shape[:3], own))
        if wanted.order != "RGB":
            images = images[..., ::-1]
        shape = (count, wanted.size, wanted.size, own)
        if images.shape != shape:
            images = jax.image.resize(images, shape, "bilinear")
        images = inputs.normalized(images, wanted.mean, wanted.std)
        variables = jax.tree.map(jnp.asarray, dict(self.pretrained.variables))
        scores = at_least_float32(self.pretrained.model.apply(variables, images))
        theirs = list(self.pretrained.class_names)
        order = np.array([theirs.index(name) for name in self.class_names])
        return jax.lax.stop_gradient(scores[:, order])

    def losses(self, images: jax.Array, logits: jax.Array) -> jax.Array:
        """The distillation loss of a student's scores of images, f32[N]; see `losses.distillation`."""
        return losses.distillation(at_least_float32(logits), self.scores(images), self.temperature)
