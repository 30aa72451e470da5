"""Image captioning with a backbone and a recurrent decoder."""

from jaxnets.captioning import decoding
from jaxnets.captioning.captioner import Captioner, create_captioner
from jaxnets.captioning.evaluation import (
    Writer,
    cache_features,
    evaluate_captions,
    write_captions,
)
from jaxnets.captioning.frozen import freeze_backbone, with_backbone
from jaxnets.captioning.source import CaptionSource
from jaxnets.captioning.task import Captioning
from jaxnets.captioning.vocabulary import COLOR_WORDS, Vocabulary, tokenize

__all__ = [
    "COLOR_WORDS",
    "CaptionSource",
    "Captioner",
    "Captioning",
    "Vocabulary",
    "Writer",
    "cache_features",
    "create_captioner",
    "decoding",
    "evaluate_captions",
    "freeze_backbone",
    "tokenize",
    "with_backbone",
    "write_captions",
]
