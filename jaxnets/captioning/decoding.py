"""Decoding from any next-token model: greedy decoding, sampling and beam search.

A model is a `step(tokens i32[B], cache) -> (logits f32[B, V], cache)` whose cache is any pytree of
arrays with leading axis B. The functions here are pure and compile once per shape. Sequences are
i32[B, length]: the tokens, the end token if it was reached, and padding.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.errors import InputError

Cache = Any
Step = Callable[[jax.Array, Cache], tuple[jax.Array, Cache]]

NEG_INF = -1e7  # not -inf, so that sums and differences stay finite


class Beams(NamedTuple):
    """The result of a beam search, best first.

    Attributes:
        tokens: i32[B, width, length].
        scores: f32[B, width], log probabilities divided by the length penalty. If there are fewer than
            `width` finished sequences, sequences truncated at `length` follow, with scores lowered
            by 1e7.
    """

    tokens: jax.Array
    scores: jax.Array


def greedy(
    step: Step, cache: Cache, start: jax.Array, *, end: int, length: int, pad: int = 0
) -> jax.Array:
    """Greedy decoding: takes the most likely token at each step.

    Args:
        step: the model.
        cache: its state before the first step.
        start: i32[B], the first tokens that it reads.
        end: the token that ends a sequence.
        length: maximum number of tokens.
        pad: the token after the end of a sequence.

    Returns:
        i32[B, length].
    """
    return _write(step, cache, start, lambda logits, _: jnp.argmax(logits, axis=-1), end, length, pad)


def sample(
    step: Step,
    cache: Cache,
    start: jax.Array,
    *,
    key: jax.Array,
    end: int,
    length: int,
    temperature: float | jax.Array = 1.0,
    top_k: int | None = None,
    top_p: float | jax.Array | None = None,
    pad: int = 0,
) -> jax.Array:
    """Samples each token from the model's distribution, optionally truncated to likely tokens.

    Args:
        step, cache, start, end, length, pad: as for `greedy`.
        key: a PRNG key.
        temperature: divides the logits; values below 1 favor likely tokens.
        top_k: sample from this many most likely tokens (Fan et al. 2018); None for all.
        top_p: sample from the smallest set of tokens with at least this total probability (nucleus
            sampling: Holtzman et al. 2019, section 3.1), after the temperature; None for all.

    Returns:
        i32[B, length].

    Raises:
        InputError: a number out of range.
    """
    if isinstance(temperature, int | float) and temperature <= 0:
        raise InputError(f"temperature is {temperature}; it must be above 0. Use greedy instead of 0")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}; it must be 1 or more")
    if isinstance(top_p, int | float) and not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p}; it must be above 0 and at most 1")

    def choose(logits, number):
        logits = likely_part(logits / temperature, top_k, top_p)
        return jax.random.categorical(jax.random.fold_in(key, number), logits)

    return _write(step, cache, start, choose, end, length, pad)


def likely_part(
    logits: jax.Array, top_k: int | None = None, top_p: float | jax.Array | None = None
) -> jax.Array:
    """Logits f32[..., V] with those outside of the `top_k` and the nucleus `top_p` set to -1e7.

    The most likely token is always kept; ties are broken by the lower index.
    """
    order = jnp.argsort(logits, axis=-1, descending=True, stable=True)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    keep = jnp.ones(logits.shape, bool)
    if top_k is not None:
        keep &= jnp.expand_dims(jnp.arange(logits.shape[-1]), tuple(range(logits.ndim - 1))) < top_k
    if top_p is not None:
        p = jax.nn.softmax(jnp.where(keep, ranked, NEG_INF), axis=-1)
        keep &= (jnp.cumsum(p, axis=-1) - p < top_p) & keep
    back = jnp.argsort(order, axis=-1)
    return jnp.where(jnp.take_along_axis(keep, back, axis=-1), logits, NEG_INF)


def beam_search(
    step: Step,
    cache: Cache,
    start: jax.Array,
    *,
    width: int,
    end: int,
    length: int,
    alpha: float = 0.0,
    pad: int = 0,
) -> Beams:
    """Beam search: keeps the `width` most likely prefixes at each step.

    Live and finished beams are kept separately. Of the 2 * width candidates of a step, those among the
    first `width` that end are finished, and the best of the others stay live, so that finished beams
    cannot crowd out live ones. An example is done when no live beam can still beat its worst finished
    beam. The score is log p / ((5 + L) / 6)^alpha, with L the number of tokens including the end (Wu
    et al. 2016, "Google's Neural Machine Translation System", equation 14; without its coverage
    penalty). With alpha = 0, a width of 1 is greedy decoding; with alpha > 0 it may continue where
    greedy decoding stops.

    Args:
        step: the model; it is called with B * width rows, the beams of an example adjacent.
        cache: its state before the first step, leading axis B.
        start: i32[B], the first tokens that it reads.
        width: number of beams.
        end: the token that ends a sequence.
        length: maximum number of tokens, including the end.
        alpha: exponent of the length penalty; 0 for none.
        pad: the token after the end of a sequence.

    Raises:
        InputError: a width or length below 1, or a negative alpha.
    """
    if width < 1 or length < 1 or alpha < 0:
        raise InputError(
            f"width={width}, length={length}, alpha={alpha}: wanted 1 or more, 1 or more, 0 or more"
        )
    batch = start.shape[0]

    def penalty(tokens):
        return ((5 + tokens) / 6) ** alpha

    def flat(tree):
        return jax.tree.map(lambda leaf: leaf.reshape(batch * width, *leaf.shape[2:]), tree)

    def pick(tree, beams):
        """Gathers rows [B, n] of leaves [B, m, ...]."""
        return jax.tree.map(
            lambda leaf: jnp.take_along_axis(
                leaf, beams.reshape(*beams.shape, *[1] * (leaf.ndim - 2)), 1
            ),
            tree,
        )

    def unsettled(state):
        """Whether a live beam could still beat the worst finished one, for each example."""
        best_to_come = state["live_log_p"][:, 0] / penalty(length)
        return (state["scores"][:, -1] < best_to_come) & (state["number"] < length)

    def advance(state):
        number, active = state["number"], unsettled(state)
        logits, cache = step(state["last"].reshape(-1), flat(state["cache"]))
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(batch, width, -1)
        vocabulary = log_p.shape[-1]
        totals = (state["live_log_p"][:, :, None] + log_p).reshape(batch, -1)
        count = min(2 * width, width * vocabulary)
        totals, places = lax.top_k(totals, count)
        beams, tokens = places // vocabulary, (places % vocabulary).astype(jnp.int32)
        written = pick(state["written"], beams).at[:, :, number].set(tokens)

        ends = tokens == end
        first_few, longer = jnp.arange(count)[None] < width, (number + 1).astype(jnp.float32)
        ended = jnp.where(ends & first_few, totals / penalty(longer), NEG_INF)
        scores = jnp.concatenate([state["scores"], ended], axis=1)
        scores, best = lax.top_k(scores, width)
        finished = pick(jnp.concatenate([state["finished"], written], axis=1), best)

        live_log_p, best = lax.top_k(jnp.where(ends, NEG_INF, totals), width)
        cache = jax.tree.map(lambda leaf: leaf.reshape(batch, width, *leaf.shape[1:]), cache)
        new = {
            "cache": pick(cache, pick(beams, best)),
            "live_log_p": live_log_p,
            "written": pick(written, best),
            "last": pick(tokens, best),
            "scores": scores,
            "finished": finished,
        }
        # Examples that are done stay unchanged while others of the batch continue.
        new = {
            name: jax.tree.map(
                lambda a, b: jnp.where(active.reshape(-1, *[1] * (a.ndim - 1)), a, b), value, state[name]
            )
            for name, value in new.items()
        }
        return {**new, "number": number + 1}

    first = {
        "number": jnp.zeros((), jnp.int32),
        "cache": jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[:, None], width, axis=1), cache),
        # Start with a single beam: identical beams would stay identical.
        "live_log_p": jnp.full((batch, width), NEG_INF, jnp.float32).at[:, 0].set(0.0),
        "written": jnp.full((batch, width, length), pad, jnp.int32),
        "last": jnp.repeat(jnp.asarray(start, jnp.int32)[:, None], width, axis=1),
        "scores": jnp.full((batch, width), NEG_INF, jnp.float32),
        "finished": jnp.full((batch, width, length), pad, jnp.int32),
    }
    state = lax.while_loop(lambda state: jnp.any(unsettled(state)), advance, first)
    # Finished sequences by score, then truncated ones by score, then slots that were never filled.
    cut = state["live_log_p"] / penalty(length)
    scores = jnp.concatenate([state["scores"], cut], axis=1)
    kind = jnp.concatenate([jnp.where(state["scores"] > NEG_INF, 0, 2), jnp.ones_like(cut)], axis=1)
    best = jnp.lexsort((-scores, kind))[:, :width]
    tokens = pick(jnp.concatenate([state["finished"], state["written"]], axis=1), best)
    scores = jnp.where(pick(kind, best) == 0, pick(scores, best), pick(scores, best) + NEG_INF)
    return Beams(tokens, scores)


def ensemble(steps: Sequence[Step]) -> Step:
    """Combines several models with the same vocabulary by averaging their log probabilities.

    The cache is the tuple of their caches.

    Raises:
        InputError: no models.
    """
    if not steps:
        raise InputError("steps: an ensemble needs at least one model")

    def step(tokens, caches):
        outputs = [own(tokens, cache) for own, cache in zip(steps, caches, strict=True)]
        log_p = [jax.nn.log_softmax(logits.astype(jnp.float32)) for logits, _ in outputs]
        return sum(log_p) / len(log_p), tuple(cache for _, cache in outputs)

    return step


def _write(step, cache, start, choose, end, length, pad):
    """Decodes token by token; `choose(logits, number)` selects the next token."""

    def unfinished(state):
        number, _, _, done, _ = state
        return (number < length) & ~jnp.all(done)

    def advance(state):
        number, tokens, cache, done, written = state
        logits, cache = step(tokens, cache)
        tokens = jnp.where(done, pad, choose(logits.astype(jnp.float32), number)).astype(jnp.int32)
        return number + 1, tokens, cache, done | (tokens == end), written.at[:, number].set(tokens)

    start = jnp.asarray(start, jnp.int32)
    state = (
        jnp.zeros((), jnp.int32),
        start,
        cache,
        jnp.zeros(start.shape[0], bool),
        jnp.full((start.shape[0], length), pad, jnp.int32),
    )
    return lax.while_loop(unfinished, advance, state)[-1]
