"""Show, Attend and Tell: the decoder attends to a part of the image for every word.

Xu et al. 2015, "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention",
arXiv:1502.03044.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnets.dtypes import at_least_float32
from jaxnets.models.settings import Count, Probability

SHARE_OF_SAMPLES = 0.5  # section 4.1: with probability 0.5, the hard context is its expected value


class ShowAttendTell(nn.Module):
    """An LSTM with attention over the locations a_1 ... a_L of the features (sections 3.1 and 4).

    The attention weights are alpha = softmax(e), with e_i = w . tanh(W a_i + U h). The context z is
    the mean of the locations weighted by alpha ("soft"), or one location sampled from alpha ("hard"),
    times the gate beta = sigmoid(W h) (section 4.2.1). The LSTM reads the last word y and the context.
    The deep output layer is L (E y + L_h h + L_z z). In evaluation, hard attention uses the most likely
    location.

    Attributes:
        vocabulary_size: V.
        features: units of the LSTM.
        embedding: size of the word embedding and of the deep output layer.
        attention_features: units of the layer that scores locations.
        attention: "soft" or "hard".
        gate: whether to use the gate beta.
        dropout: dropout rate before the logits, in training.
    """

    vocabulary_size: int
    features: Count = 512
    embedding: Count = 512
    attention_features: Count = 512
    attention: Literal["soft", "hard"] = "soft"
    gate: bool = True
    dropout: Probability = 0.5

    def setup(self):
        self.words = nn.Embed(
            self.vocabulary_size, self.embedding, embedding_init=nn.initializers.uniform(0.1)
        )
        self.start_c, self.start_h = nn.Dense(self.features), nn.Dense(self.features)
        self.score_place = nn.Dense(self.attention_features)
        self.score_state = nn.Dense(self.attention_features, use_bias=False)
        self.score = nn.Dense(1, use_bias=False)
        if self.gate:
            self.beta = nn.Dense(1)
        self.lstm = nn.OptimizedLSTMCell(self.features)
        self.output_state = nn.Dense(self.embedding)
        self.output_context = nn.Dense(self.embedding, use_bias=False)
        self.logits = nn.Dense(self.vocabulary_size)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, features: jax.Array, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict]:
        """Logits [N, T, V] after each of the tokens i32[N, T], and the attention outputs (`looks`)."""
        keys = self.score_place(features)

        def step(decoder, cache, token):
            cache, *rest = decoder._step(features, keys, cache, token, train)
            return cache, rest

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True, "attention": True},
            in_axes=1,
            out_axes=1,
        )
        _, (logits, looks) = scan(self, self.start(features), tokens)
        return logits, looks

    def start(self, features: jax.Array) -> Any:
        """The carry (c, h) of the LSTM, computed from the mean over locations."""
        mean = features.mean(1)
        return jnp.tanh(self.start_c(mean)), jnp.tanh(self.start_h(mean))

    def step(
        self, features: jax.Array, cache: Any, tokens: jax.Array, train: bool = False
    ) -> tuple[Any, jax.Array, dict]:
        """Advances by one word. The outputs in `looks` are `attention` and, for hard attention in
        training, `log_place`, the log probability of the sampled location, and `entropy`, both [N]."""
        return self._step(features, self.score_place(features), cache, tokens, train)

    def _step(self, features, keys, cache, tokens, train):
        _, h = cache
        words = self.words(tokens).astype(features.dtype)
        scores = self.score(jnp.tanh(keys + self.score_state(h)[:, None]))[..., 0]
        log_alpha = jax.nn.log_softmax(at_least_float32(scores))
        alpha = jnp.exp(log_alpha)
        weights, looks = alpha, {"attention": alpha}
        if self.attention == "hard" and not train:
            weights = jax.nn.one_hot(jnp.argmax(alpha, axis=-1), alpha.shape[-1], dtype=alpha.dtype)
        elif self.attention == "hard":
            key, coin = jax.random.split(self.make_rng("attention"))
            place = jax.random.categorical(key, log_alpha)
            drawn = jax.nn.one_hot(place, alpha.shape[-1], dtype=alpha.dtype)
            sampled = jax.random.uniform(coin, alpha[:, :1].shape) < SHARE_OF_SAMPLES
            weights = jnp.where(sampled, drawn, alpha)
            looks["log_place"] = jnp.sum(jnp.where(sampled, drawn * log_alpha, 0.0), axis=-1)
            looks["entropy"] = -jnp.sum(alpha * log_alpha, axis=-1)
        context = jnp.einsum("nl,nld->nd", weights.astype(features.dtype), features)
        if self.gate:
            context = nn.sigmoid(self.beta(h)) * context
        cache, h = self.lstm(cache, jnp.concatenate([words, context], axis=-1))
        deep = words + self.output_state(h) + self.output_context(context)
        return cache, self.logits(self.drop(deep, deterministic=not train)), looks
