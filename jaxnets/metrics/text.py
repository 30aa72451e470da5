"""Scores of generated sentences against reference sentences: BLEU, ROUGE-L, CIDEr and CIDEr-D.

All take N hypotheses and, for each of them, one or more references, as lists of words, so that they do
not depend on a tokenizer. They match the COCO caption evaluation (pycocoevalcap), which scores a
corpus as a whole. METEOR is not included because it needs Java or a download.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from jaxnets.errors import InputError

Sentence = Sequence[str]
Vectors = list[dict[tuple[str, ...], float]]  # for n = 1 ... 4, the weight of each n-gram

ORDERS = range(1, 5)
_LENGTH_SIGMA = 6.0  # of CIDEr-D's length penalty
_ROUGE_BETA = 1.2  # recall has more weight than precision


def scores(hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> dict[str, float]:
    """All scores of a corpus: `bleu1` ... `bleu4`, `rouge_l`, `cider`, `cider_d` and `exact`.

    `exact` is the fraction of hypotheses that equal one of their references, word for word. CIDEr and
    CIDEr-D range from 0 to 10, the others from 0 to 1.

    Raises:
        InputError: no hypotheses, or one without a reference.
    """
    found = {f"bleu{n}": value for n, value in zip(ORDERS, bleu(hypotheses, references), strict=True)}
    found["rouge_l"] = float(np.mean(rouge_l(hypotheses, references)))
    found["cider"] = float(np.mean(cider(hypotheses, references)))
    found["cider_d"] = float(np.mean(cider_d(hypotheses, references)))
    pairs = zip(hypotheses, references, strict=True)
    found["exact"] = float(np.mean([list(h) in [list(r) for r in own] for h, own in pairs]))
    return found


def bleu(
    hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]
) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002), without smoothing.

    The brevity penalty uses, for each hypothesis, the reference closest in length, or the shorter of
    two equally close ones. If no n-gram matches in the whole corpus, the score is 0, as in sacrebleu
    (and about 1e-4 in pycocoevalcap).

    Raises:
        InputError: no hypotheses, or one without a reference.
    """
    _check(hypotheses, references)
    matches, totals = np.zeros(4), np.zeros(4)
    length = reference_length = 0
    for hypothesis, own in zip(hypotheses, references, strict=True):
        length += len(hypothesis)
        reference_length += min((abs(len(r) - len(hypothesis)), len(r)) for r in own)[1]
        most = Counter()
        for reference in own:
            most |= _ngrams(reference)
        counts = _ngrams(hypothesis)
        for ngram, count in (counts & most).items():
            matches[len(ngram) - 1] += count
        for ngram, count in counts.items():
            totals[len(ngram) - 1] += count
    if length == 0:
        return (0.0,) * 4
    brevity = math.exp(min(0.0, 1 - reference_length / length))
    precisions = matches / np.maximum(totals, 1)
    return tuple(brevity * float(np.prod(precisions[:n])) ** (1 / n) for n in ORDERS)


