"""The captioning task: what a loss is made of, what a frozen backbone is, and that `fit` learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_captioners import LENGTH, WORDS, draw, make_batch, make_task

from jaxnets import training
from jaxnets.captioning import (
    CaptionSource,
    Vocabulary,
    Writer,
    cache_features,
    evaluate_captions,
    write_captions,
)
from jaxnets.captioning.vocabulary import END, PAD, START
from jaxnets.data.dataset import read_batch
from jaxnets.errors import InputError

KEY = jax.random.key(0)


def single_sentences(batch):
    """Only the first sentence of each image, so that there is nothing to draw."""
    return {**batch, "captions": batch["captions"][:, :1]}


def with_features(task, variables, batch):
    """The batch with its features in place of its images: they know no batch statistics."""
    features = task.encode(variables, batch)
    return {"features": features, "captions": batch["captions"], "weight": batch["weight"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["show_and_tell", "lrcn", "show_attend_tell"])
def test_a_padded_batch_is_its_sentences_one_by_one(name):
    task = make_task(name, frozen=True)
    batch = single_sentences(make_batch(count=4))
    batch["captions"][1, 0] = [7, 5, END, PAD, PAD, PAD]
    batch["captions"][2, 0] = [4, 8, END, PAD, PAD, PAD]
    variables = draw(task, batch)
    # The last example is padding: it adds nothing, whatever is in it.
    batch = with_features(task, variables, batch)
    batch |= {
        "features": batch["features"].at[3].set(1e3),
        "weight": np.array([1, 1, 1, 0], np.float32),
    }

    @jax.jit
    def gradient(batch):
        def loss(params):
            value, (_, sums) = task.loss({**variables, "params": params}, batch, KEY)
            return value * sums["loss"].weight, sums

        return jax.grad(loss, has_aux=True)(variables["params"])

    grads, sums = gradient(batch)
    parts = []
    for n in range(3):
        alone = {name: values[n : n + 1] for name, values in batch.items()}
        parts.append(gradient({**alone, "captions": alone["captions"][:, :, :3]}))
    added_grads, added = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    np.testing.assert_allclose(sums["loss"].total, added["loss"].total, rtol=1e-5)
    assert sums["loss"].weight == added["loss"].weight == 7
    np.testing.assert_allclose(sums["top1"].total, added["top1"].total)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads))
    for mine, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(added_grads), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * scale)


def test_the_loss_is_the_negative_log_probability_of_a_word_and_the_penalty():
    batch = single_sentences(make_batch())
    task = make_task("show_attend_tell", frozen=True, attention_penalty=0.7)
    variables = draw(task, batch)
    value, (_, sums) = jax.jit(task.loss)(variables, batch, KEY)
    features, tokens = task.encode(variables, batch), batch["captions"][:, 0]
    logits, _ = task.model.apply(task.joined(variables), features, tokens, method="decode")
    alpha = task.attention(variables, features, tokens)
    real, total = tokens != PAD, 0.0
    log_p = np.asarray(jax.nn.log_softmax(logits))
    for n, t in zip(*np.nonzero(real), strict=True):
        total -= log_p[n, t, tokens[n, t]]
    seen = (np.asarray(alpha) * real[..., None]).sum(1)
    total += 0.7 * np.square(1 - seen).sum()
    assert value == pytest.approx(total / real.sum(), rel=1e-5)
    right = (log_p.argmax(-1) == tokens)[real].mean()
    assert sums["top1"].compute() == pytest.approx(right)


@pytest.mark.slow
def test_hard_attention_follows_the_score_function_gradient():
    """Averaged over many draws, the surrogate's gradient is that of the expected loss."""
    task = make_task(
        "show_attend_tell", decoder={"attention": "hard"}, frozen=True,
        attention_penalty=0.0, entropy_weight=0.0,
    )  # fmt: skip
    count, captions = 30_000, np.array([[[5, END]]], np.int32)
    variables = draw(task, {**make_batch(count=1), "captions": captions})
    params = variables["params"]
    features = 2 * jax.random.normal(KEY, (1, 2, 7))
    many = {"features": jnp.repeat(features, count, 0), "captions": np.repeat(captions, count, 0)}
    # Any baseline gives the same mean; one near the mean reward, as training has, little noise.
    gradient = jax.jit(
        jax.grad(lambda p, rest: task.loss({**rest, "params": p}, many, KEY), has_aux=True)
    )
    _, (collections, sums) = gradient(params, variables)
    # The running mean takes in a tenth of each step's.
    running = -0.1 * 2 * sums["loss"].compute()
    assert collections["progress"]["log_likelihood"] == pytest.approx(running, rel=1e-4)
    assert collections["progress"]["steps"] == 1
    variables["progress"]["log_likelihood"] = -2 * sums["loss"].compute().astype(np.float32)
    mean, _ = gradient(params, variables)

    def expected(params):
        """By enumeration: two words, each with one of two places or (half the time) the mean."""
        decoder = task.model.decoder.bind({"params": params["decoder"]})
        keys = decoder.score_place(features)

        def step(cache, token, choice):
            hidden = jnp.tanh(keys + decoder.score_state(cache[1])[:, None])
            alpha = jax.nn.softmax(decoder.score(hidden)[0, :, 0])
            weights, p = (alpha, 0.5) if choice == 2 else (jnp.eye(2)[choice], 0.5 * alpha[choice])
            context = jax.nn.sigmoid(decoder.beta(cache[1])) * (weights @ features[0])[None]
            word = decoder.words(token)
            cache, h = decoder.lstm(cache, jnp.concatenate([word, context], -1))
            deep = word + decoder.output_state(h) + decoder.output_context(context)
            return cache, jax.nn.log_softmax(decoder.logits(deep))[0], p

        total = 0.0
        for one in range(3):
            cache, first, p = step(decoder.start(features), jnp.array([START]), one)
            for two in range(3):
                _, second, q = step(cache, jnp.array([5]), two)
                total += p * q * -(first[5] + second[END])
        return total / 2  # a word

    wanted = jax.jit(jax.grad(expected))(params)
    for name in ("score", "score_place", "score_state", "logits", "beta"):
        mine, theirs = (tree["decoder"][name]["kernel"] for tree in (mean, wanted))
        scale = float(jnp.abs(theirs).max())
        assert scale > 1e-3
        np.testing.assert_allclose(mine, theirs, atol=0.05 * scale)


