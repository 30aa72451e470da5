"""Classification: one label an image, or any number of them, by any classifier of the zoo."""

from jaxnets.classification.multilabel import MultiLabel
from jaxnets.classification.task import Classification

__all__ = ["Classification", "MultiLabel"]
