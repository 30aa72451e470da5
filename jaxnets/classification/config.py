"""What is configured of the training of a classifier."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxnets.config import ImageConfig
from jaxnets.errors import InputError
from jaxnets.ranges import Range


@dataclass(frozen=True)
class Config(ImageConfig):
    """With no arguments, LeNet-5 on scikit-learn's digits."""

    model: str | None = None
    """Architecture, as `jaxnets models` lists them; None for lenet5, or that of --pretrained."""
    dataset: str = "digits"
    """digits, folder:PATH, csv:PATH, records:PATH or tfds:NAME."""
    epochs: int = 30
    """Passes over the training set."""
    image_size: int | str | None = None
    """Side of the images in pixels, FIRST:LAST if it grows with the epochs; None for what suits them."""

    pretrained: str | None = None
    """Weights to fine-tune: a model's name, a file, hf:OWNER/NAME or a run."""
    train: str | None = None
    """First part to train: head, stage4 ...; None for all."""
    layer_decay: float | None = None
    """Learning-rate factor from part to earlier part: 0.7, say."""

    loss: Literal["cross_entropy", "hinge", "mse", "bce"] | None = None
    """Training loss; None for cross_entropy, or bce of csv:PATH."""
    label_smoothing: float = 0.0
    """Target share spread over all classes."""
    balance: Literal["none", "weights", "over", "under"] = "none"
    """Weight classes in the loss, or over- or under-sample."""
    mixup: float = 0.0
    """Strength (alpha) of mixup; 0 for none."""
    cutmix: float = 0.0
    """Strength (alpha) of cutmix; 0 for none."""
    repeats: int = 1
    """Augmented copies of an image in a batch."""

    teacher: str | None = None
    """A run or pretrained classifier to learn from too."""
    teacher_weight: float = 0.5
    """Its share in the loss."""
    temperature: float = 4.0
    """What its scores and ours are divided by."""

    names_weights: ClassVar[tuple[str, ...]] = ("pretrained", "teacher")
    ranges: ClassVar[Mapping[str, Range]] = ImageConfig.ranges | {
        "teacher_weight": Range(0, 1, above=True),
        "temperature": Range(0, above=True),
        "layer_decay": Range(0, 1, above=True),
        "label_smoothing": Range(0, 1, below=True),
        "mixup": Range(0),
        "cutmix": Range(0),
        "repeats": Range(1),
    }

    def completed(self) -> "Config":
        """The configuration with a loss, and with a model where the weights do not say which."""
        completed = super().completed()
        if self.loss is None:  # of a CSV, images have any number of labels
            loss = "bce" if self.dataset.startswith("csv:") else "cross_entropy"
            completed = dataclasses.replace(completed, loss=loss)
        if self.model is None and self.pretrained is None:
            return dataclasses.replace(completed, model="lenet5")
        return completed

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """The side of the training images in the first and in the last epoch.

        Raises:
            InputError: an `image_size` that is neither a number nor two that rise.
        """
        size = self.image_size
        if not isinstance(size, str):
            return size, size
        first, _, last = size.partition(":")
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
            raise InputError(f"image_size is {size!r}; wanted pixels, or FIRST:LAST such as 128:224")
        return int(first), int(last)

    def check(self) -> None:
        ImageConfig.check(dataclasses.replace(self, image_size=self.sides[1]))