@pytest.mark.slow
def test_scheduled_sampling_sees_the_step_and_none_is_teacher_forcing():
    rates = []
    task = make_task("lrcn", frozen=True, scheduled_sampling=lambda step: rates.append(step) or step)
    forced = make_task("lrcn", frozen=True)
    batch = single_sentences(make_batch())
    variables = draw(task, batch)
    loss = jax.jit(task.loss)
    first, (collections, _) = loss(variables, batch, KEY)
    plain = {name: v for name, v in variables.items() if name != "progress"}
    np.testing.assert_allclose(first, jax.jit(forced.loss)(plain, batch, KEY)[0], rtol=1e-5)
    assert collections["progress"]["steps"] == 1
    second, (collections, _) = loss({**variables, **collections}, batch, KEY)
    assert collections["progress"]["steps"] == 2
    assert abs(second - first) > 1e-4
    assert len(rates) == 1  # traced once: the rate is an array


def test_only_the_first_sentence_is_learned_where_so_asked():
    batch = make_batch()
    drawn, first = make_task("show_and_tell"), make_task("show_and_tell", first_sentence=True)
    variables = draw(drawn, batch)
    alone = jax.jit(drawn.loss)(variables, single_sentences(batch), KEY)[0]
    loss = jax.jit(first.loss)
    for seed in range(3):
        found = float(loss(variables, batch, jax.random.key(seed))[0])
        assert found == pytest.approx(float(alone), rel=1e-6)


def test_the_loss_with_word_noise_is_of_the_true_words_after_other_ones():
    """Sentences of the same words are the same under noise; the first word follows the start sign."""
    batch = single_sentences(make_batch())
    batch["captions"][:] = [5, 7, 4, END, PAD, PAD]
    plain, noisy = (make_task("show_and_tell", word_noise=rate) for rate in (0.0, 0.9))
    variables = draw(plain, batch)
    losses = [jax.jit(task.loss) for task in (plain, noisy)]
    same = [float(loss(variables, batch, KEY)[0]) for loss in losses]
    assert same[0] == pytest.approx(same[1], rel=1e-6)
    batch["captions"][0] = [6, 8, 9, END, PAD, PAD]
    other = [float(loss(variables, batch, KEY)[0]) for loss in losses]
    assert other[0] != pytest.approx(other[1], rel=1e-4)


