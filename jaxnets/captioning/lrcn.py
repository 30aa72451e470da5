"""Long-term recurrent convolutional networks: the image is an input at every step.

Donahue et al. 2014, "Long-term Recurrent Convolutional Networks for Visual Recognition and
Description", arXiv:1411.4389, section 4.2.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnets import layers
from jaxnets.models.settings import Count, Probability


class LRCN(nn.Module):
    """Two stacked LSTMs; the image features, averaged over locations, are an input at every step.

    With `factored=True` this is the paper's LRCN_2f: the lower LSTM reads only words, and the upper one
    its outputs and the image. Otherwise it is LRCN_2u: the lower LSTM reads both.

    Attributes:
        vocabulary_size: V.
        features: units of each LSTM, the word embedding and the image embedding (1000 in the paper).
        factored: whether the image is an input of the upper LSTM instead of the lower one.
        dropout: dropout rate of the outputs of each LSTM in training; the paper uses none.
    """

    vocabulary_size: int
    features: Count = 1000
    factored: bool = True
    dropout: Probability = 0.0

    def setup(self):
        self.image = nn.Dense(self.features)
        self.embedding = nn.Embed(
            self.vocabulary_size, self.features, embedding_init=nn.initializers.uniform(0.1)
        )
        self.lower = layers.LSTM(self.features)
        self.upper = layers.LSTM(self.features)
        self.logits = nn.Dense(self.vocabulary_size)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, features: jax.Array, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict]:
        """Logits [N, T, V] after each of the tokens i32[N, T]; see `captioning.captioner`."""
        _, logits = self._read(features, tokens, (None, None), train)
        return logits, {}

    def start(self, features: jax.Array) -> Any:
        """The zero carries of the LSTMs."""
        zeros = jnp.zeros_like(features, shape=(features.shape[0], self.features))
        return (((zeros, zeros),), ((zeros, zeros),))

    def step(
        self, features: jax.Array, cache: Any, tokens: jax.Array, train: bool = False
    ) -> tuple[Any, jax.Array, dict]:
        """Advances by one word; see `captioning.captioner`."""
        cache, logits = self._read(features, tokens[:, None], cache, train)
        return cache, logits[:, 0], {}

    def _read(self, features, tokens, carries, train):
        words = self.embedding(tokens).astype(features.dtype)
        image = self.image(features.mean(1))[:, None]
        image = jnp.broadcast_to(image, (*tokens.shape, self.features))
        read = words if self.factored else jnp.concatenate([words, image], axis=-1)
        hidden, lower = self.lower(read, initial_carry=carries[0])
        hidden = self.drop(hidden, deterministic=not train)
        if self.factored:
            hidden = jnp.concatenate([hidden, image], axis=-1)
        outputs, upper = self.upper(hidden, initial_carry=carries[1])
        return (lower, upper), self.logits(self.drop(outputs, deterministic=not train))
