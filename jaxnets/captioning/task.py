"""The captioning task: one caption per image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.captioning import decoding
from jaxnets.captioning.captioner import SAMPLING, Captioner
from jaxnets.captioning.frozen import FROZEN, Variables, freeze_backbone
from jaxnets.captioning.noise import choose, recolored, with_word_noise
from jaxnets.captioning.vocabulary import END, PAD, START
from jaxnets.data import inputs
from jaxnets.data.augmentation import Augmentation
from jaxnets.data.inputs import weights_of
from jaxnets.data.whitening import to_float
from jaxnets.errors import InputError
from jaxnets.metrics import Mean, Metrics, Share
from jaxnets.training import Headline

Batch = dict  # image uint8 or f32 [N, H, W, C], or features f32[N, L, D]; captions i32[N, K, T]; weight

PROGRESS = "progress"  # the collection with the number of steps and the baseline of hard attention


@dataclass(frozen=True)
class Captioning:
    """Image captioning, as a frozen set of pure functions (the Task protocol).

    A batch is a dict of `image` (uint8[N, H, W, C], or f32 in [0, 1]) or, with a frozen backbone,
    `features` (f32[N, L, D], from `cache_features`); `captions` (i32[N, K, T], from `CaptionSource`);
    and, if some examples are padding, `weight` (f32[N]). Each step trains on one caption of each
    image: the first, or one drawn at random in each step. The loss is the mean of -log p over words.

    The metric `exact` is the fraction of images for which the caption that is decoded greedily, from
    the image alone, equals one of the reference captions, word for word. Text metrics of whole sets
    are computed by `evaluate_captions`.

    Attributes:
        model: a captioner from `create_captioner`.
        mean, std: per channel, for images in [0, 1]; images are normalized to (image - mean) / std.
        frozen: do not train the backbone and apply it in eval mode; its variables are in the
            collection "frozen", which the optimizer does not see.
        attention_penalty: weight of the attention coverage penalty, lambda in lambda * sum_i (1 -
            sum_t alpha_ti)^2 for each caption (Xu et al. 2015, equation 14).
        first_sentence: train only on the first caption of each image. If captions begin with different
            objects, a decoder that has to fit all of them attends to several objects at once.
        scheduled_sampling: `rate(step)`, the probability of reading the decoder's own words; None for
            teacher forcing.
        word_noise: probability of replacing a word that is read in training by the word at the same
            position of another caption in the batch. It makes the decoder rely less on preceding words
            and more on the image (unigram noising: Xie et al. 2017, arXiv:1703.02573, section 3.2).
        recolor: probability of mixing the colors of a training image (`data.color.random_channel_mix`);
            not applied to features. The `color_words` of its caption are excluded from the loss. It
            keeps the names of objects from depending on their colors (random 1x1 convolutions: Xu et
            al. 2021, arXiv:2007.13003).
        color_words: token ids of the words for colors: `vocabulary.numbers(COLOR_WORDS)`.
        entropy_weight: weight of the entropy of hard attention, lambda_e (Xu et al. 2015, section 4.1).
        reinforce_weight: weight of the REINFORCE term of hard attention, lambda_r (ibid.).
        augment: `(key, example) -> example`, for training only; the example has `image` (f32[H, W, C]
            in [0, 1]) and `captions`. Beware of flips, which swap left and right.

    Raises:
        InputError: a std of 0 or less, or a word_noise or recolor outside [0, 1].
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

    headline: ClassVar[Headline] = Headline("exact", "exact sentences")

    def __post_init__(self):
        inputs.check_constants(self.mean, self.std)
        for name in ("word_noise", "recolor"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Initializes the variables; for a batch of features, only those of the decoder."""
        tokens = jnp.asarray(batch["captions"])[:1, 0]
        if "features" in batch:
            features = jnp.asarray(batch["features"])[:1]
            variables = self.model.init(key, features, tokens, method="decode")
        else:
            images = inputs.normalized(batch["image"][:1], self.mean, self.std)
            variables = self.model.init(key, images, tokens)
            if self.frozen:
                variables = freeze_backbone(variables)
        if self._remembers:
            zero = jnp.zeros((), jnp.float32)
            variables = {**variables, PROGRESS: {"steps": zero, "log_likelihood": zero}}
        return variables

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Metrics]]:
        """The training loss of a batch, the updated collections, and metric sums.

        Returns:
            The mean over words of -log p and the penalties; the updated collections; the sums `loss`
            (including the penalties) and `top1`, the fraction of words that were predicted as most
            likely from the words read before. `loss.weight` is the number of words.
        """
        choice_key, augment_key, noise_key, color_key, *keys = jax.random.split(key, 7)
        rngs = dict(zip(("dropout", "attention", SAMPLING), keys, strict=True))
        batch, words = self._words(batch, choice_key, noise_key, color_key)
        features, collections = self._train_features(variables, batch, augment_key, rngs["dropout"])
        logits, looks = self._decode(variables, features, words.read, rngs)
        likelihood = _log_likelihood(logits, words)
        example = -likelihood + self._attention_penalty(looks, words)
        surrogate, progress = self._hard_attention(looks, words, likelihood, variables.get(PROGRESS))
        if progress is not None:
            collections = {**collections, PROGRESS: progress}
        total = jnp.sum(jnp.where(words.weights > 0, example * words.weights, 0.0))
        word_weights = jnp.where(words.learned, words.weights[:, None], 0.0)
        right = (jnp.argmax(logits, axis=-1) == words.wanted).astype(jnp.float32)
        loss = Mean(total, jnp.sum(word_weights))
        sums = {"loss": loss, "top1": Share.of(right.ravel(), word_weights.ravel())}
        # The term of hard attention is minimized but not reported: it is a surrogate, not a loss, and
        # may be negative.
        total += jnp.sum(jnp.where(words.weights > 0, surrogate * words.weights, 0.0))
        # A batch of only padding has no loss; 0 / 1 keeps its gradient finite.
        return total / jnp.where(loss.weight > 0, loss.weight, 1), (collections, sums)

    def encode(self, variables: Variables, batch: Batch) -> jax.Array:
        """The features [N, L, D] of a batch in eval mode; precomputed features are only cast."""
        params = variables["params"]
        if "features" in batch:
            return jnp.asarray(batch["features"]).astype(jax.tree.leaves(params)[0].dtype)
        images = inputs.normalized(batch["image"], self.mean, self.std, params)
        return self.model.apply(self.joined(variables), images, method="encode")

    def predict(self, variables: Variables, batch: Batch) -> jax.Array:
        """The captions i32[N, T] by greedy decoding, with the T of the batch's captions."""
        features = self.encode(variables, batch)
        return decoding.greedy(
            self.step(variables, features),
            self.start(variables, features),
            jnp.full(features.shape[0], START, jnp.int32),
            end=END,
            length=batch["captions"].shape[-1],
        )

    def start(self, variables: Variables, features: jax.Array):
        """The decoder's cache before the first word."""
        return self.model.apply(self.joined(variables), features, method="start")

    def step(self, variables: Variables, features: jax.Array) -> decoding.Step:
        """The `step(tokens, cache) -> (logits, cache)` for `captioning.decoding`.

        Args:
            variables: variables of the task.
            features: [N, L, D]; for beam search, those of each image repeated `width` times.
        """

        def step(tokens, cache):
            cache, logits, _ = self.model.apply(
                self.joined(variables), features, cache, tokens, method="step"
            )
            return logits, cache

        return step

    def attention(self, variables: Variables, features: jax.Array, tokens: jax.Array) -> jax.Array:
        """The attention weights for each word of captions i32[N, T]: f32[N, T, L].

        Raises:
            InputError: a decoder without attention.
        """
        _, looks = self.model.apply(self.joined(variables), features, tokens, method="decode")
        if "attention" not in looks:
            raise InputError(
                f"{type(self.model.decoder).__name__} has no attention; use show_attend_tell"
            )
        return looks["attention"]

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """The sum `exact`: predictions that equal one of the given captions, word for word."""
        given = jnp.any(batch["captions"] != PAD, axis=-1)
        same = jnp.all(outputs[:, None] == batch["captions"], axis=-1) & given
        return {"exact": Share.of(jnp.any(same, axis=1).astype(jnp.float32), weights_of(batch))}

    def check(self, batch: Batch) -> None:
        """Checks, on the host, that the compiled step can take a batch."""
        captions, known = np.asarray(batch["captions"]), self.model.decoder.vocabulary_size
        outside = captions[(captions < 0) | (captions >= known)]
        if outside.size:
            raise InputError(
                f"token {outside[0]} is out of range: the captioner knows {known} words, "
                f"so tokens run from 0 to {known - 1}"
            )
        if "features" not in batch:
            inputs.check_images(batch["image"], self.mean, self.std)
        elif np.ndim(batch["features"]) != 3:
            raise InputError(f"features has shape {np.shape(batch['features'])}; wanted [N, L, D]")
        count = len(batch["features" if "features" in batch else "image"])
        if captions.ndim != 3 or len(captions) != count:
            raise InputError(f"captions have shape {captions.shape}; wanted [N, K, T] with N = {count}")
        silent = np.flatnonzero((captions == PAD).all((1, 2)) & (np.asarray(weights_of(batch)) > 0))
        if silent.size:
            raise InputError(f"example {silent[0]} of the batch has no caption")

    @property
    def _remembers(self) -> bool:
        hard = getattr(self.model.decoder, "attention", None) == "hard"
        return hard or self.scheduled_sampling is not None

    def _words(self, batch: Batch, choice_key, noise_key, color_key) -> tuple[Batch, "_Words"]:
        """The batch, possibly recolored, and the caption of each image to train on."""
        given, weights = batch["captions"], weights_of(batch)
        wanted = given[:, 0] if self.first_sentence else choose(choice_key, given)
        read = with_word_noise(noise_key, wanted, self.word_noise) if self.word_noise else wanted
        real = learned = (wanted != PAD) & (weights > 0)[:, None]
        if self.recolor and "image" in batch:
            images, mixed = recolored(color_key, to_float(batch["image"]), self.recolor)
            batch = {**batch, "image": images}
            colored = jnp.isin(wanted, jnp.array(self.color_words, jnp.int32))
            learned = real & ~(mixed[:, None] & colored)
        return batch, _Words(wanted, read, real, learned, weights)

    def _decode(self, variables: Variables, features: jax.Array, read: jax.Array, rngs: dict):
        """Logits f32[N, T, V] and attention outputs in train mode, from reading these words."""
        rate = None
        if self.scheduled_sampling is not None:
            rate = self.scheduled_sampling(variables[PROGRESS]["steps"])
        return self.model.apply(
            {"params": variables["params"]},
            features,
            read,
            train=True,
            sampling_rate=rate,
            method="decode",
            rngs=rngs,
        )

    def _attention_penalty(self, looks: dict, words: "_Words") -> jax.Array:
        """f32[N]: weighted squared deviation from 1 of each location's attention, summed over words."""
        if "attention" not in looks:
            return jnp.zeros((), jnp.float32)
        seen = jnp.sum(jnp.where(words.real[..., None], looks["attention"], 0.0), axis=1)
        return self.attention_penalty * jnp.sum(jnp.square(1 - seen), axis=-1)

    def _hard_attention(self, looks: dict, words: "_Words", likelihood: jax.Array, progress):
        """The term that hard attention adds to the loss of each caption (section 4.1, equations 11 and
        12), and the updated progress.

        The reward of the sampled locations is the log likelihood of the caption minus its running mean.
        """
        if progress is None:
            return jnp.zeros((), jnp.float32), None
        after = {**progress, "steps": progress["steps"] + 1}
        if "log_place" not in looks:
            return jnp.zeros((), jnp.float32), after
        baseline = progress["log_likelihood"]
        reward = jax.lax.stop_gradient(likelihood - baseline)
        log_place = jnp.sum(jnp.where(words.real, looks["log_place"], 0.0), axis=1)
        entropy = jnp.sum(jnp.where(words.real, looks["entropy"], 0.0), axis=1)
        total = Mean.of(likelihood, words.weights).total
        after["log_likelihood"] = 0.9 * baseline + 0.1 * total / jnp.maximum(jnp.sum(words.weights), 1)
        return -self.reinforce_weight * reward * log_place - self.entropy_weight * entropy, after

    def _train_features(self, variables, batch, augment_key, dropout_key):
        """Features in train mode, and the updated collections (`batch_stats`)."""
        if "features" in batch:
            return self.encode(variables, batch), {}
        images = inputs.augmented(augment_key, batch, self.augment)["image"]
        if self.frozen:
            return self.encode(variables, {"image": images}), {}
        kept = {name: v for name, v in variables.items() if name not in ("params", PROGRESS)}
        images = inputs.normalized(images, self.mean, self.std, variables["params"])
        features, updated = self.model.apply(
            {"params": variables["params"], **kept},
            images,
            train=True,
            method="encode",
            mutable=list(kept),
            rngs={"dropout": dropout_key},
        )
        return features, dict(updated)

    def joined(self, variables: Variables) -> Variables:
        """The variables of the module, with those of a frozen backbone merged in."""
        frozen = variables.get(FROZEN, {})
        names = (set(variables) | set(frozen)) - {FROZEN, PROGRESS}
        return {name: {**frozen.get(name, {}), **variables.get(name, {})} for name in names}


class _Words(NamedTuple):
    """The captions of a step, of N images and T words.

    Attributes:
        wanted: i32[N, T], the words to predict.
        read: i32[N, T], the words that the decoder reads after the start token.
        real: bool[N, T], which words are not padding.
        learned: bool[N, T], which of those are included in the loss.
        weights: f32[N], weights of the images.
    """

    wanted: jax.Array
    read: jax.Array
    real: jax.Array
    learned: jax.Array
    weights: jax.Array


def _log_likelihood(logits: jax.Array, words: _Words) -> jax.Array:
    """f32[N]: the log likelihood of each caption, over the words that are included in the loss."""
    log_p = jax.nn.log_softmax(logits)
    log_p = jnp.take_along_axis(log_p, words.wanted[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(words.learned, log_p, 0.0), axis=1)