def test_of_recolored_images_all_words_but_colors_are_learned():
    batch = single_sentences(make_batch())
    batch["captions"][:] = [5, 7, 4, END, PAD, PAD]
    tasks = [make_task("show_and_tell", recolor=rate, color_words=(7, 8)) for rate in (0.0, 0.5, 1.0)]
    variables = draw(tasks[0], batch)
    keys = jax.random.split(KEY, 20)

    def count_words(task):
        one = lambda key: task.loss(variables, batch, key)[1][1]["loss"].weight  # noqa: E731
        return jax.jit(lambda: jax.lax.map(one, keys))()

    words = [count_words(task).tolist() for task in tasks]
    count = len(batch["image"])
    assert set(words[0]) == {4 * count}
    assert set(words[2]) == {3 * count}
    assert 3 * count < np.mean(words[1]) < 4 * count


@pytest.mark.slow
def test_the_gradient_of_recolored_images_knows_no_color_word():
    batch = single_sentences(make_batch())
    other = {**batch, "captions": batch["captions"].copy()}
    batch["captions"][:] = [5, 7, END, PAD, PAD, PAD]
    other["captions"][:] = [5, 8, END, PAD, PAD, PAD]
    # The word is read by what follows it: one step is taken, and the end is left out, too.
    task = make_task("show_and_tell", recolor=1.0, color_words=(7, 8, END))
    variables = draw(task, batch)
    gradient = jax.jit(jax.grad(lambda p, b: task.loss({**variables, "params": p}, b, KEY)[0]))
    grads = [gradient(variables["params"], b) for b in (batch, other)]
    for mine, theirs in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-7)


def test_a_frozen_backbone_is_out_of_the_optimizers_reach_and_keeps_its_statistics():
    task, batch = make_task("show_and_tell", frozen=True), make_batch()
    variables = draw(task, batch)
    assert set(variables["params"]) == {"decoder"}
    assert set(variables["frozen"]) == {"params", "batch_stats"}
    _, (updated, _) = jax.eval_shape(task.loss, variables, batch, KEY)
    assert updated == {}  # and a step keeps what no task updates


class Blobs:
    """Images of four colors, told by one word; and by two, but for the last color."""

    image_shape = (8, 8, 3)
    NAMES = ("black", "red", "green", "blue")

    def __len__(self):
        return 32

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 60, (8, 8, 3), dtype=np.uint8)
        if index % 4:
            image[..., index % 4 - 1] += 150
        return {"image": image}

    def captions(self, index):
        name = self.NAMES[index % 4]
        return (f"{name} picture", name) if index % 4 < 3 else (name,)


@pytest.fixture(scope="module")
def blobs():
    source = Blobs()
    vocabulary = Vocabulary.build(c for i in range(4) for c in source.captions(i))
    assert len(vocabulary) <= WORDS
    return CaptionSource(source, vocabulary, length=LENGTH, keep=True)


@pytest.fixture(scope="module")
def trained(blobs):
    """A Show, Attend and Tell that has learned the blobs, by `fit` on eight devices."""
    task = make_task("show_attend_tell", attention_penalty=0.01, decoder={"features": 16})
    state, history = training.fit(
        task, blobs, test=blobs, optimizer=optax.adam(0.02), epochs=16, batch_size=16,
        monitor="test_exact", progress=False,
    )  # fmt: skip
    return task, jax.device_get(state.variables), history


@pytest.mark.slow
def test_fit_learns_to_write_true_sentences_on_all_devices(trained, blobs):
    task, variables, history = trained
    assert set(variables) == {"params", "batch_stats"}
    assert np.abs(variables["batch_stats"]["backbone"]["bn1"]["mean"]).max() > 1e-3
    assert history.epochs[-1]["test_exact"] >= 0.95
    assert history.epochs[0]["test_exact"] < 0.6
    written = write_captions([(task, variables)], blobs, width=3)
    exact = np.mean([w in blobs.references(i) for i, w in enumerate(written)])
    scores = evaluate_captions([(task, variables)], blobs, width=3)
    assert scores["exact"] == exact >= 0.95
    assert scores["bleu1"] >= 0.95


@pytest.mark.slow
def test_a_run_that_is_resumed_ends_in_the_same_bits(blobs, tmp_path, one_device):
    task = make_task("show_attend_tell", decoder={"attention": "hard"}, dropout=0.1)
    options = {
        "optimizer": optax.sgd(0.1), "batch_size": 16, "parallel": one_device, "progress": False,
    }  # fmt: skip
    whole, _ = training.fit(task, blobs, epochs=2, directory=tmp_path / "a", **options)
    training.fit(task, blobs, epochs=1, directory=tmp_path / "b", **options)
    resumed, _ = training.fit(task, blobs, epochs=2, directory=tmp_path / "b", resume=True, **options)
    same = jax.tree.map(
        lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), whole.variables, resumed.variables
    )
    assert all(jax.tree.leaves(same))
    assert whole.variables["progress"]["steps"] == 4


