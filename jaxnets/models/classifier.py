"""A classifier: a backbone and a head, put together."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from flax.errors import ScopeParamShapeError

from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError
from jaxnets.layers.initialization import InitializedAtOnce


class Classifier(InitializedAtOnce):
    """Scores images with a head on the last feature map of a backbone.

    Its parameters are those of its parts: `backbone`, `head` and one `auxiliary_<feature name>` for
    each auxiliary head.

    Attributes:
        backbone: a module, `backbone(images, train) -> dict[str, Array]`: named feature maps
            [N, h, w, c] from shallow to deep.
        head: a module, `head(features, train) -> logits`, that reads the last feature map.
        auxiliary: further heads by the name of the feature map that each reads. They only help
            training: in train mode their logits are sown in the collection "auxiliary", by the same
            names.
        num_classes: the K of the logits; 0 where the head ends before its last dense layer.
        input_size: (height, width, channels) the network was made for; initialize it with that.
        min_size: the shortest side of an image that still reaches the last feature map.
        max_size: the longest side it can take; None where there is none.
        model_name: what the registry calls it.
    """

    backbone: nn.Module
    head: nn.Module
    num_classes: int
    input_size: tuple[int, int, int]
    min_size: int = 1
    max_size: int | None = None
    auxiliary: Mapping[str, nn.Module] = FrozenDict()
    model_name: str = "the model"

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Scores of each class.

        Args:
            images: float[N, H, W, C].
            train: whether normalization uses (and updates) the statistics of this batch, units are
                dropped (from the key "dropout") and auxiliary heads run.

        Returns:
            logits f32[N, K], float64 for float64 images; with `num_classes=0` what the last dense
            layer would have read.

        Raises:
            InputError: the images have another rank, another type or a size that does not fit.
        """
        features = self.features(images, train)
        if train or self.is_initializing():  # every parameter exists, however it was initialized
            for name, head in self.auxiliary.items():
                logits = at_least_float32(head(features[name], train))
                if not self.is_initializing():
                    # One array under its name, not sow's growing tuple.
                    self.sow("auxiliary", name, logits, lambda _, new: new, lambda: None)
        *_, last = features.values()
        with _explained(images):
            return at_least_float32(self.head(last, train))

    def features(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """The backbone's named feature maps: `model.apply(v, images, method="features")`.

        Args:
            images: float[N, H, W, C].
            train: as in `__call__`.

        Returns:
            [N, h, w, c] by name, from shallow to deep, under `jit` too.

        Raises:
            InputError: as in `__call__`.
        """
        self._check(images)
        with _explained(images):
            # JAX sorts the keys of a dict that crosses jit, but keeps the order of an OrderedDict.
            return OrderedDict(self.backbone(images, train))

    def _check(self, images: jax.Array) -> None:
        shape = jnp.shape(images)
        if len(shape) != 4:
            hint = "; add the batch axis with images[None]" if len(shape) == 3 else ""
            raise InputError(f"images: wanted [N, H, W, C], got shape {shape}{hint}")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(
                f"images: wanted floats, got {images.dtype}; convert them, for instance "
                "images.astype(float32) / 255"
            )
        height, width = shape[1:3]
        low, high = self.min_size, self.max_size
        if min(height, width) < low or (high is not None and max(height, width) > high):
            fits = f"{low} x {low}" if low == high else f"at least {low} x {low}"
            if high not in (None, low):
                fits += f" and at most {high} x {high}"
            raise InputError(
                f"images: {self.model_name} takes {fits} pixels, got {height} x {width}; "
                "resize or pad them"
            )


@contextlib.contextmanager
def _explained(images: jax.Array) -> Iterator[None]:
    """Says what it means that a parameter does not fit its input."""
    try:
        yield
    except ScopeParamShapeError as error:
        height, width, channels = jnp.shape(images)[1:]
        raise InputError(
            f"images: {height} x {width} pixels of {channels} channels do not fit the parameters, which "
            "were made for another size or number of channels; convert the images, or initialize the "
            "model with images like these"
        ) from error
