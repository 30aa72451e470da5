"""The captioners: their equations, teacher forcing against stepping, and the parts they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_captioners import LENGTH, WORDS, draw, make_batch, make_task

from jaxnets.captioning import Vocabulary, create_captioner
from jaxnets.captioning.vocabulary import START
from jaxnets.errors import InputError
from jaxnets.models import model_info

NAMES = ("show_and_tell", "lrcn", "show_attend_tell")
RNG = np.random.default_rng(1)
FEATURES = RNG.normal(size=(3, 9, 7)).astype(np.float32)
TOKENS = RNG.integers(3, WORDS, (3, LENGTH)).astype(np.int32)


def decoder_of(name, **settings):
    """The decoder of a small captioner, and parameters that are all drawn."""
    task = make_task(name, decoder=settings)
    return task.model.decoder, draw(task, make_batch())["params"]["decoder"]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def lstm(p, x, carry):
    c, h = carry
    i, f, g, o = (
        x @ p[f"i{k}"]["kernel"] + h @ p[f"h{k}"]["kernel"] + p[f"h{k}"]["bias"] for k in "ifgo"
    )
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def show_and_tell_by_hand(p, features, tokens):
    zeros = np.zeros((len(features), 8))
    carry = lstm(p["lstm"]["layer0"], dense(p["image"], features.mean(1)), (zeros, zeros))
    for token in tokens.T:
        carry = lstm(p["lstm"]["layer0"], p["embedding"]["embedding"][token], carry)
        yield dense(p["logits"], carry[1]), None


def lrcn_by_hand(p, features, tokens, factored=True):
    zeros = np.zeros((len(features), 8))
    lower = upper = (zeros, zeros)
    image = dense(p["image"], features.mean(1))
    for token in tokens.T:
        word = p["embedding"]["embedding"][token]
        below = word if factored else np.concatenate([word, image], -1)
        lower = lstm(p["lower"]["layer0"], below, lower)
        above = np.concatenate([lower[1], image], -1) if factored else lower[1]
        upper = lstm(p["upper"]["layer0"], above, upper)
        yield dense(p["logits"], upper[1]), None


def show_attend_tell_by_hand(p, features, tokens, gate=True, hard=False):
    mean = features.mean(1)
    carry = np.tanh(dense(p["start_c"], mean)), np.tanh(dense(p["start_h"], mean))
    for token in tokens.T:
        h = carry[1]
        hidden = np.tanh(dense(p["score_place"], features) + dense(p["score_state"], h)[:, None])
        e = dense(p["score"], hidden)[..., 0]
        alpha = np.exp(e) / np.exp(e).sum(1, keepdims=True)
        weights = np.eye(features.shape[1])[alpha.argmax(1)] if hard else alpha
        context = (weights[..., None] * features).sum(1)
        if gate:
            context = sigmoid(dense(p["beta"], h)) * context
        word = p["words"]["embedding"][token]
        carry = lstm(p["lstm"], np.concatenate([word, context], -1), carry)
        deep = word + dense(p["output_state"], carry[1]) + dense(p["output_context"], context)
        yield dense(p["logits"], deep), alpha


@pytest.mark.parametrize(
    ("name", "settings", "by_hand", "options"),
    [
        ("show_and_tell", {}, show_and_tell_by_hand, {}),
        ("lrcn", {}, lrcn_by_hand, {}),
        ("lrcn", {"factored": False}, lrcn_by_hand, {"factored": False}),
        ("show_attend_tell", {}, show_attend_tell_by_hand, {}),
        (
            "show_attend_tell",
            {"attention": "hard", "gate": False},
            show_attend_tell_by_hand,
            {"hard": True, "gate": False},
        ),
    ],
)
def test_a_decoder_computes_its_papers_equations(name, settings, by_hand, options):
    """Whole sentences at once, and word by word."""
    decoder, p = decoder_of(name, **settings)
    logits, looks = jax.jit(decoder.apply)({"params": p}, FEATURES, TOKENS)
    wanted, attention = zip(*by_hand(p, FEATURES, TOKENS, **options), strict=True)
    np.testing.assert_allclose(logits, np.stack(wanted, 1), atol=2e-5)
    if attention[0] is not None:
        np.testing.assert_allclose(looks["attention"], np.stack(attention, 1), atol=1e-5)
    else:
        assert looks == {}

    cache = decoder.apply({"params": p}, FEATURES, method="start")
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(cache))
    step = jax.jit(lambda c, t: decoder.apply({"params": p}, FEATURES, c, t, method="step"))
    for t in range(LENGTH):
        cache, logits, _ = step(cache, TOKENS[:, t])
        np.testing.assert_allclose(logits, wanted[t], atol=2e-5)


def test_a_captioner_reads_the_start_sign_and_the_words_before():
    task, batch = make_task("show_and_tell"), make_batch()
    variables = draw(task, batch)
    features = task.encode(variables, batch)
    tokens = np.random.default_rng(0).integers(3, WORDS, (5, LENGTH)).astype(np.int32)
    logits, _ = task.model.apply(variables, features, tokens, method="decode")
    shifted = np.concatenate([np.full((5, 1), START, np.int32), tokens[:, :-1]], 1)
    decoder = {"params": variables["params"]["decoder"]}
    np.testing.assert_allclose(
        logits, task.model.decoder.apply(decoder, features, shifted)[0], atol=1e-6
    )


@pytest.mark.slow
def test_scheduled_sampling_reads_own_words_at_its_rate():
    task = make_task("show_attend_tell")
    batch = make_batch()
    variables = draw(task, batch)
    features = task.encode(variables, batch)
    tokens = batch["captions"][:, 0]

    @jax.jit
    def decode(rate, seed):
        rngs = {"sampling": jax.random.key(seed)}
        return task.model.apply(
            variables, features, tokens, sampling_rate=rate, method="decode", rngs=rngs
        )[0]

    forced = task.model.apply(variables, features, tokens, method="decode")[0]
    np.testing.assert_allclose(decode(0.0, 1), forced, atol=2e-5)
    own = decode(1.0, 1)
    np.testing.assert_allclose(own[:, 0], forced[:, 0], atol=2e-5)  # after the start sign
    assert np.abs(own - forced)[:, 2:].max() > 1e-3
    assert np.abs(own - decode(1.0, 2))[:, 2:].max() > 1e-3


def test_create_captioner_puts_any_backbone_and_decoder_together():
    vocabulary = Vocabulary.build(["a dog runs"])
    settings = {"block": "basic", "depths": (1, 1, 1), "widths": (4, 6, 8), "stem_width": 4}
    captioner = create_captioner(
        "show_attend_tell", "resnetv2_50", vocabulary, feature="stage2",
        backbone_settings=settings, features=8, embedding=8, attention_features=8,
    )  # fmt: skip
    images, tokens = jnp.zeros((2, 64, 48, 3)), jnp.zeros((2, 5), jnp.int32)
    variables = jax.eval_shape(captioner.init, jax.random.key(0), images, tokens)
    assert set(variables["params"]) == {"backbone", "decoder"}
    logits, looks = jax.eval_shape(captioner.apply, variables, images, tokens)
    assert (logits.shape, logits.dtype) == ((2, 5, len(vocabulary)), jnp.float32)
    assert looks["attention"].shape == (2, 5, 8 * 6)


@pytest.mark.parametrize("backbone", ["lenet5", "mlp", "vit_base_patch16_224", "resnet18"])
def test_features_are_places_whatever_the_map(backbone):
    captioner = create_captioner("show_and_tell", backbone, 9, features=4)
    images = jnp.zeros((1, *model_info(backbone).input_size))
    variables = jax.eval_shape(captioner.init, jax.random.key(0), images, jnp.zeros((1, 3), int))
    features = jax.eval_shape(lambda v: captioner.apply(v, images, method="encode"), variables)
    assert len(features.shape) == 3


@pytest.mark.parametrize("name", NAMES)
def test_captioners_follow_bfloat16(name):
    task, batch = make_task(name, dropout=0.2), make_batch()
    variables = draw(task, batch)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])

    def loss(p):
        return task.loss({**variables, "params": p}, batch, jax.random.key(0))

    (value, _), grads = jax.eval_shape(jax.value_and_grad(loss, has_aux=True), params)
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: create_captioner("show_and_tel"), "unknown captioner 'show_and_tel'"),
        (lambda: create_captioner("lrcn", "resnet5"), "unknown model 'resnet5'"),
        (lambda: create_captioner("lrcn", gate=True), "lrcn has no setting 'gate'; known: features"),
        (
            lambda: create_captioner("show_attend_tell", attention="firm"),
            "unknown attention 'firm'",
        ),
        (lambda: create_captioner("lrcn", features="abc"), "features: wanted an integer, 1 or more"),
        (lambda: create_captioner("lrcn", dropout=2.0), "dropout: wanted a probability"),
        (
            lambda: create_captioner("lrcn", "lenet5", feature="conv9").init(
                jax.random.key(0), jnp.zeros((1, 32, 32, 1)), TOKENS[:1]
            ),
            "unknown feature 'conv9'",
        ),
        (
            lambda: create_captioner("lrcn", "resnet18").init(
                jax.random.key(0), jnp.zeros((1, 16, 16, 3)), TOKENS[:1]
            ),
            "sides of at least 32",
        ),
    ],
)
def test_what_makes_no_captioner_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
