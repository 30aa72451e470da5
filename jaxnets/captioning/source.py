"""Images with sentences as examples of fixed shape."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jaxnets.captioning.vocabulary import Vocabulary, tokenize
from jaxnets.errors import InputError

_logger = logging.getLogger("jaxnets")


class Captioned(Protocol):
    """A source of images with sentences, such as `jaxnets.data.load("scenes").train`."""

    image_shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...

    def captions(self, index: int) -> tuple[str, ...]: ...


class CaptionSource:
    """What a captioner is trained on: `image`, and `captions` int32[K, T] with its sentences.

    A sentence is its words, the end and padding; rows that an image has no sentence for are all
    padding. An image has K sentences at most; further ones are left out of training.

    Args:
        source: images with sentences.
        vocabulary: their numbers.
        length: T, the longest sentence with its end; longer ones are cut, and a warning counts them.
        keep: hold every image in memory once it was read; for sets whose images are drawn or
            decoded slower than the network trains, and small enough.

    Raises:
        InputError: `length` below 2, no images, or an image without a sentence.
    """

    def __init__(
        self, source: Captioned, vocabulary: Vocabulary, *, length: int = 20, keep: bool = False
    ):
        if length < 2:
            raise InputError(f"length is {length}; a sentence has a word and an end, so 2 or more")
        if len(source) == 0:
            raise InputError("source has no images with captions")
        self.source, self.vocabulary, self.length = source, vocabulary, length
        self.image_shape = source.image_shape
        sentences = [source.captions(index) for index in range(len(source))]
        empty = [index for index, own in enumerate(sentences) if not any(map(tokenize, own))]
        if empty:
            raise InputError(
                f"{len(empty)} of {len(sentences)} images have no caption, the first is number "
                f"{empty[0]}; leave them out or describe them"
            )
        most = max(map(len, sentences))
        self.encoded = np.zeros((len(sentences), most, length), np.int32)
        cut = 0
        for own, rows in zip(sentences, self.encoded, strict=True):
            kept = [sentence for sentence in own if tokenize(sentence)]
            for sentence, row in zip(kept, rows, strict=False):
                row[:] = vocabulary.encode(sentence, length)
                cut += len(tokenize(sentence)) >= length
        if cut:
            _logger.warning("%d captions have more than %d words and are cut", cut, length - 1)
        self._images = {} if keep else None

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._images is not None and index in self._images:
            example = self._images[index]
        else:
            found = self.source[index]
            example = {name: found[name] for name in ("image", "weight") if name in found}
            if self._images is not None:
                self._images[index] = example
        return {**example, "captions": self.encoded[index]}

    def references(self, index: int) -> tuple[str, ...]:
        """The whole sentences of an image, as they were given."""
        return self.source.captions(index)
