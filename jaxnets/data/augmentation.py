"""Augmentations by name, for examples and for batches, and their composition.

All run on the device inside the compiled step, and are pure functions of a key. An augmentation of
examples is ``augment(key, example) -> example`` on a dict of arrays (`jaxnets.data.example`), created
by a factory that takes its parameters (`jaxnets.data.geometry`, `color`, `enhancing`, `policies`); it
preserves shapes, dtypes and the range of the image. `on_image` turns a function
``(key, image) -> image`` into an augmentation, and `moving` a random movement of pixels. An augmentation
of batches is ``augment(key, images, targets) -> (images, targets)`` on f32[N, H, W, C] and f32[N, K].
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from jaxnets.data import checks, color, crops, enhancing, geometry, perspective, policies
from jaxnets.data.example import IGNORE, KEYS, Augmentation, Example, on_image
from jaxnets.data.movement import Movement, move, moving
from jaxnets.errors import InputError, unknown_name

__all__ = [
    "AUGMENTATIONS",
    "BATCH_AUGMENTATIONS",
    "COLOR",
    "CROPS",
    "GEOMETRY",
    "IGNORE",
    "POLICIES",
    "PRESETS",
    "Augmentation",
    "BatchAugmentation",
    "Example",
    "Movement",
    "apply",
    "by_name",
    "cifar",
    "compose",
    "cutmix",
    "digits",
    "imagenet",
    "mixup",
    "move",
    "moving",
    "objects",
    "on_image",
    "segmentation",
    "ssd",
]

BatchAugmentation = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def compose(*augmentations: Augmentation) -> Augmentation:
    """Applies several augmentations in sequence, each with its own key."""

    def augment(key: jax.Array, example: Example) -> Example:
        keys = jax.random.split(key, max(len(augmentations), 1))
        for augmentation, own_key in zip(augmentations, keys, strict=False):
            example = augmentation(own_key, example)
        return example

    return augment


def apply(key: jax.Array, batch: Example, augmentation: Augmentation) -> Example:
    """Augments every example of a batch, each with its own key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> batch = {"image": jnp.ones((8, 32, 32, 3)), "label": jnp.arange(8), "weight": jnp.ones(8)}
        >>> augmented = apply(jax.random.key(0), batch, cifar())
        >>> sorted(augmented), augmented["image"].shape
        (['image', 'label', 'weight'], (8, 32, 32, 3))

    Args:
        key: a PRNG key.
        batch: the entries of `example.KEYS`, stacked: image f32[N, H, W, C] in [0, 1] and, if present,
            box f32[N, M, 4] and so on. Other entries, such as `weight`, are unchanged.
        augmentation: an augmentation of one example.

    Returns:
        The augmented batch.
    """
    # As arrays of JAX: in jit(vmap(custom_vjp)) JAX 0.10.2 takes no constants of NumPy.
    stacked = {name: jnp.asarray(value) for name, value in batch.items() if name in KEYS}
    keys = jax.random.split(key, len(batch["image"]))
    return {**batch, **jax.vmap(augmentation)(keys, stacked)}


def mixup(alpha: float = 0.2) -> BatchAugmentation:
    """Mixes each image and its target with those of another (mixup, Zhang et al. 2018).

    As in the authors' code, one mixing weight, drawn from Beta(alpha, alpha), applies to the whole
    batch, and the partners are a random permutation of it. With an `alpha` of 0 nothing is mixed.

    Raises:
        InputError: `alpha` below 0, or, when called, targets that are not f32[N, K].
    """
    checks.within("alpha", alpha, 0)

    def augment(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        _check_targets(images, targets)
        share_key, partner_key = jax.random.split(key)
        share = _beta(share_key, alpha).astype(images.dtype)
        partner = jax.random.permutation(partner_key, len(images))
        return (
            share * images + (1 - share) * images[partner],
            share * targets + (1 - share) * targets[partner],
        )

    return augment


def cutmix(alpha: float = 1.0) -> BatchAugmentation:
    """Pastes a box of another image into each image (CutMix, Yun et al. 2019).

    As in the authors' code, one box applies to the whole batch: its center is uniform, its sides are
    ``sqrt(1 - share)`` times those of the image, with the share drawn from Beta(alpha, alpha), and it
    is clipped at the borders. The targets are mixed by the fraction of pixels that were pasted.

    Raises:
        InputError: as for `mixup`.
    """
    checks.within("alpha", alpha, 0)

    def augment(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        _check_targets(images, targets)
        share_key, center_key, partner_key = jax.random.split(key, 3)
        _, height, width, _ = images.shape
        side = jnp.sqrt(1 - _beta(share_key, alpha))
        draws = jax.random.uniform(center_key, (2,), jnp.float32)
        row = geometry.whole_number(draws[0], height)
        column = geometry.whole_number(draws[1], width)
        box_height = jnp.floor(side * height).astype(jnp.int32)
        box_width = jnp.floor(side * width).astype(jnp.int32)
        top, left = row - box_height // 2, column - box_width // 2
        box = geometry.inside_box(height, width, top, left, top + box_height, left + box_width)
        partner = jax.random.permutation(partner_key, len(images))
        pasted = box.sum().astype(targets.dtype) / box.size
        return (
            jnp.where(box[None, ..., None], images[partner], images),
            (1 - pasted) * targets + pasted * targets[partner],
        )

    return augment


def _beta(key: jax.Array, alpha: float) -> jax.Array:
    """A draw from Beta(alpha, alpha); 1 for an alpha of 0, where the limit is 0 or 1."""
    return jax.random.beta(key, alpha, alpha, dtype=jnp.float32) if alpha else jnp.float32(1)


def _check_targets(images: jax.Array, targets: jax.Array) -> None:
    if targets.ndim != 2 or len(targets) != len(images):
        raise InputError(
            f"targets must be one-hot, f32[{len(images)}, K], got {targets.dtype}"
            f"{list(targets.shape)}; use jax.nn.one_hot(labels, num_classes)"
        )


def digits() -> Augmentation:
    """For digits: slight rotation, shear, stretch and translation, which preserve the class; no flip."""
    return geometry.random_affine(degrees=10, translate=0.06, shear=10, stretch=1.1)


def cifar() -> Augmentation:
    """For small photographs: pad and crop, then flip (He et al. 2015, section 4.2)."""
    return compose(geometry.pad_and_crop(), geometry.random_flip())


def imagenet() -> Augmentation:
    """For large photographs: crop and resize, then flip (Szegedy et al. 2014, section 6)."""
    return compose(geometry.random_resized_crop(), geometry.random_flip())


def objects() -> Augmentation:
    """For pictures with objects: moderate scale jitter, then flip (Ghiasi et al. 2021, section 3)."""
    return compose(crops.scale_jitter((0.8, 1.25)), geometry.random_flip())


def segmentation() -> Augmentation:
    """For label maps: scale jitter of a half to twice, then flip, as torchvision's references."""
    return compose(crops.scale_jitter((0.5, 2.0)), geometry.random_flip())


