"""Words and their numbers, and images with sentences as examples of fixed shape."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets import data
from jaxnets.captioning import CaptionSource, Vocabulary, tokenize
from jaxnets.captioning.vocabulary import END, PAD, SPECIALS, START, UNKNOWN
from jaxnets.errors import InputError

words = st.lists(st.sampled_from(["dog", "cat", "runs", "red", "o'clock", "zwei"]), max_size=9)


class Told:
    """Images whose sentences are given."""

    image_shape = (2, 2, 1)

    def __init__(self, *captions):
        self.told = captions
        self.read = 0

    def __len__(self):
        return len(self.told)

    def __getitem__(self, index):
        self.read += 1
        return {"image": np.full((2, 2, 1), index, np.uint8), "label": np.int32(7)}

    def captions(self, index):
        return self.told[index]


def test_tokens_are_words_in_lower_case_without_punctuation():
    assert tokenize("A man's T-shirt, 2 dogs_and “Zoë”!") == [
        "a", "man's", "t", "shirt", "2", "dogs", "and", "zoë",
    ]  # fmt: skip
    assert tokenize("the dogs' don’t") == ["the", "dogs", "don't"]
    assert tokenize(" ... ") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("एक कुत्ता दौड़ता है।", ["एक", "कुत्ता", "दौड़ता", "है"]),  # vowels and viramas are marks
        ("cre\u0300me bru\u0302le\u0301e", ["crème", "brûlée"]),
        ("a snow\u00adboard", ["a", "snowboard"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # a joiner within a word
        ("ΟΔΟΣ, Straße", ["οδος", "straße"]),
        ("고양이가 잔다", ["고양이가", "잔다"]),
        ("猫が寝る。", ["猫", "が", "寝", "る"]),  # without spaces: a character is a word
        ("ที่นี่", ["ที่", "นี่"]),
        ("\u0301 ' \u200d", []),
    ],
)
def test_words_of_other_scripts_are_whole(text, words):
    assert tokenize(text) == [unicodedata.normalize("NFC", word) for word in words]


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_a_word_is_a_word_of_its_own_in_any_normal_form(text):
    found = tokenize(text)
    assert [own for word in found for own in tokenize(word)] == found
    assert tokenize(unicodedata.normalize("NFD", text)) == found


def test_turkish_has_an_i_with_and_one_without_a_dot(tmp_path):
    assert tokenize("IŞIK İzmir", "tr") == ["ışık", "izmir"]
    assert tokenize("IŞIK", "de") == ["işik"]
    vocabulary = Vocabulary.build(["IŞIK"], language="tr")
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == vocabulary
    assert vocabulary.decode(vocabulary.encode("Işık", 2)) == "ışık"
    with pytest.raises(InputError, match="language is 'Turkish'"):
        Vocabulary.build(["a"], language="Turkish")


def test_words_are_in_the_order_of_their_counts_and_rare_ones_are_unknown():
    captions = ["A dog runs.", "a dog", "The cat runs", "a bird"]
    vocabulary = Vocabulary.build(captions)
    assert vocabulary.words == (*SPECIALS, "a", "dog", "runs", "bird", "cat", "the")
    common = Vocabulary.build(captions, min_count=2)
    assert common.words == (*SPECIALS, "a", "dog", "runs")
    assert common.encode("a cat runs", 6).tolist() == [4, UNKNOWN, 6, END, PAD, PAD]
    assert common.decode([START, 4, UNKNOWN, 6, END, 5]) == "a <unknown> runs"


@settings(max_examples=50, deadline=None)
@given(words, st.integers(2, 8))
def test_a_sentence_comes_back_as_far_as_it_fits(sentence, length):
    vocabulary = Vocabulary.build(["dog cat runs red o'clock zwei"])
    numbers = vocabulary.encode(" ".join(sentence), length)
    assert numbers.shape == (length,)
    assert numbers.dtype == np.int32
    assert np.count_nonzero(numbers == END) == 1
    assert vocabulary.decode(numbers).split() == sentence[: length - 1]


def test_a_vocabulary_comes_back_from_its_file(tmp_path):
    vocabulary = Vocabulary.build(["zwei rote Bälle", "zwei"])
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == vocabulary
    with pytest.raises(InputError, match="holds no captioner"):
        Vocabulary.load(tmp_path / "elsewhere")
    for text in ("", '{"word": []}', "[1]"):
        (tmp_path / "vocabulary.json").write_text(text)
        with pytest.raises(InputError, match="is not a vocabulary"):
            Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text(json.dumps({"words": ["a", "b"]}))
    with pytest.raises(InputError, match="begins with <pad>"):
        Vocabulary.load(tmp_path)


def test_what_makes_no_vocabulary_is_named():
    with pytest.raises(InputError, match="they are empty"):
        Vocabulary.build(["", "..."])
    with pytest.raises(InputError, match="none of 2 words occurs 3 times"):
        Vocabulary.build(["a b", "a"], min_count=3)
    with pytest.raises(InputError, match="min_count is 0"):
        Vocabulary.build(["a"], min_count=0)
    with pytest.raises(InputError, match="'a' occurs more than once"):
        Vocabulary((*SPECIALS, "a", "a"))
    with pytest.raises(InputError, match="token 9 is out of range: there are 5 words"):
        Vocabulary.build(["a"]).decode([4, 9])


def test_examples_hold_every_sentence_padded():
    vocabulary = Vocabulary.build(["one two three"])
    source = CaptionSource(Told(("one",), ("two three", "three")), vocabulary, length=4)
    batch = next(data.eval_batches(source, 3))
    one, two, three = (vocabulary.words.index(word) for word in ("one", "two", "three"))
    assert batch["captions"].tolist() == [
        [[one, END, PAD, PAD], [PAD] * 4],
        [[two, three, END, PAD], [three, END, PAD, PAD]],
        [[PAD] * 4] * 2,
    ]
    assert set(batch) == {"image", "captions", "weight"}
    assert batch["weight"].tolist() == [1, 1, 0]
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 1, 0]
    assert source.references(1) == ("two three", "three")


def test_images_are_read_once_where_they_are_kept():
    told = Told(("a",), ("a",))
    source = CaptionSource(told, Vocabulary.build(["a"]), length=2, keep=True)
    for _ in range(3):
        assert [source[index]["image"][0, 0, 0] for index in (1, 0)] == [1, 0]
    assert told.read == 2


def test_captions_that_are_too_long_are_cut_and_counted(caplog):
    vocabulary = Vocabulary.build(["a b c d"])
    source = CaptionSource(Told(("a b", "a b c"), ("a b c d",)), vocabulary, length=3)
    assert "2 captions have more than 2 words" in caplog.text
    assert vocabulary.decode(source[1]["captions"][0]) == "a b"


def test_images_without_a_caption_are_refused():
    vocabulary = Vocabulary.build(["a"])
    with pytest.raises(InputError, match="2 of 3 images have no caption, the first is number 1"):
        CaptionSource(Told(("a",), (), ("?",)), vocabulary)
    with pytest.raises(InputError, match="no images"):
        CaptionSource(Told(), vocabulary)
    with pytest.raises(InputError, match="length is 1"):
        CaptionSource(Told(("a",)), vocabulary, length=1)