def write(members, batch, **options):
    writer = Writer(members, length=LENGTH, **options)
    return jax.jit(writer.predict)(writer.variables, batch)


def test_predictions_are_greedy_and_measured_word_for_word(trained, blobs):
    task, variables, _ = trained
    batch = read_batch(blobs, np.arange(8))
    tokens = jax.jit(task.predict)(variables, batch)
    beams = write([(task, variables)], batch, width=1)
    np.testing.assert_array_equal(tokens, beams.tokens[:, 0])
    half = np.array(tokens)
    half[::2] = [4, END, PAD, PAD, PAD, 9]
    sums = task.metrics(jnp.asarray(half), {**batch, "weight": np.ones(8, np.float32)})
    told = [blobs.vocabulary.decode(row) for row in half]
    right = [
        np.any([np.array_equal(row, c) for c in batch["captions"][n]]) for n, row in enumerate(half)
    ]
    assert sums["exact"].compute() == np.mean(right)
    assert len(told) == 8


def test_an_ensemble_writes_with_the_mean_of_its_members(trained, blobs):
    task, variables, _ = trained
    batch = read_batch(blobs, np.arange(4))
    alone = write([(task, variables)], batch, width=2)
    twice = write([(task, variables)] * 2, batch, width=2)
    np.testing.assert_array_equal(alone.tokens, twice.tokens)
    np.testing.assert_allclose(alone.scores, twice.scores, rtol=1e-4)
    small = make_task("lrcn")
    with pytest.raises(InputError, match=r"members know \[11, 30\] words"):
        Writer([(small, {}), (Wider(small), {})])


class Wider:
    """Stands for a captioner of a larger vocabulary."""

    def __init__(self, task):
        self.model = task.model.clone(decoder=task.model.decoder.clone(vocabulary_size=30))


def test_cached_features_train_as_their_images_do(blobs):
    task = make_task("show_and_tell", frozen=True)
    batch = read_batch(blobs, np.arange(6))
    variables = draw(task, batch)
    cached = cache_features(task, variables, blobs, batch_size=24)
    assert len(cached) == len(blobs)
    from_cache = read_batch(cached, np.arange(6))
    np.testing.assert_allclose(from_cache["features"], task.encode(variables, batch), atol=1e-6)
    np.testing.assert_array_equal(task.encode(variables, from_cache), from_cache["features"])
    np.testing.assert_array_equal(from_cache["captions"], batch["captions"])
    pooled = cache_features(task, variables, blobs, mean=True)[3]["features"]
    np.testing.assert_allclose(pooled, from_cache["features"][3].mean(0, keepdims=True), atol=1e-6)
    shapes = jax.eval_shape(task.init, KEY, from_cache)
    assert set(shapes["params"]) == {"decoder"}
    for refused in (make_task("lrcn"), make_task("lrcn", frozen=True, augment=lambda k, x: x)):
        with pytest.raises(InputError, match="frozen=True and without augment"):
            cache_features(refused, variables, blobs)


def test_a_decoder_without_attention_has_none_to_show():
    task, batch = make_task("lrcn"), make_batch()
    features, tokens = np.zeros((5, 4, 7), np.float32), batch["captions"][:, 0]
    with pytest.raises(InputError, match="LRCN has no attention"):
        jax.eval_shape(lambda v: task.attention(v, features, tokens), draw(task, batch))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"captions": np.full((5, 1, 3), 11)}, "token 11 is out of range: the captioner knows 11"),
        ({"captions": np.full((5, 1, 3), -1)}, "token -1 is out of range"),
        ({"captions": np.ones((5, 3), int)}, "captions have shape"),
        ({"captions": np.zeros((5, 1, 3), int)}, "example 0 of the batch has no caption"),
        ({"image": np.zeros((5, 4, 4), np.uint8)}, "image has shape"),
        ({"features": np.zeros((5, 4), np.float32)}, "features has shape"),
        ({"image": np.zeros((5, 4, 4, 2), np.uint8)}, "image has 2 channels"),
    ],
)
def test_a_batch_that_cannot_be_learned_is_named(change, words):
    task = make_task("lrcn", mean=(0.1, 0.2, 0.3))
    task.check(make_batch())
    with pytest.raises(InputError, match=words):
        task.check({**make_batch(), **change})
    with pytest.raises(InputError, match="std is"):
        make_task("lrcn", std=(0.0,))