def ssd() -> Augmentation:
    """Colors, crops that keep objects, flip, as SSD (Liu et al. 2016, section 2.2); no zooming out."""
    return compose(color.photometric_distortion(), crops.iou_crop(), geometry.random_flip())


GEOMETRY: dict[str, Callable[..., Augmentation]] = {
    "flip": geometry.random_flip,
    "crop": geometry.pad_and_crop,
    "resized_crop": geometry.random_resized_crop,
    "translate": geometry.random_translate,
    "rotate": geometry.random_rotate,
    "shear": geometry.random_shear,
    "stretch": geometry.random_stretch,
    "lens": geometry.lens_distortion,
    "perspective": perspective.random_perspective,
}
CROPS: dict[str, Callable[..., Augmentation]] = {
    "scale_jitter": crops.scale_jitter,
    "iou_crop": crops.iou_crop,
}
COLOR: dict[str, Callable[..., Augmentation]] = {
    "color": color.color_jitter,
    "photometric": color.photometric_distortion,
    "gray": color.random_gray,
    "channel_mix": color.random_channel_mix,
    "noise": color.gaussian_noise,
    "erase": color.random_erasing,
    "posterize": enhancing.random_posterize,
    "solarize": enhancing.random_solarize,
    "invert": enhancing.random_invert,
    "autocontrast": enhancing.random_autocontrast,
    "equalize": enhancing.random_equalize,
    "sharpness": enhancing.random_sharpness,
    "blur": enhancing.gaussian_blur,
}
POLICIES: dict[str, Callable[..., Augmentation]] = {
    "randaugment": policies.randaugment,
    "trivialaugment": policies.trivialaugment,
    "augmix": policies.augmix,
}
AUGMENTATIONS = GEOMETRY | CROPS | COLOR | POLICIES
PRESETS: dict[str, Callable[[], Augmentation]] = {
    "digits": digits,
    "cifar": cifar,
    "imagenet": imagenet,
    "objects": objects,
    "segmentation": segmentation,
    "ssd": ssd,
}
BATCH_AUGMENTATIONS: dict[str, Callable[..., BatchAugmentation]] = {
    "mixup": mixup,
    "cutmix": cutmix,
}


def by_name(names: Iterable[str]) -> Augmentation:
    """Composes augmentations and presets by name, with their default parameters.

    Args:
        names: keys of `AUGMENTATIONS` and `PRESETS`.

    Raises:
        InputError: an unknown name.
    """
    known = AUGMENTATIONS | PRESETS
    for name in names:
        if name not in known:
            raise unknown_name("augmentation", name, [*known, "none"])
    return compose(*(known[name]() for name in names))
