"""Captioning: sentences about images, by a backbone and a recurrent decoder."""

from jaxnets.captioning import decoding
from jaxnets.captioning.source import CaptionSource
from jaxnets.captioning.vocabulary import Vocabulary, tokenize

__all__ = ["CaptionSource", "Vocabulary", "decoding", "tokenize"]
