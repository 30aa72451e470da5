"""Images with captions, as examples of fixed shape."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jaxnets.captioning.vocabulary import Vocabulary
from jaxnets.errors import InputError

_logger = logging.getLogger("jaxnets")


class Captioned(Protocol):
    """A source of images with captions, such as `jaxnets.data.load("scenes").train`."""

    image_shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...

    def captions(self, index: int) -> tuple[str, ...]: ...


class CaptionSource:
    """Training examples of a captioner: `image`, and `captions` int32[K, T].

    A caption is its words, the end token and padding. K is the largest number of captions of an image;
    the rows of images with fewer captions are filled up with padding.

    Args:
        source: images with captions.
        vocabulary: the vocabulary that encodes them.
        length: T, the maximum length including the end token; longer captions are truncated, and a
            warning counts them.
        keep: cache every image in memory once it is read; for small sets whose images take longer to
            render or decode than to train on.

    Raises:
        InputError: `length` below 2, no images, or an image without a caption.
    """

    def __init__(
        self, source: Captioned, vocabulary: Vocabulary, *, length: int = 20, keep: bool = False
    ):
        if length < 2:
            raise InputError(f"length is {length}; it must be 2 or more, for a word and the end token")
        if len(source) == 0:
            raise InputError("source has no images with captions")
        self.source, self.vocabulary, self.length = source, vocabulary, length
        self.image_shape = source.image_shape
        sentences = [source.captions(index) for index in range(len(source))]
        empty = [index for index, own in enumerate(sentences) if not any(map(vocabulary.tokenize, own))]
        if empty:
            raise InputError(
                f"{len(empty)} of {len(sentences)} images have no caption, the first is number "
                f"{empty[0]}; leave them out or describe them"
            )
        most = max(map(len, sentences))
        self.encoded = np.zeros((len(sentences), most, length), np.int32)
        cut = 0
        for own, rows in zip(sentences, self.encoded, strict=True):
            kept = [sentence for sentence in own if vocabulary.tokenize(sentence)]
            for sentence, row in zip(kept, rows, strict=False):
                row[:] = vocabulary.encode(sentence, length)
                cut += len(vocabulary.tokenize(sentence)) >= length
        if cut:
            _logger.warning("%d captions have more than %d words and are truncated", cut, length - 1)
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
        """The complete captions of an image, as given."""
        return self.source.captions(index)
