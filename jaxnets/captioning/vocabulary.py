"""Vocabularies, tokenization, and captions as token ids."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxnets import atomic
from jaxnets.errors import InputError

SPECIALS = ("<pad>", "<start>", "<end>", "<unknown>")
PAD, START, END, UNKNOWN = range(len(SPECIALS))

VOCABULARY_FILE = "vocabulary.json"
# The basic color terms of English (Berlin and Kay 1969), in both spellings.
COLOR_WORDS = (
    "black", "white", "red", "green", "yellow", "blue",
    "brown", "purple", "pink", "orange", "gray", "grey",
)  # fmt: skip

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def tokenize(text: str) -> list[str]:
    """Splits a text into lowercase words: runs of letters and digits, with inner apostrophes kept.

    Punctuation is dropped, as the COCO caption evaluation does after its own tokenizer; "a man's
    T-shirt." gives "a", "man's", "t", "shirt".
    """
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary. The first four words are special: padding, start, end and unknown.

    Attributes:
        words: all words; word k has token id k.

    Raises:
        InputError: `words` does not begin with the special words, or a word is repeated.
    """

    words: tuple[str, ...]

    def __post_init__(self):
        if self.words[: len(SPECIALS)] != SPECIALS:
            raise InputError(
                f"words: a vocabulary begins with {', '.join(SPECIALS)}; "
                f"got {', '.join(self.words[: len(SPECIALS)])}"
            )
        if len(self._numbers) != len(self.words):
            word, _ = Counter(self.words).most_common(1)[0]
            raise InputError(f"words: {word!r} occurs more than once")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Builds a vocabulary from captions, most frequent words first.

        Args:
            captions: the captions of the training set.
            min_count: words that occur less often are unknown words (5 in Show and Tell).

        Raises:
            InputError: no caption has a word, or no word occurs this often.
        """
        if min_count < 1:
            raise InputError(f"min_count is {min_count}; it must be 1 or more")
        counts = Counter(word for caption in captions for word in tokenize(caption))
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            why = f"none of {len(counts)} words occurs {min_count} times" if counts else "they are empty"
            raise InputError(f"captions give no vocabulary: {why}")
        return cls((*SPECIALS, *sorted(kept, key=lambda word: (-counts[word], word))))

    def __len__(self) -> int:
        return len(self.words)

    def numbers(self, words: Iterable[str]) -> tuple[int, ...]:
        """The token ids of the given words, without unknown words."""
        return tuple(self._numbers[word] for word in words if word in self._numbers)

    def encode(self, caption: str, length: int) -> np.ndarray:
        """Encodes a caption as token ids: its words, the end token, and padding.

        Args:
            caption: any text; see `tokenize`.
            length: length of the result. A caption of `length` words or more is truncated and keeps
                its end token.

        Returns:
            int32[length].
        """
        numbers = [self._numbers.get(word, UNKNOWN) for word in tokenize(caption)[: length - 1]]
        return np.array([*numbers, END, *[PAD] * (length - 1 - len(numbers))], np.int32)

    def decode(self, numbers: Sequence[int] | np.ndarray) -> str:
        """Decodes token ids up to the first end or padding token; start tokens are dropped.

        Raises:
            InputError: a token id out of range.
        """
        words = []
        for number in np.asarray(numbers).tolist():
            if not 0 <= number < len(self.words):
                raise InputError(f"token {number} is out of range: there are {len(self.words)} words")
            if number in (END, PAD):
                break
            if number != START:
                words.append(self.words[number])
        return " ".join(words)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes `vocabulary.json` into a run directory."""
        text = json.dumps({"words": self.words}, ensure_ascii=False, indent=0)
        atomic.write_text(Path(directory) / VOCABULARY_FILE, text + "\n")

    @classmethod
    def load(cls, directory: str | os.PathLike) -> "Vocabulary":
        """Reads the vocabulary of a run directory.

        Raises:
            InputError: there is none, or the file is invalid.
        """
        path = Path(directory) / VOCABULARY_FILE
        try:
            words = json.loads(path.read_text(encoding="utf-8"))["words"]
        except FileNotFoundError:
            raise InputError(f"{directory} holds no captioner: it has no {VOCABULARY_FILE}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a vocabulary: {error}") from None
        return cls(tuple(words))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}
