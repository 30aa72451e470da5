"""Decoding of random next-token models, against enumerations in NumPy."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.captioning import decoding
from jaxnets.captioning.decoding import ensemble, greedy, likely_part, sample
from jaxnets.errors import InputError

UNITS, END, START = 6, 1, 2


def random_model(seed, vocabulary, sharpness=2.0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "recur": draw(UNITS, UNITS) / 2,
        "read": draw(vocabulary, UNITS),
        "write": draw(UNITS, vocabulary) * sharpness / np.sqrt(UNITS),
        "first": draw(3, UNITS),
    }


def step_of(model):
    model = jax.tree.map(jnp.asarray, model)

    def step(tokens, cache):
        h = jnp.tanh(cache["h"] @ model["recur"] + model["read"][tokens] + 0.1 * cache["age"][:, None])
        return h @ model["write"], {"h": h, "age": cache["age"] + 1}

    return step


def cache_of(model, batch):
    """A cache of two leaves of different rank; each row begins elsewhere."""
    return {"h": jnp.asarray(model["first"][:batch]), "age": jnp.zeros(batch)}


def start(batch):
    return jnp.full(batch, START)


def log_p_of_all(model, row, length, vocabulary):
    """Every sentence of at most `length` tokens that ends, and its log probability, in float64."""

    def extend(h, token, age, said, log_p):
        h = np.tanh(h @ model["recur"] + model["read"][token] + 0.1 * age)
        logits = (h @ model["write"]).astype(np.float64)
        following = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        for new in range(vocabulary):
            here = (*said, new)
            if new == END:
                yield here, log_p + following[new]
            elif len(here) < length:
                yield from extend(h, new, age + 1, here, log_p + following[new])

    return dict(extend(model["first"][row], START, 0, (), 0.0))


def trimmed(tokens):
    """Up to the first end."""
    tokens = np.asarray(tokens).tolist()
    return tuple(tokens[: tokens.index(END) + 1] if END in tokens else tokens)


def log_p_of(model, row, tokens):
    h, age, last, total = model["first"][row].astype(np.float64), 0, START, 0.0
    for token in trimmed(tokens):
        h = np.tanh(h @ model["recur"] + model["read"][last] + 0.1 * age)
        logits = h @ model["write"]
        total += logits[token] - np.log(np.exp(logits).sum())
        last, age = token, age + 1
    return total


@partial(jax.jit, static_argnames=("batch", "length"))
def write_greedily(model, batch, length):
    return greedy(step_of(model), cache_of(model, batch), start(batch), end=END, length=length)


@partial(jax.jit, static_argnames=("batch", "width", "length", "alpha"))
def search(model, batch, width, length, alpha=0.0):
    return decoding.beam_search(
        step_of(model), cache_of(model, batch), start(batch),
        width=width, end=END, length=length, alpha=alpha,
    )  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_beam_of_width_1_is_greedy(seed):
    model = random_model(seed, vocabulary=7)
    beams = search(model, batch=3, width=1, length=9)
    np.testing.assert_array_equal(beams.tokens[:, 0], write_greedily(model, batch=3, length=9))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 2.0]))
def test_a_beam_as_wide_as_there_are_sentences_is_exhaustive(seed, alpha):
    vocabulary, length = 4, 3
    model = random_model(seed, vocabulary)
    width = vocabulary**length
    beams = search(model, batch=2, width=width, length=length, alpha=alpha)
    for row in range(2):
        everything = {
            said: log_p / ((5 + len(said)) / 6) ** alpha
            for said, log_p in log_p_of_all(model, row, length, vocabulary).items()
        }
        ranked = sorted(everything.values(), reverse=True)
        np.testing.assert_allclose(beams.scores[row, : len(ranked)], ranked, rtol=1e-4, atol=1e-5)
        for tokens, score in zip(beams.tokens[row, : len(ranked)], ranked, strict=True):
            assert everything[trimmed(tokens)] == pytest.approx(score, rel=1e-4, abs=1e-5)
        # What the limit cut comes after everything that is finished.
        assert np.all(beams.scores[row, len(ranked) :] < -1e6)


def test_a_beam_of_width_5_scores_at_least_as_well_as_greedy():
    """No law, for pruning can lose the greedy path: it holds for 95 of 100 random models."""
    better = 0
    for seed in range(100):
        model = random_model(seed, vocabulary=12, sharpness=3.0)
        beam = log_p_of(model, 0, search(model, batch=1, width=5, length=12).tokens[0, 0])
        better += beam >= log_p_of(model, 0, write_greedily(model, batch=1, length=12)[0]) - 1e-5
    assert better >= 95


def test_scores_are_log_probabilities_best_first_and_no_sentence_comes_twice():
    model = random_model(3, vocabulary=8)
    beams = search(model, batch=3, width=4, length=10, alpha=0.7)
    for row in range(3):
        assert np.all(np.diff(beams.scores[row]) <= 0)
        assert len({trimmed(tokens) for tokens in beams.tokens[row]}) == 4
        for tokens, score in zip(beams.tokens[row], beams.scores[row], strict=True):
            if score > -1e6:
                said = trimmed(tokens)
                assert said[-1] == END
                assert np.all(np.asarray(tokens)[len(said) :] == 0)
                penalty = ((5 + len(said)) / 6) ** 0.7
                assert score == pytest.approx(log_p_of(model, row, tokens) / penalty, rel=1e-4)


def test_an_example_does_not_depend_on_the_others_of_its_batch():
    for seed in range(10):
        model = random_model(seed, vocabulary=9, sharpness=4.0)
        together = search(model, batch=3, width=3, length=12, alpha=0.5)
        for row in range(3):
            alone = {**model, "first": model["first"][row : row + 1]}
            by_itself = search(alone, batch=1, width=3, length=12, alpha=0.5)
            np.testing.assert_array_equal(together.tokens[row], by_itself.tokens[0])


def test_ends_do_not_starve_live_beams():
    """One of the two likeliest ends at once; were it a place of the beam, the third would be lost."""
    following = {START: [0, 0.5, 0, 0.3, 0.2], 3: [0, 0.5, 0, 0.5, 0], 4: [0, 1, 0, 0, 0]}
    table = jnp.log(jnp.array([following.get(token, [0.2] * 5) for token in range(5)]) + 1e-9)
    beams = jax.jit(
        lambda: decoding.beam_search(
            lambda tokens, cache: (table[tokens], cache), {}, start(1), width=2, end=END, length=3
        )
    )()
    assert [trimmed(tokens) for tokens in beams.tokens[0]] == [(END,), (4, END)]
    np.testing.assert_allclose(beams.scores[0], np.log([0.5, 0.2]), rtol=1e-5)


def test_a_beam_search_compiles_once_for_a_shape():
    traced = []

    @jax.jit
    def run(model):
        traced.append(1)
        return decoding.beam_search(
            step_of(model), cache_of(model, 2), start(2), width=5, end=END, length=6
        )

    for seed in range(3):
        run(random_model(seed, vocabulary=9))
    assert len(traced) == 1


def test_greedy_takes_the_likeliest_and_pads_after_the_end():
    model = random_model(11, vocabulary=6)
    for row, tokens in enumerate(np.asarray(write_greedily(model, batch=3, length=15))):
        said = trimmed(tokens)
        assert np.all(tokens[len(said) :] == 0)
        h, last = model["first"][row], START
        for age, token in enumerate(said):
            h = np.tanh(h @ model["recur"] + model["read"][last] + 0.1 * age)
            assert token == np.argmax(h @ model["write"])
            last = token


def test_samples_follow_the_models_probabilities():
    """A model without memory: token frequencies are its probabilities, and heat flattens them."""
    logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    count = 20_000

    def step(tokens, cache):
        return jnp.broadcast_to(logits, (len(tokens), 4)), cache

    def frequencies(**options):
        key = jax.random.key(0)
        drawn = jax.jit(lambda: sample(step, {}, start(count), key=key, end=END, length=1, **options))()
        return np.bincount(np.asarray(drawn)[:, 0], minlength=4) / count

    np.testing.assert_allclose(frequencies(), [0.1, 0.2, 0.3, 0.4], atol=0.015)
    hot = np.sqrt([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(frequencies(temperature=2.0), hot / hot.sum(), atol=0.015)
    np.testing.assert_allclose(frequencies(top_k=2), [0, 0, 3 / 7, 4 / 7], atol=0.015)
    np.testing.assert_allclose(frequencies(top_p=0.8), [0, 2 / 9, 3 / 9, 4 / 9], atol=0.015)


def test_sampling_from_the_likeliest_alone_is_greedy_and_steps_draw_anew():
    model = random_model(5, vocabulary=9, sharpness=1.0)

    def draw(**options):
        key = jax.random.key(3)
        return jax.jit(
            lambda: sample(
                step_of(model), cache_of(model, 3), start(3), key=key, end=END, length=8, **options
            )
        )()

    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        np.testing.assert_array_equal(draw(**narrow), write_greedily(model, batch=3, length=8))
    drawn = np.asarray(draw())
    assert len({tuple(row) for row in drawn}) == 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=6, max_size=6),
    st.sampled_from([None, 1, 4, 9]),
    st.one_of(st.none(), st.floats(0.05, 1.0)),
)
def test_the_likely_part_is_the_smallest_that_is_asked_for(logits, top_k, top_p):
    logits = np.array(logits, np.float32)
    kept = np.asarray(likely_part(jnp.asarray(logits), top_k, top_p)) > -1e6
    order = np.argsort(-logits, kind="stable")
    wanted = order if top_k is None else order[:top_k]
    if top_p is not None:
        p = np.exp(logits[wanted].astype(np.float64))
        sums = np.cumsum(p / p.sum())
        if np.abs(sums - top_p).min() < 1e-5:  # rounding may decide
            return
        wanted = wanted[: np.searchsorted(sums, top_p) + 1]
    assert sorted(np.flatnonzero(kept)) == sorted(wanted)


def test_an_ensemble_averages_log_probabilities():
    models = [random_model(seed, vocabulary=7) for seed in (1, 2)]
    step = ensemble([step_of(model) for model in models])
    caches = tuple(cache_of(model, 3) for model in models)
    averaged, new = jax.jit(step)(start(3), caches)
    apart = [jax.jit(step_of(m))(start(3), c) for m, c in zip(models, caches, strict=True)]
    wanted = np.mean([jax.nn.log_softmax(logits) for logits, _ in apart], axis=0)
    np.testing.assert_allclose(averaged, wanted, rtol=1e-5)
    for (_, cache), own in zip(apart, new, strict=True):
        np.testing.assert_array_equal(cache["h"], own["h"])
    twice = ensemble([step_of(models[0])] * 2)
    beams = jax.jit(
        lambda: decoding.beam_search(twice, (caches[0],) * 2, start(3), width=3, end=END, length=9)
    )()
    np.testing.assert_array_equal(beams.tokens, search(models[0], batch=3, width=3, length=9).tokens)


def test_what_cannot_be_decoded_is_named():
    step, cache = step_of(random_model(0, 4)), {}
    limits = {"end": END, "length": 3}
    for options, words in (
        ({"temperature": 0}, "temperature is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ):
        with pytest.raises(InputError, match=words):
            sample(step, cache, start(1), key=jax.random.key(0), **limits, **options)
    for options in ({"width": 0}, {"width": 2, "alpha": -1.0}):
        with pytest.raises(InputError, match="wanted 1 or more"):
            decoding.beam_search(step, cache, start(1), **limits, **options)
    with pytest.raises(InputError, match="at least one model"):
        ensemble([])
    assert len(list(itertools.islice(log_p_of_all(random_model(0, 3), 0, 2, 3), 9))) == 3
