"""From an image file to the record of a smaller JPEG."""

import errno
import io
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from jaxnets.data import decoding, records


class Job(NamedTuple):
    """An image file that becomes a record: its path, its name in the folder, and its label."""

    path: str
    name: str
    label: int


def example_of(job: Job, size: int, quality: int) -> bytes | str:
    """The record of an image, or why it cannot be read.

    Raises:
        OSError: the disk fails, rather than the file.
    """
    try:
        image = shortened(job.path, size, quality)
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # Pillow's plugins raise nearly anything on a broken file
        if getattr(error, "errno", None) not in (None, errno.ENOENT, errno.EACCES):
            raise
        return decoding.describe(error)
    return records.encode(image, job.label, job.name)


def shortened(path: str, size: int, quality: int) -> bytes:
    """An image as an RGB JPEG whose shorter side is at most `size` pixels.

    An RGB JPEG that is small enough stays as it is.

    Raises:
        Exception: of nearly any type, if the file is broken.
    """
    with Image.open(path, formats=decoding.FORMATS) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        if min(image.size) <= size and (image.format, image.mode) == ("JPEG", "RGB") and upright:
            image.load()  # raises if it is broken
            return Path(path).read_bytes()
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        image = Image.fromarray(decoding.fit(image, None, channels=3))
    scale = size / min(image.size)
    if scale < 1:
        # An even difference, so that reading at this size crops whole pixels.
        sides = [size + 2 * round((scale * side - size) / 2) for side in image.size]
        image = image.resize(sides, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
