"""What is drawn anew for each step: sentences, words, colors."""

import jax
import numpy as np
from small_captioners import make_batch

from jaxnets.captioning.noise import choose, recolored, with_word_noise

KEY = jax.random.key(0)


def test_each_step_learns_one_of_the_sentences_drawn_anew():
    captions = make_batch(count=3)["captions"]
    captions[2] = captions[2, ::-1]  # the last image has one sentence, here in the second place
    drawn = jax.jit(jax.vmap(choose, (0, None)))(jax.random.split(KEY, 60), captions)
    drawn = np.asarray(drawn)
    for n, given in enumerate(captions):
        counts = [np.sum((drawn[:, n] == sentence).all(1)) for sentence in given]
        assert sum(counts) == 60
        assert counts[0] == 0 if n == 2 else 15 < counts[0] < 45


def test_word_noise_reads_words_of_the_same_place_of_other_sentences():
    captions = np.arange(40, dtype=np.int32).reshape(10, 4)  # whose columns share no word
    noisy = jax.jit(jax.vmap(with_word_noise, (0, None, None)))
    keys = jax.random.split(KEY, 50)
    assert (np.asarray(noisy(keys, captions, 0.0)) == captions).all()
    swapped = np.asarray(noisy(keys, captions, 1.0)[0])
    np.testing.assert_array_equal(np.sort(swapped, axis=0), captions)
    assert (swapped != captions).any(1).sum() > 5
    some = np.mean(np.asarray(noisy(keys, captions, 0.5)) != captions)
    assert 0.35 < some < 0.5  # half of the words, of which a tenth are their own


def test_a_share_of_the_images_is_recolored_and_the_others_stay():
    images = np.random.default_rng(0).random((400, 3, 4, 3), np.float32)
    recolor = jax.jit(recolored)
    got, chosen = recolor(KEY, images, 0.3)
    np.testing.assert_array_equal((np.asarray(got) != images).any((1, 2, 3)), chosen)
    assert abs(np.mean(chosen) - 0.3) < 0.07
    first, second = np.flatnonzero(chosen)[:2]
    same = np.tile(images[:1], (400, 1, 1, 1))
    got = np.asarray(recolor(KEY, same, 0.3)[0])
    assert (got[first] != got[second]).all()  # each in a way of its own
