"""Captioning: sentences about images, by a backbone and a recurrent decoder."""

from jaxnets.captioning import decoding
from jaxnets.captioning.captioner import Captioner, create_captioner
from jaxnets.captioning.evaluation import (
    cache_features,
    evaluate_captions,
    make_writer,
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
    "cache_features",
    "create_captioner",
    "decoding",
    "evaluate_captions",
    "freeze_backbone",
    "make_writer",
    "tokenize",
    "with_backbone",
    "write_captions",
]
