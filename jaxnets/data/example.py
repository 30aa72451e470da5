"""Examples, which are dicts of arrays, and augmentations, which are functions of them.

========================  ===================================================================
``image``                 f32[H, W, C] in [0, 1]
``size``                  i32[2], height and width of the picture in the upper left of the image, which
                          is black elsewhere; if absent, it fills the image
``ratio``                 f32[2], (x, y) pixels per pixel of the picture's file, before augmentation
``label``                 i32[], the class of the image; u8[K], 1 for each class of an image that
                          may have several; or i32[M], one for each object
``captions``              i32[S, T]
``box``                   f32[M, 4], in pixels: left, top, right, bottom (xyxy) of each object
``valid``                 bool[M], False for padding; if absent, all objects are valid
``mask``                  bool[M, H, W], or float in [0, 1], the pixels of each object
``crowd``                 bool[M], whether the box or mask holds a crowd of objects
``difficult``             bool[M], whether the object is hard to recognize (PASCAL VOC)
``area``                  f32[M], of the object in its picture's file, in pixels
``segmentation``          u8 or i32[H, W], the class of each pixel, or `IGNORE`
========================  ===================================================================

An example has an `image` and the annotations of its task. Box coordinates lie between pixels: a box
around the whole image is (0, 0, W, H), and the center of the first pixel is at (0.5, 0.5).
"""

from collections.abc import Callable

import jax

from jaxnets.data.resampling import cut_image, surrounded
from jaxnets.errors import InputError

Example = dict[str, jax.Array]
Augmentation = Callable[[jax.Array, Example], Example]
ImageFunction = Callable[[jax.Array, jax.Array], jax.Array]

KEYS = (
    "image", "size", "ratio", "label", "captions", "box", "valid", "mask", "crowd", "difficult", "area",
    "segmentation",
)  # fmt: skip
"""The keys of an example. A batch has them stacked, and others that augmentations leave unchanged."""

IGNORE = 255
"""The label of pixels that are excluded from losses and metrics, as in PASCAL VOC."""


def on_image(function: ImageFunction) -> Augmentation:
    """Makes an augmentation from a function that changes an image without moving its pixels.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> darker = on_image(lambda key, image: image * jax.random.uniform(key, maxval=0.5))
        >>> example = {"image": jnp.ones((2, 2, 3)), "label": jnp.int32(7)}
        >>> darker(jax.random.key(0), example)["image"].max() < 0.5
        Array(True, dtype=bool)

    Args:
        function: ``function(key, image) -> image`` for one image f32[H, W, C] in [0, 1].

    Returns:
        The augmentation ``augment(key, example) -> example``, which raises `InputError` if its
        argument is not an example. What is around its picture stays black; the function sees the
        picture's mean there.
    """

    def augment(key: jax.Array, example: Example) -> Example:
        check(example)
        image = example["image"]
        if "size" not in example:
            return {**example, "image": function(key, image)}
        size = tuple(example["size"])
        return {**example, "image": cut_image(function(key, surrounded(image, size)), size)}

    return augment


def check(example: Example) -> None:
    """Checks that something is an example whose masks and label map have the size of its image.

    Raises:
        InputError: it is not; the message names the entry and the expected shape.
    """
    if not isinstance(example, dict) or "image" not in example:
        got = f"a dict of {sorted(example)}" if isinstance(example, dict) else type(example).__name__
        raise InputError(
            f'an augmentation takes an example, a dict with `image`, got {got}; give {{"image": image}}'
        )
    shape = example["image"].shape
    if len(shape) != 3:
        raise InputError(
            f"image must be [H, W, C], got {list(shape)}; use augmentation.apply for a batch"
        )
    size = shape[:2]
    for name, ndim in (("mask", 3), ("segmentation", 2)):
        if name in example and (example[name].ndim != ndim or example[name].shape[-2:] != size):
            wanted = ["M", *size][3 - ndim :]
            raise InputError(
                f"{name} must be [{', '.join(map(str, wanted))}] for an image of {list(size)}, "
                f"got {list(example[name].shape)}"
            )
    if "size" in example and example["size"].shape != (2,):
        raise InputError(f"size must be [2], height and width, got {list(example['size'].shape)}")
    if "box" in example and (example["box"].ndim != 2 or example["box"].shape[1] != 4):
        raise InputError(f"box must be [M, 4], got {list(example['box'].shape)}")
    counts = {name: len(example[name]) for name in ("box", "mask", "valid") if name in example}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"box, mask and valid must have one entry for each object, got {told}")
