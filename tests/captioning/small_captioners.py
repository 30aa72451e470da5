"""Small captioners of every kind, and a batch for them."""

import flax.linen as nn
import jax
import numpy as np

from jaxnets import layers
from jaxnets.captioning import Captioner, Captioning
from jaxnets.captioning.captioner import DECODERS

WORDS, LENGTH = 11, 6
SMALL = {
    "show_and_tell": {"features": 8},
    "lrcn": {"features": 8},
    "show_attend_tell": {"features": 8, "embedding": 5, "attention_features": 6},
}


class TinyBackbone(nn.Module):
    """Two maps, of strides 2 and 4, with batch statistics."""

    @nn.compact
    def __call__(self, images, train=False):
        x, out = images, {}
        for number, width in enumerate((4, 7), start=1):
            x = layers.Conv(width, 3, strides=2, padding=1, name=f"conv{number}")(x)
            x = layers.BatchNorm(use_running_average=not train, name=f"bn{number}")(x)
            x = out[f"stage{number}"] = nn.relu(x)
        return out


def make_task(name, dropout=0.0, decoder=None, **options):
    settings = {"dropout": dropout, **SMALL[name], **(decoder or {})}
    return Captioning(Captioner(TinyBackbone(), DECODERS[name](WORDS, **settings)), **options)


def make_batch(count=5, sentences=2, seed=0):
    """Noise, and sentences of every length; the last example has one sentence only."""
    rng = np.random.default_rng(seed)
    captions = np.zeros((count, sentences, LENGTH), np.int32)
    for n in range(count):
        for k in range(sentences if n < count - 1 else 1):
            length = 1 + (n + k) % LENGTH
            captions[n, k, : length - 1] = rng.integers(4, WORDS, length - 1)
            captions[n, k, length - 1] = 2
    images = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return {"image": images, "captions": captions, "weight": np.ones(count, np.float32)}


def draw(task, batch, seed=0):
    """Variables of a task, all parameters drawn, without compiling its `init`."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path[-1:])
        if path[0].key == "progress" or "mean" in name:
            return np.zeros(leaf.shape, np.float32)
        if "var" in name or "scale" in name:
            return np.ones(leaf.shape, np.float32)
        # Large enough that the words of a sentence and the places of an image make a difference.
        fan_in = int(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 10
        return (rng.normal(size=leaf.shape) * 1.5 / np.sqrt(fan_in)).astype(np.float32)

    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    return jax.tree_util.tree_map_with_path(fill, shapes)
