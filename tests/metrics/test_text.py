"""Scores of sentences equal those of pycocoevalcap and sacrebleu; goldens by make_text_goldens.py."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.errors import InputError
from jaxnets.metrics import text

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens/data/text_metrics.json").read_text())

sentences = st.lists(st.sampled_from("abcd"), min_size=1, max_size=7)


@pytest.mark.parametrize("name", GOLDENS)
def test_scores_equal_the_references(name):
    case = GOLDENS[name]
    corpus = case["hypotheses"], case["references"]
    bleu = text.bleu(*corpus)
    expected = np.array(case["bleu"])
    matched = expected > 1e-3  # pycocoevalcap smooths what matches nowhere
    np.testing.assert_allclose(np.array(bleu)[matched], expected[matched], rtol=1e-6)
    assert matched[:3].all()
    assert bleu[3] == pytest.approx(case["sacrebleu"], rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(text.rouge_l(*corpus), case["rouge_l"], rtol=1e-6)
    np.testing.assert_allclose(text.cider_d(*corpus), case["cider_d"], rtol=1e-6, atol=1e-9)


def test_the_goldens_bite():
    for name in ("sentences", "short", "long"):
        assert np.std(GOLDENS[name]["cider_d"]) > 0.5
    assert GOLDENS["sentences"]["bleu"][3] > 0.1


def test_cider_by_hand():
    hypotheses = [["red", "red", "dog"], ["cat"]]
    references = [[["red", "dog"]], [["blue", "cat"]]]
    # Every word is in one document of two, so that each weighs log 2; lengths cancel in the cosine.
    unigram = (2 * 1 + 1 * 1) / (math.sqrt(2**2 + 1) * math.sqrt(2))
    bigram = 1 / math.sqrt(2)  # "red red" and "red dog" against "red dog"
    assert text.cider(hypotheses, references)[0] == pytest.approx(10 * (unigram + bigram) / 4)
    clipped = (1 * 1 + 1 * 1) / (math.sqrt(5) * math.sqrt(2))
    penalty = math.exp(-1 / 72)
    assert text.cider_d(hypotheses, references)[0] == pytest.approx(
        10 * penalty * (clipped + bigram) / 4
    )


def test_a_perfect_corpus_and_an_image_alone():
    words = [f"w{i} x{i} y{i} z{i} end".split() for i in range(3)]
    perfect = text.scores(words, [[own] for own in words])
    assert perfect == pytest.approx(
        {"bleu1": 1, "bleu2": 1, "bleu3": 1, "bleu4": 1, "rouge_l": 1, "cider": 10, "cider_d": 10}
        | {"exact": 1}
    )
    assert text.cider_d(words[:1], [words[:1]]) == [0]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=1, max_size=5)
)
def test_scores_stay_in_their_ranges_and_do_not_depend_on_the_order_of_references(corpus):
    hypotheses, references = zip(*corpus, strict=True)
    found = text.scores(hypotheses, references)
    turned = text.scores(hypotheses, [own[::-1] for own in references])
    assert found == pytest.approx(turned)
    for name, value in found.items():
        assert -1e-9 <= value <= (10 if name.startswith("cider") else 1) + 1e-9
    assert found["cider_d"] <= found["cider"] + 1e-9


def test_an_empty_sentence_scores_nothing():
    found = text.scores([[], ["a", "b"]], [[["a"]], [["a", "b"]]])
    assert found["exact"] == 0.5
    assert found["rouge_l"] == 0.5
    assert text.bleu([[]], [[["a"]]]) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("hypotheses", "references", "words"),
    [
        ([], [], "at least one"),
        ([["a"]], [], "1 hypotheses and 0 sets"),
        ([["a"]], [[]], "hypothesis 0 has no reference"),
        (["a dog"], [[["a"]]], "split it into words"),
        ([["a"]], [["a dog"]], "split it into words"),
    ],
)
def test_what_cannot_be_scored_is_named(hypotheses, references, words):
    with pytest.raises(InputError, match=words):
        text.scores(hypotheses, references)
