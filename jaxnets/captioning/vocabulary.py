"""Vocabularies, tokenization, and captions as token ids."""

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import regex

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

# Scripts that are written without spaces, and the long-vowel mark that Japanese ones share.
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc"
_LETTER = rf"[[\p{{L}}\p{{N}}]--[{_SPACELESS}]]"
_LETTER_OR_MARK = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_SPACELESS}]]"
_INNER = r"['\u200c\u200d]"  # an apostrophe, and the joiners of Indic and Persian words
_WORD = regex.compile(
    rf"(?V1)[[\p{{L}}\p{{N}}]&&[{_SPACELESS}]]\p{{M}}*+"
    rf"|{_LETTER}{_LETTER_OR_MARK}*+(?:{_INNER}{_LETTER_OR_MARK}++)*+"
)
_DOTTED_I = str.maketrans(
    {"I": "\N{LATIN SMALL LETTER DOTLESS I}", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}": "i"}
)


def tokenize(text: str, language: str | None = None) -> list[str]:
    """Splits a text into lowercase words: runs of letters, their marks and digits.

    Inner apostrophes are kept and punctuation is dropped, as the COCO caption evaluation does after its
    own tokenizer. The text is in Unicode's normal form C, so that a letter with an accent is the same
    word however it is encoded. In scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese)
    every character is a word, with its marks.

    Args:
        text: any text.
        language: ISO 639 code of its language. It matters for Turkish ("tr") and Azerbaijani ("az"),
            which have an i with and one without a dot; other languages share Unicode's rules.

    Example:

        >>> tokenize("A man's T-shirt.")
        ['a', "man's", 't', 'shirt']
        >>> tokenize("एक कुत्ता, 猫です")
        ['एक', 'कुत्ता', '猫', 'で', 'す']
    """
    text = unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = text.replace("\N{SOFT HYPHEN}", "")  # where a line may end; no part of the word
    if language in ("tr", "az"):
        text = text.translate(_DOTTED_I)
    return _WORD.findall(unicodedata.normalize("NFC", text.lower()))


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary. The first four words are special: padding, start, end and unknown.

    Attributes:
        words: all words; word k has token id k.
        language: the language of the captions, for `tokenize`; None for Unicode's general rules.

    Raises:
        InputError: `words` does not begin with the special words, a word is repeated, or `language` is
            no code such as "tr".
    """

    words: tuple[str, ...]
    language: str | None = None

    def __post_init__(self):
        if self.language is not None and not regex.fullmatch("[a-z]{2,3}", self.language):
            raise InputError(
                f"language is {self.language!r}; it must be an ISO 639 code, such as 'tr' for Turkish"
            )
        if self.words[: len(SPECIALS)] != SPECIALS:
            raise InputError(
                f"words: a vocabulary begins with {', '.join(SPECIALS)}; "
                f"got {', '.join(self.words[: len(SPECIALS)])}"
            )
        if len(self._numbers) != len(self.words):
            word, _ = Counter(self.words).most_common(1)[0]
            raise InputError(f"words: {word!r} occurs more than once")

    @classmethod
    def build(
        cls, captions: Iterable[str], min_count: int = 1, language: str | None = None
    ) -> "Vocabulary":
        """Builds a vocabulary from captions, most frequent words first.

        Args:
            captions: the captions of the training set.
            min_count: words that occur less often are unknown words (5 in Show and Tell).
            language: the language of the captions; see `tokenize`.

        Raises:
            InputError: no caption has a word, or no word occurs this often.
        """
        if min_count < 1:
            raise InputError(f"min_count is {min_count}; it must be 1 or more")
        counts = Counter(word for caption in captions for word in tokenize(caption, language))
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            why = f"none of {len(counts)} words occurs {min_count} times" if counts else "they are empty"
            raise InputError(f"captions give no vocabulary: {why}")
        words = sorted(kept, key=lambda word: (-counts[word], word))
        return cls((*SPECIALS, *words), language)

    def __len__(self) -> int:
        return len(self.words)

    def tokenize(self, caption: str) -> list[str]:
        """Splits a caption into words by the rules of its language."""
        return tokenize(caption, self.language)

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
        numbers = [self._numbers.get(word, UNKNOWN) for word in self.tokenize(caption)[: length - 1]]
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
        language = {} if self.language is None else {"language": self.language}
        text = json.dumps({**language, "words": self.words}, ensure_ascii=False, indent=0)
        atomic.write_text(Path(directory) / VOCABULARY_FILE, text + "\n")

    @classmethod
    def load(cls, directory: str | os.PathLike) -> "Vocabulary":
        """Reads the vocabulary of a run directory.

        Raises:
            InputError: there is none, or the file is invalid.
        """
        path = Path(directory) / VOCABULARY_FILE
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            words, language = tuple(map(str, saved["words"])), saved.get("language")
        except FileNotFoundError:
            raise InputError(f"{directory} holds no captioner: it has no {VOCABULARY_FILE}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a vocabulary: {error}") from None
        return cls(words, language)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}
