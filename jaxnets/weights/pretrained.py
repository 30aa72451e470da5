"""A model with its weights, its images and its classes; and the same for other ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.errors import InputError
from jaxnets.layers import LinearHead
from jaxnets.models import Classifier, create_model
from jaxnets.weights import adaptation
from jaxnets.weights.conversion import Variables
from jaxnets.weights.images import Preprocessing

ACTIVATIONS = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}


class UnknownImagesError(InputError):
    """Nothing tells what images weights want."""


@dataclass(frozen=True)
class Pretrained:
    """A model with weights, its preprocessing and its classes.

    Attributes:
        model, variables: for `model.apply(variables, images)`.
        preprocessing: of the images; None where it is unknown, and for whole pictures that the model
            scales itself.
        class_names: of the K scores.
        settings: of `create_model`, without the name and the number of classes.
        origin: where the weights came from, for messages.
        activation: what turns scores into probabilities, one of `ACTIVATIONS`.
        headless: whether the source had no layers that score the classes: they are drawn, and always
            drawn anew by `adapted`.
    """

    model: nn.Module
    variables: Variables
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    settings: Mapping[str, Any]
    origin: str
    activation: str = "softmax"
    headless: bool = False

    def adapted(
        self,
        num_classes: int | None = None,
        *,
        class_names: Sequence[str] | None = None,
        in_channels: int | None = None,
        new_head: bool = False,
        key: jax.Array | None = None,
        **overrides: Any,
    ) -> "Pretrained":
        """The same model for other classes, other images or with other settings.

        Args:
            num_classes, in_channels, new_head, key, overrides: as for `jaxnets.load_pretrained`.
            class_names: of the classes to score. The head is kept if these are the names that the
                weights have, in the same order, and drawn anew otherwise.

        Returns:
            A new model with its weights. Where none are given, new classes are named by their numbers.

        Raises:
            InputError: `num_classes` is not the number of `class_names`, `in_channels` is below 1, or a
                setting changes parameters other than those of the heads and of the first kernel.
        """
        old, names = self.model, self.class_names
        if class_names is not None:
            class_names = tuple(class_names)
            if num_classes not in (None, len(class_names)):
                raise InputError(
                    f"num_classes is {num_classes}, but class_names has {len(class_names)}; give either"
                )
            num_classes, new_head = len(class_names), new_head or class_names != names
        num_classes = old.num_classes if num_classes is None else num_classes
        in_channels = old.input_size[2] if in_channels is None else in_channels
        if in_channels < 1:
            raise InputError(f"in_channels is {in_channels}; it must be 1 or more")
        settings = {**self.settings, **overrides}
        model = create_model(old.model_name, num_classes=num_classes, **settings)
        # The size of the images decides the parameters of a perceptron.
        model = model.clone(input_size=(*old.input_size[:2], in_channels))
        new_head = new_head or self.headless or num_classes != old.num_classes
        if not new_head:
            model = naming(model, naming_of(old))
        anew = self._leaves_of_classes(num_classes) if new_head else ()
        if class_names is not None:
            names = class_names
            model = model if naming_of(model) is None else naming(model, names)
        elif new_head:
            names = tuple(map(str, range(num_classes)))
        preprocessing = self.preprocessing
        if preprocessing is not None and in_channels != old.input_size[2]:
            preprocessing = preprocessing.of_channels(in_channels)
        key = jax.random.key(0) if key is None else key
        variables = adaptation.adapted(self.variables, model, key, anew)
        named = (names, settings, self.origin, self.activation)
        return Pretrained(model, variables, preprocessing, *named)

    def _leaves_of_classes(self, num_classes: int) -> list[adaptation.Path]:
        """The paths of the variables that score classes, found by another number of these."""
        old = self.model
        other = num_classes if num_classes != old.num_classes else old.num_classes + 1
        resized = create_model(old.model_name, num_classes=other, **self.settings)
        return adaptation.class_leaves(old, resized.clone(input_size=old.input_size))


def naming_of(model: nn.Module) -> tuple[str, ...] | None:
    """The names that a model has for what it finds; None for one that leaves them to others."""
    return getattr(model, "class_names", None)


def naming(model: nn.Module, names: Sequence[str] | None) -> nn.Module:
    """The model with these names for what it finds, as `naming_of` another gave them."""
    return model if names is None else model.clone(class_names=tuple(names))


def inside(pretrained: Pretrained) -> Pretrained:
    """What of a model can be looked into: a classifier itself; of another model that states the pictures
    it was made for (`resizing`) the backbone, as a classifier without a head."""
    model, images = pretrained.model, getattr(pretrained.model, "resizing", None)
    if images is None or isinstance(model, Classifier):
        return pretrained
    side = images.min_size or images.max_size or min(model.input_size[:2])
    return Pretrained(
        model=Classifier(
            backbone=model.backbone,
            head=LinearHead(0),
            num_classes=0,
            input_size=(side, side, model.input_size[2]),
            min_size=model.min_size,
            model_name=model.model_name,
        ),
        variables={
            kind: {"backbone": parts["backbone"]}
            for kind, parts in pretrained.variables.items()
            if "backbone" in parts
        },
        preprocessing=Preprocessing(side, side, "bilinear", images.mean, images.std, images.order),
        class_names=(),
        settings={},
        origin=pretrained.origin,
    )


def in_rgb(pretrained: Pretrained) -> Pretrained:
    """The same weights for images in RGB, as datasets have them."""
    images = pretrained.preprocessing
    if images is None or images.order == "RGB":
        return pretrained
    variables = flatten_dict(pretrained.variables)
    path = adaptation.first_kernel(pretrained.model)
    variables[path] = variables[path][:, :, ::-1]
    images = dataclasses.replace(images, order="RGB", mean=images.mean[::-1], std=images.std[::-1])
    return dataclasses.replace(pretrained, variables=unflatten_dict(variables), preprocessing=images)


def preprocessing_of(pretrained: Pretrained) -> Preprocessing:
    """What images the weights of a model want.

    Raises:
        UnknownImagesError: nothing tells.
    """
    if pretrained.preprocessing is None and not isinstance(pretrained.model, Classifier):
        raise UnknownImagesError(
            f"preprocessing: {pretrained.model.model_name} is no classifier and scales pictures itself"
        )
    if pretrained.preprocessing is None:
        raise UnknownImagesError(
            f"preprocessing: {pretrained.origin} does not tell what images its weights want; save it "
            "with its preprocessing by jaxnets.weights.save"
        )
    return pretrained.preprocessing
