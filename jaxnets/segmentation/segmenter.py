"""What all segmenters share: maps of a backbone, a decoder that scores their positions, and a resize."""

from collections.abc import Mapping

import jax
from flax import linen as nn
from flax.core import FrozenDict

from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError
from jaxnets.layers import resize_bilinear
from jaxnets.layers.initialization import InitializedAtOnce
from jaxnets.models.resizing import Resizing


class Segmenter(InitializedAtOnce):
    """Scores each pixel. Its parameters are those of its parts: `backbone`, `decoder` and one
    `auxiliary_<name of a map>` for each auxiliary head.

    Attributes:
        backbone: a module, `backbone(images, train) -> dict[str, Array]`.
        decoder: a module, `decoder(maps, size, train) -> logits [N, h, w, K]`, where `size` is the
            (height, width) of the images; logits of another size are resized to it.
        num_classes: the K of the logits, the background among them.
        auxiliary: further heads by the name of the map that each reads, `head(map, train)`. They only
            help training: in train mode their logits, in the size of the images, are sown in the
            collection "auxiliary", by the same names.
        align_corners: of the last resize; see `jaxnets.layers.resize_bilinear`.
        input_size: (height, width, channels) to initialize it with.
        min_size: the shortest side of an image.
        resizing: of the pictures.
        class_names: by label; labels stand for themselves where there are none.
        model_name: what the registry calls it.
    """

    backbone: nn.Module
    decoder: nn.Module
    num_classes: int
    auxiliary: Mapping[str, nn.Module] = FrozenDict()
    align_corners: bool = False
    input_size: tuple[int, int, int] = (520, 520, 3)
    min_size: int = 1
    resizing: Resizing = Resizing(520, None)
    class_names: tuple[str, ...] = ()
    model_name: str = "the segmenter"

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Scores of each class at each pixel.

        Args:
            images: float[N, H, W, C], normalized.
            train: whether normalization uses (and updates) the statistics of this batch, units are
                dropped (from the key "dropout") and auxiliary heads run.

        Returns:
            logits f32[N, H, W, K], float64 for float64 images.

        Raises:
            InputError: the images have another rank or type, or are too small.
        """
        self._check(images)
        size = images.shape[1:3]
        maps = self.backbone(images, train)
        if train or self.is_initializing():  # every parameter exists, however it was initialized
            for name, head in self.auxiliary.items():
                logits = self._resized(head(maps[name], train), size)
                if not self.is_initializing():
                    self.sow("auxiliary", name, logits, lambda _, new: new, lambda: None)
        return self._resized(self.decoder(maps, size, train), size)

    def _resized(self, logits: jax.Array, size: tuple[int, int]) -> jax.Array:
        return resize_bilinear(at_least_float32(logits), size, align_corners=self.align_corners)

    def _check(self, images: jax.Array) -> None:
        shape = jax.numpy.shape(images)
        if len(shape) != 4 or not jax.numpy.issubdtype(images.dtype, jax.numpy.floating):
            raise InputError(
                f"images: wanted floats [N, H, W, C], got {images.dtype}{list(shape)}; add a batch axis "
                "with images[None], or convert pixels by images.astype(float32) / 255"
            )
        if min(shape[1:3]) < self.min_size:
            raise InputError(
                f"images: {self.model_name} takes at least {self.min_size} x {self.min_size} pixels, "
                f"got {shape[1]} x {shape[2]}; resize or pad them"
            )
