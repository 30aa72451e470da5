"""Pictures that come with scikit-learn, to draw scenes of: handwritten digits and two photographs."""

import functools

import numpy as np

CLASSES = 10
PHOTO_SIDES = (2.0, 3.0, 4.0)  # heights of the photographs, as multiples of the image's side


@functools.cache
def handwriting() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, float[1797, 8, 8] in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16, digits.target


@functools.cache
def glyphs_by_digit(held_out: bool) -> list[list[int]]:
    """The indices of the handwritten images of each digit; every fifth is held out."""
    _, targets = handwriting()
    parts = [np.flatnonzero(targets == digit) for digit in range(CLASSES)]
    return [part[(np.arange(len(part)) % 5 == 0) == held_out].tolist() for part in parts]


@functools.lru_cache(maxsize=4096)
def glyph(number: int, extent: int) -> np.ndarray:
    """A handwritten digit as opacity, float32[extent, extent] in [0, 1]."""
    from PIL import Image

    image = Image.fromarray((handwriting()[0][number] * 255).astype(np.uint8))
    return np.asarray(image.resize((extent, extent), Image.Resampling.BICUBIC), np.float32) / 255


@functools.cache
def photographs(side: int) -> list[np.ndarray]:
    """The two photographs in several sizes, uint8[H, W, 3]."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    found = []
    for photo in load_sample_images().images:
        for factor in PHOTO_SIDES:
            height = round(side * factor)
            width = round(height * photo.shape[1] / photo.shape[0])
            resized = Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR)
            found.append(np.asarray(resized))
    return found