def rouge_l(hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> np.ndarray:
    """ROUGE-L of each hypothesis (Lin 2004), float[N], from the longest common subsequence.

    The F-measure, with beta = 1.2, of the best precision and the best recall over the references.

    Raises:
        InputError: no hypotheses, or one without a reference.
    """
    _check(hypotheses, references)
    found = np.zeros(len(hypotheses))
    for number, (hypothesis, own) in enumerate(zip(hypotheses, references, strict=True)):
        common = [_longest_common(hypothesis, reference) for reference in own]
        if not any(common):
            continue
        precision = max(common) / len(hypothesis)
        recall = max(c / len(r) for c, r in zip(common, own, strict=True) if len(r))
        weight = _ROUGE_BETA**2
        found[number] = (1 + weight) * precision * recall / (recall + weight * precision)
    return found


def cider(hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> np.ndarray:
    """CIDEr of each hypothesis (Vedantam et al. 2014, section 4), float[N] from 0 to 10.

    The mean over the references and over n = 1 ... 4 of the cosine similarity of tf-idf vectors of
    n-grams, times 10. Document frequencies are computed from the given references, so that the score
    of a single image is 0. Departure from the paper: words are not stemmed, as in COCO's evaluation.

    Raises:
        InputError: no hypotheses, or one without a reference.
    """

    def product(one: Vectors, other: Vectors, n: int) -> float:
        return sum(weight * other[n].get(ngram, 0.0) for ngram, weight in one[n].items())

    return _consensus(hypotheses, references, product, lambda difference: 1.0)


def cider_d(hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> np.ndarray:
    """CIDEr-D of each hypothesis (Vedantam et al. 2014, section 7), float[N] from 0 to 10.

    A variant of CIDEr that is harder to game: weights are clipped to those of the reference, so that
    repeating a word does not help, and differences in length are penalized by a Gaussian of sigma 6.
    pycocoevalcap calls it Cider. As there, lengths are numbers of bigrams.

    Raises:
        InputError: no hypotheses, or one without a reference.
    """

    def product(one: Vectors, other: Vectors, n: int) -> float:
        found = ((weight, other[n].get(ngram, 0.0)) for ngram, weight in one[n].items())
        return sum(min(a, b) * b for a, b in found)

    def penalty(difference: int) -> float:
        return math.exp(-(difference**2) / (2 * _LENGTH_SIGMA**2))

    return _consensus(hypotheses, references, product, penalty)


def _consensus(
    hypotheses: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    product: Callable[[Vectors, Vectors, int], float],
    penalty: Callable[[int], float],
) -> np.ndarray:
    _check(hypotheses, references)
    reference_ngrams = [[_ngrams(reference) for reference in own] for own in references]
    documents = Counter(ngram for own in reference_ngrams for ngram in set().union(*own))
    log_corpus = math.log(len(hypotheses))

    def vectors(ngrams: Counter) -> tuple[Vectors, list[float], int]:
        """tf-idf weights for each n, their norms, and the number of bigrams."""
        weights: Vectors = [{} for _ in ORDERS]
        for ngram, count in ngrams.items():
            idf = log_corpus - math.log(max(1, documents[ngram]))
            weights[len(ngram) - 1][ngram] = count * idf
        norms = [math.sqrt(sum(w * w for w in own.values())) for own in weights]
        return weights, norms, sum(c for ngram, c in ngrams.items() if len(ngram) == 2)

    found = np.zeros(len(hypotheses))
    for number, hypothesis in enumerate(hypotheses):
        weights, norms, length = vectors(_ngrams(hypothesis))
        for reference in reference_ngrams[number]:
            other_weights, other_norms, other_length = vectors(reference)
            cosines = [
                product(weights, other_weights, n) / (norms[n] * other_norms[n])
                for n in range(len(ORDERS))
                if norms[n] and other_norms[n]
            ]
            found[number] += penalty(length - other_length) * sum(cosines) / len(ORDERS)
        found[number] *= 10 / len(references[number])
    return found


def _ngrams(sentence: Sentence) -> Counter:
    """The count of each n-gram, n = 1 ... 4."""
    words = tuple(sentence)
    return Counter(words[i : i + n] for n in ORDERS for i in range(len(words) - n + 1))


def _longest_common(one: Sentence, other: Sentence) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for j, against in enumerate(other, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == against else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def _check(hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise InputError(
            f"{len(hypotheses)} hypotheses and {len(references)} sets of references; wanted equal "
            "numbers, and at least one of each"
        )
    for number, (hypothesis, own) in enumerate(zip(hypotheses, references, strict=True)):
        if not own:
            raise InputError(f"hypothesis {number} has no reference")
        if isinstance(hypothesis, str) or any(isinstance(reference, str) for reference in own):
            raise InputError(
                f"hypothesis {number} or one of its references is a string; split it into words first"
            )
