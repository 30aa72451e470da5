"""The words a captioner knows, and sentences as numbers."""

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
    "brown", "purple", "pink", "orange", "gray", "gray",
)  # fmt: skip

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def tokenize(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits, apostrophes inside them kept.

    Punctuation is dropped, as the COCO caption evaluation does after its own tokenizer; "a man's
    T-shirt." gives "a", "man's", "t", "shirt".
    """
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


@dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers. The first four are special: padding, start, end and unknown.

    Attributes:
        words: all of them; word k has number k.

    Raises:
        InputError: the special words are not where they belong, or a word comes twice.
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
            raise InputError(f"words: {word!r} comes twice")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Makes a vocabulary of the words of some captions, the most frequent first.

        Args:
            captions: the sentences of the training set.
            min_count: words that come less often become unknown words (5 in Show and Tell).

        Raises:
            InputError: no caption has a word, or no word comes so often.
        """
        if min_count < 1:
            raise InputError(f"min_count is {min_count}; it must be 1 or more")
        counts = Counter(word for caption in captions for word in tokenize(caption))
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            why = f"none of {len(counts)} words comes {min_count} times" if counts else "they are empty"
            raise InputError(f"captions give no vocabulary: {why}")
        return cls((*SPECIALS, *sorted(kept, key=lambda word: (-counts[word], word))))

    def __len__(self) -> int:
        return len(self.words)

    def numbers(self, words: Iterable[str]) -> tuple[int, ...]:
        """The numbers of those of some words that it knows."""
        return tuple(self._numbers[word] for word in words if word in self._numbers)

    def encode(self, caption: str, length: int) -> np.ndarray:
        """A sentence as numbers: its words, the end, and padding.

        Args:
            caption: any text; see `tokenize`.
            length: of the result. A sentence of `length` words or more is cut and keeps its end.

        Returns:
            int32[length].
        """
        numbers = [self._numbers.get(word, UNKNOWN) for word in tokenize(caption)[: length - 1]]
        return np.array([*numbers, END, *[PAD] * (length - 1 - len(numbers))], np.int32)

    def decode(self, numbers: Sequence[int] | np.ndarray) -> str:
        """The sentence up to its first end or padding; start signs are left out.

        Raises:
            InputError: a number that no word has.
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
        """Writes `vocabulary.json` into a run's directory."""
        text = json.dumps({"words": self.words}, ensure_ascii=False, indent=0)
        atomic.write_text(Path(directory) / VOCABULARY_FILE, text + "\n")

    @classmethod
    def load(cls, directory: str | os.PathLike) -> "Vocabulary":
        """Reads the vocabulary of a run's directory.

        Raises:
            InputError: there is none, or the file is broken.
        """
        path = Path(directory) / VOCABULARY_FILE
        try:
            words = json.loads(path.read_text(encoding="utf-8"))["words"]
        except FileNotFoundError:
            raise InputError(f"{directory} holds no captioner: it has no {VOCABULARY_FILE}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no vocabulary: {error}") from None
        return cls(tuple(words))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}
