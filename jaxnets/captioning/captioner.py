"""Captioners, which combine a backbone with a decoder that generates captions.

A decoder is a Linen module with three methods, which are all that decoding, training and
visualization rely on:

- `start(features) -> cache`: its state before the first word, any pytree of arrays [N, ...];
- `step(features, cache, tokens, train) -> (cache, logits, looks)`: advances by one word;
- `__call__(features, tokens, train) -> (logits, looks)`: reads a given sentence (teacher forcing).

`looks` is a dict of auxiliary attention outputs. It contains `attention`, f32[N, L] (or [N, T, L] for
a sentence), for decoders with attention, and is empty for others.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.captioning.lrcn import LRCN
from jaxnets.captioning.show_and_tell import ShowAndTell
from jaxnets.captioning.show_attend_tell import ShowAttendTell
from jaxnets.captioning.vocabulary import START, Vocabulary
from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError, unknown_name
from jaxnets.layers.initialization import InitializedAtOnce
from jaxnets.models import create_classifier
from jaxnets.models.settings import checked, settings_of

DECODERS = {"show_and_tell": ShowAndTell, "lrcn": LRCN, "show_attend_tell": ShowAttendTell}
SAMPLING = "sampling"  # name of the PRNG stream of scheduled sampling


class Captioner(InitializedAtOnce):
    """An image captioner. Its parameters are `backbone` and `decoder`.

    Attributes:
        backbone: a module, `backbone(images, train) -> dict[str, Array]`: named feature maps.
        decoder: a decoder; see `captioning.captioner` for its methods.
        feature: the name of the feature map to use; None for the last.
        min_size: minimum side of an image, in pixels, for this feature map.
    """

    backbone: nn.Module
    decoder: nn.Module
    feature: str | None = None
    min_size: int = 1

    def __call__(
        self, images: jax.Array, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict]:
        """Logits f32[N, T, V] of the words of given sentences i32[N, T], and the attention outputs."""
        return self.decode(self.encode(images, train), tokens, train)

    def encode(self, images: jax.Array, train: bool = False) -> jax.Array:
        """The features of images float[N, H, W, C]: [N, L, D], a vector for each of L locations.

        Raises:
            InputError: images too small, or a backbone without this feature map.
        """
        if images.ndim != 4 or min(images.shape[1:3]) < self.min_size:
            raise InputError(
                f"images have shape {images.shape}; wanted [N, H, W, C] with sides of at least "
                f"{self.min_size} pixels"
            )
        maps = self.backbone(images, train)
        name = list(maps)[-1] if self.feature is None else self.feature
        if name not in maps:
            raise unknown_name("feature", name, maps)
        features = maps[name]
        return features.reshape(features.shape[0], -1, features.shape[-1])

    def decode(
        self,
        features: jax.Array,
        tokens: jax.Array,
        train: bool = False,
        sampling_rate: jax.Array | None = None,
    ) -> tuple[jax.Array, dict]:
        """Predicts the words of given sentences, with the start token prepended.

        Args:
            features: [N, L, D], from `encode`.
            tokens: i32[N, T], the words; the last is not read, because nothing follows it.
            train: enables dropout and sampling of hard attention.
            sampling_rate: None for teacher forcing; otherwise the probability, at each step, that the
                decoder reads a word sampled from its own prediction instead of the given one
                (scheduled sampling: Bengio et al. 2015, section 2.4).

        Returns:
            Logits f32[N, T, V] of each of the T words, and the attention outputs.
        """
        first = jnp.full_like(tokens[:, :1], START)
        tokens = jnp.concatenate([first, tokens[:, :-1]], axis=1)
        if sampling_rate is None:
            logits, looks = self.decoder(features, tokens, train)
        else:
            logits, looks = _scheduled(self.decoder, features, tokens, train, sampling_rate)
        return at_least_float32(logits), looks

    def start(self, features: jax.Array) -> Any:
        """The cache before the first word."""
        return self.decoder.start(features)

    def step(self, features: jax.Array, cache: Any, tokens: jax.Array) -> tuple[Any, jax.Array, dict]:
        """Advances by one word: reads tokens i32[N]; returns cache, logits f32[N, V] and `looks`."""
        cache, logits, looks = self.decoder.step(features, cache, tokens, False)
        return cache, at_least_float32(logits), looks


def create_captioner(
    name: str,
    backbone: str = "resnet50",
    vocabulary: Vocabulary | int = 10_000,
    *,
    feature: str | None = None,
    backbone_settings: dict[str, Any] | None = None,
    **settings: Any,
) -> Captioner:
    """Creates a captioner, without parameters.

    Args:
        name: "show_and_tell", "lrcn" or "show_attend_tell".
        backbone: any model of `jaxnets.list_models(task="classification")`.
        vocabulary: the vocabulary, or its size.
        feature: the name of the backbone's feature map to use; None for the last.
        backbone_settings: settings of the backbone, passed to `create_model`.
        **settings: fields of the decoder's class, such as `features=512`.

    Raises:
        InputError: an unknown name or setting, or an invalid value.
    """
    if name not in DECODERS:
        raise unknown_name("captioner", name, DECODERS)
    decoder = DECODERS[name]
    known = settings_of(decoder)
    names = [setting for setting in known if setting not in ("vocabulary_size", "parent", "name")]
    for setting, value in settings.items():
        if setting not in names:
            raise InputError(f"{name} has no setting {setting!r}; known: {', '.join(names)}")
        settings[setting] = checked(setting, value, *known[setting])
    size = vocabulary if isinstance(vocabulary, int | np.integer) else len(vocabulary)
    model = create_classifier(backbone, num_classes=0, **(backbone_settings or {}))
    return Captioner(
        backbone=model.backbone,
        decoder=decoder(size, **settings),
        feature=feature,
        min_size=model.min_size,
    )


def _scheduled(
    decoder: nn.Module, features: jax.Array, tokens: jax.Array, train: bool, rate: jax.Array
) -> tuple[jax.Array, dict]:
    """Steps through sentences, sometimes reading the decoder's own samples (scheduled sampling)."""

    def step(decoder, carry, given):
        cache, own = carry
        key, coin = jax.random.split(decoder.make_rng(SAMPLING))
        own_turn = (jax.random.uniform(coin, own.shape) < rate) & (own >= 0)
        cache, logits, looks = decoder.step(features, cache, jnp.where(own_turn, own, given), train)
        own = jax.random.categorical(key, at_least_float32(jax.lax.stop_gradient(logits)))
        return (cache, own.astype(given.dtype)), (logits, looks)

    scan = nn.scan(
        step,
        variable_broadcast="params",
        split_rngs={"params": False, "dropout": True, "attention": True, SAMPLING: True},
        in_axes=1,
        out_axes=1,
    )
    nothing_said = jnp.full_like(tokens[:, 0], -1)  # the first token read is always the start token
    _, (logits, looks) = scan(decoder, (decoder.start(features), nothing_said), tokens)
    return logits, looks
