"""Classification: one label an image, by any classifier of the zoo."""

from jaxnets.classification.task import Classification

__all__ = ["Classification"]
