"""Show and Tell: the image is the first input of the LSTM.

Vinyals et al. 2014, "Show and Tell: A Neural Image Caption Generator", arXiv:1411.4555, section 3.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnets import layers
from jaxnets.models.settings import Count, Probability


class ShowAndTell(nn.Module):
    """An LSTM with inputs x_-1 = W a, with a the mean of the image features, and x_t = W_e S_t.

    The paper uses 512 units for the embedding and the state. Dropout is applied to the inputs and
    outputs of the LSTM.

    Attributes:
        vocabulary_size: V.
        features: units of the LSTM and of the embedding.
        dropout: dropout rate in training.
    """

    vocabulary_size: int
    features: Count = 512
    dropout: Probability = 0.5

    def setup(self):
        self.image = nn.Dense(self.features)
        self.embedding = nn.Embed(
            self.vocabulary_size, self.features, embedding_init=nn.initializers.uniform(0.1)
        )
        self.lstm = layers.LSTM(self.features)
        self.logits = nn.Dense(self.vocabulary_size)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, features: jax.Array, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict]:
        """Logits [N, T, V] after each of the tokens i32[N, T]; see `captioning.captioner`."""
        image = self.image(features.mean(1))[:, None]
        words = self.embedding(tokens).astype(image.dtype)
        read = self.drop(jnp.concatenate([image, words], axis=1), deterministic=not train)
        outputs, _ = self.lstm(read)
        return self.logits(self.drop(outputs[:, 1:], deterministic=not train)), {}

    def start(self, features: jax.Array) -> Any:
        """The carry of the LSTM after the image."""
        _, cache = self.lstm(self.image(features.mean(1))[:, None])
        return cache

    def step(
        self, features: jax.Array, cache: Any, tokens: jax.Array, train: bool = False
    ) -> tuple[Any, jax.Array, dict]:
        """Advances by one word; see `captioning.captioner`."""
        word = self.embedding(tokens).astype(features.dtype)[:, None]
        word = self.drop(word, deterministic=not train)
        output, cache = self.lstm(word, initial_carry=cache)
        return cache, self.logits(self.drop(output[:, 0], deterministic=not train)), {}
