"""The task of the captioners: one sentence an image."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.captioning import decoding
from jaxnets.captioning.captioner import SAMPLING, Captioner
from jaxnets.captioning.frozen import FROZEN, Variables, freeze_backbone
from jaxnets.captioning.noise import choose, recolored, with_word_noise
from jaxnets.captioning.vocabulary import END, PAD, START
from jaxnets.data import augmentation
from jaxnets.data.augmentation import Augmentation
from jaxnets.data.whitening import normalize, to_float
from jaxnets.errors import InputError
from jaxnets.metrics import Mean, Metrics

Batch = dict  # image uint8 or f32 [N, H, W, C], or features f32[N, L, D]; captions i32[N, K, T]; weight

PROGRESS = "progress"  # what is remembered from step to step: steps taken, and the baseline


@dataclass(frozen=True)
class Captioning:
    """Writes sentences about images, as a frozen set of pure functions (the Task protocol).

    A batch is a dict of `image` (uint8[N, H, W, C], or f32 in 0 to 1) or, with a frozen backbone,
    its `features` (f32[N, L, D]; `cache_features` makes them), of `captions` (i32[N, K, T], of
    `CaptionSource`) and, where some examples are padding, `weight` (f32[N]). A step learns one
    sentence of each image, the first or one drawn anew each time. The mean is over words, as in
    -log p of a word.

    Measured is what the decoder writes by itself (greedily, from the image alone): `exact`, the
    share of images for which that is one of the given sentences, word for word. Scores of text
    (`evaluate_captions`) are those of whole sets.

    Attributes:
        model: a captioner of `create_captioner`.
        mean, std: per channel, in units of 0 to 1; images become (image - mean) / std.
        frozen: the backbone learns nothing and is applied in eval mode; its variables are in the
            collection "frozen", out of the optimizer's reach.
        attention_penalty: lambda of lambda * sum_i (1 - sum_t alpha_ti)^2 for each sentence, which
            spreads the looks over the image (Xu et al. 2015, equation 14).
        first_sentence: learn the first sentence of each image alone. Where sentences differ in what
            they begin with, a decoder that has to be ready for all of them looks at several things
            at once.
        scheduled_sampling: `rate(step)` of reading own words; None for teacher forcing.
        word_noise: the share of the words read in training that are replaced, by the word at the
            same place of another sentence of the batch. What words before make likely counts less
            then, and what is in the image more (unigram noising: Xie et al. 2017,
            arXiv:1703.02573, section 3.2).
        recolor: the share of the training images, not of features, whose colors are mixed
            (`data.color.random_channel_mix`). The `color_words` of their sentences are not learned.
            So what a thing is called does not come to depend on its color (random 1x1
            convolutions: Xu et al. 2021, arXiv:2007.13003).
        color_words: the numbers of the words for colors: `vocabulary.numbers(COLOR_WORDS)`.
        entropy_weight: lambda_e of hard attention (section 4.1 of the same).
        reinforce_weight: lambda_r of hard attention.
        augment: `(key, example) -> example` with an `image` f32[H, W, C] in 0 to 1, for training only
            (`jaxnets.data.augmentation`). Beware of flips: they turn left into right.

    Raises:
        InputError: a std of 0 or less, or a word_noise or recolor that is no share.
    """

    model: Captioner
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    frozen: bool = False
    attention_penalty: float = 1.0
    first_sentence: bool = False
    scheduled_sampling: Callable[[jax.Array], jax.Array] | None = None
    word_noise: float = 0.0
    recolor: float = 0.0
    color_words: tuple[int, ...] = ()
    entropy_weight: float = 0.002
    reinforce_weight: float = 1.0
    augment: Augmentation | None = None

    def __post_init__(self):
        if min(self.std) <= 0:
            raise InputError(f"std is {self.std}; every number must be above 0")
        for name in ("word_noise", "recolor"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Draws the variables; for a batch of features those of the decoder alone."""
        tokens = jnp.asarray(batch["captions"])[:1, 0]
        if "features" in batch:
            features = jnp.asarray(batch["features"])[:1]
            variables = self.model.init(key, features, tokens, method="decode")
        else:
            images = normalize(to_float(jnp.asarray(batch["image"])[:1]), self.mean, self.std)
            variables = self.model.init(key, images, tokens)
            if self.frozen:
                variables = freeze_backbone(variables)
        if self._remembers:
            zero = jnp.zeros(())
            variables = {**variables, PROGRESS: {"steps": zero, "log_likelihood": zero}}
        return variables

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Metrics]]:
        """The training loss of a batch, the updated collections, and sums.

        Returns:
            The mean over words of -log p and the penalties; the updated collections; the sums `loss`
            (with the penalties) and `top1`, the share of words that were the likeliest, given the
            true ones before. `loss.weight` is the number of words.
        """
        choice_key, augment_key, noise_key, color_key, *keys = jax.random.split(key, 7)
        rngs = dict(zip(("dropout", "attention", SAMPLING), keys, strict=True))
        given = batch["captions"]
        captions = given[:, 0] if self.first_sentence else choose(choice_key, given)
        read = captions
        if self.word_noise:
            read = with_word_noise(noise_key, captions, self.word_noise)
        real = learned = (captions != PAD) & (_weights(batch) > 0)[:, None]
        if self.recolor and "image" in batch:
            images, mixed = recolored(color_key, to_float(batch["image"]), self.recolor)
            batch = {**batch, "image": images}
            colored = jnp.isin(captions, jnp.array(self.color_words, jnp.int32))
            learned = real & ~(mixed[:, None] & colored)
        features, collections = self._train_features(variables, batch, augment_key, rngs["dropout"])
        progress = variables.get(PROGRESS)
        rate = None
        if self.scheduled_sampling is not None:
            rate = self.scheduled_sampling(progress["steps"])
        logits, looks = self.model.apply(
            {"params": variables["params"]},
            features,
            read,
            train=True,
            sampling_rate=rate,
            method="decode",
            rngs=rngs,
        )
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), captions[..., None], axis=-1)[..., 0]
        log_p = jnp.where(learned, log_p, 0.0)
        example = -jnp.sum(log_p, axis=1)
        if "attention" in looks:
            seen = jnp.sum(jnp.where(real[..., None], looks["attention"], 0.0), axis=1)
            example += self.attention_penalty * jnp.sum(jnp.square(1 - seen), axis=-1)
        if progress is not None:
            progress = {**progress, "steps": progress["steps"] + 1}
        surrogate = 0.0
        if "log_place" in looks:
            surrogate = self._reinforce(looks, real, log_p, progress["log_likelihood"])
            mean = Mean.of(jnp.sum(log_p, axis=1), _weights(batch)).total / jnp.maximum(
                jnp.sum(_weights(batch)), 1
            )
            progress["log_likelihood"] = 0.9 * progress["log_likelihood"] + 0.1 * mean
        if progress is not None:
            collections = {**collections, PROGRESS: progress}
        weights = _weights(batch)
        word_weights = jnp.where(learned, weights[:, None], 0.0)
        words = jnp.sum(word_weights)
        total = jnp.sum(jnp.where(weights > 0, example * weights, 0.0))
        right = (jnp.argmax(logits, axis=-1) == captions).astype(jnp.float32)
        sums = {
            "loss": Mean(total, words),
            "top1": Mean.of(right.ravel(), word_weights.ravel()),
        }
        # What hard attention adds is minimized but not reported: it is no loss and may be negative.
        total += jnp.sum(jnp.where(weights > 0, surrogate * weights, 0.0))
        # A batch of nothing but padding has no loss; 0 / 1 keeps its gradient finite.
        return total / jnp.where(words > 0, words, 1), (collections, sums)

    def encode(self, variables: Variables, batch: Batch) -> jax.Array:
        """The features [N, L, D] of a batch in eval mode; given ones are returned as they are."""
        dtype = jax.tree.leaves(variables["params"])[0].dtype
        if "features" in batch:
            return jnp.asarray(batch["features"]).astype(dtype)
        images = normalize(to_float(jnp.asarray(batch["image"])), self.mean, self.std)
        return self.model.apply(self._joined(variables), images.astype(dtype), method="encode")

    def predict(self, variables: Variables, batch: Batch) -> jax.Array:
        """The sentences i32[N, T] that the decoder writes greedily, as long as the batch's."""
        features = self.encode(variables, batch)
        return decoding.greedy(
            self.step(variables, features),
            self.start(variables, features),
            jnp.full(len(features), START),
            end=END,
            length=batch["captions"].shape[-1],
        )

    def start(self, variables: Variables, features: jax.Array):
        """The decoder's cache before the first word."""
        return self.model.apply(self._joined(variables), features, method="start")

    def step(self, variables: Variables, features: jax.Array) -> decoding.Step:
        """The `step(tokens, cache) -> (logits, cache)` that `captioning.decoding` wants.

        Args:
            variables: of the task.
            features: [N, L, D]; for a beam search each image's as many times as the beam is wide.
        """

        def step(tokens, cache):
            cache, logits, _ = self.model.apply(
                self._joined(variables), features, cache, tokens, method="step"
            )
            return logits, cache

        return step

    def attention(self, variables: Variables, features: jax.Array, tokens: jax.Array) -> jax.Array:
        """Where the decoder looked for each word of sentences i32[N, T]: f32[N, T, L].

        Raises:
            InputError: a decoder without attention.
        """
        _, looks = self.model.apply(self._joined(variables), features, tokens, method="decode")
        if "attention" not in looks:
            raise InputError(
                f"{type(self.model.decoder).__name__} does not attend; show_attend_tell does"
            )
        return looks["attention"]

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """The sum `exact` of predictions: word for word one of the given sentences."""
        given = jnp.any(batch["captions"] != PAD, axis=-1)
        same = jnp.all(outputs[:, None] == batch["captions"], axis=-1) & given
        return {"exact": Mean.of(jnp.any(same, axis=1).astype(jnp.float32), _weights(batch))}

    def check(self, batch: Batch) -> None:
        """Refuses, on the host, a batch that the compiled step cannot take."""
        captions, known = np.asarray(batch["captions"]), self.model.decoder.vocabulary_size
        outside = captions[(captions < 0) | (captions >= known)]
        if outside.size:
            raise InputError(
                f"token {outside[0]} is out of range: the captioner knows {known} words, "
                f"so tokens run from 0 to {known - 1}"
            )
        name = "features" if "features" in batch else "image"
        rank, wanted = (3, "[N, L, D]") if name == "features" else (4, "[N, H, W, C]")
        shape = np.shape(batch[name])
        if len(shape) != rank:
            raise InputError(f"{name} has shape {shape}; wanted {wanted}")
        if captions.ndim != 3 or len(captions) != shape[0]:
            raise InputError(
                f"captions have shape {captions.shape}; wanted [N, K, T] with N = {shape[0]}"
            )
        silent = np.flatnonzero((captions == PAD).all((1, 2)) & (np.asarray(_weights(batch)) > 0))
        if silent.size:
            raise InputError(f"example {silent[0]} of the batch has no caption")
        if name == "image" and not {len(self.mean), len(self.std)} <= {1, shape[-1]}:
            raise InputError(
                f"image has {shape[-1]} channels, but mean has {len(self.mean)} entries and std "
                f"{len(self.std)}; give one number, or one a channel"
            )

    @property
    def _remembers(self) -> bool:
        hard = getattr(self.model.decoder, "attention", None) == "hard"
        return hard or self.scheduled_sampling is not None

    def _reinforce(self, looks, real, log_p, baseline):
        """What hard attention adds to the loss of each sentence (section 4.1, equations 11 and 12).

        The log likelihood of the sentence, less its running mean, rewards the places drawn for it.
        """
        reward = jax.lax.stop_gradient(jnp.sum(log_p, axis=1) - baseline)
        log_place = jnp.sum(jnp.where(real, looks["log_place"], 0.0), axis=1)
        entropy = jnp.sum(jnp.where(real, looks["entropy"], 0.0), axis=1)
        return -self.reinforce_weight * reward * log_place - self.entropy_weight * entropy

    def _train_features(self, variables, batch, augment_key, dropout_key):
        """Features in train mode, and the collections (`batch_stats`) that this changed."""
        if "features" in batch:
            return self.encode(variables, batch), {}
        images = to_float(batch["image"])
        if self.augment is not None:
            images = augmentation.apply(augment_key, {**batch, "image": images}, self.augment)["image"]
        if self.frozen:
            return self.encode(variables, {"image": images}), {}
        kept = {name: v for name, v in variables.items() if name not in ("params", PROGRESS)}
        images = normalize(images, self.mean, self.std).astype(
            jax.tree.leaves(variables["params"])[0].dtype
        )
        features, updated = self.model.apply(
            {"params": variables["params"], **kept},
            images,
            train=True,
            method="encode",
            mutable=list(kept),
            rngs={"dropout": dropout_key},
        )
        return features, dict(updated)

    def _joined(self, variables: Variables) -> Variables:
        """The module's own variables: a frozen backbone's put back in their places."""
        frozen = variables.get(FROZEN, {})
        names = (set(variables) | set(frozen)) - {FROZEN, PROGRESS}
        return {name: {**frozen.get(name, {}), **variables.get(name, {})} for name in names}


def _weights(batch: Batch) -> jax.Array:
    weights = batch.get("weight")
    return np.ones(len(batch["captions"]), np.float32) if weights is None else weights
