"""Reading of weights from NumPy's archives, such as those of Google's Vision Transformers.

NumPy keeps arrays of objects as pickles, which can hold any program: they are refused.
"""

import contextlib
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxnets.errors import InputError
from jaxnets.weights import files

NUMPY = (".npz",)

_NPY = b"\x93NUMPY"
_ADVICE = "allow_pickle"
_BIT = "standardized_conv2d"  # in its names


def is_numpy(path: Path) -> bool:
    """Whether a file is an archive of arrays, or a single array, by its content."""
    start = files.start_of(path)
    if start.startswith(_NPY):
        return True
    if not start.startswith(files.ZIP):
        return False
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as entries:
        return any(name.endswith(".npy") for name in entries.namelist())
    return False


def read_numpy(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive by name.

    Raises:
        InputError: the file is missing, cut short or of another kind; it holds objects, which are not
            made; or its model is a BiT.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    start = files.start_of(path)
    if not start.startswith(files.ZIP):
        what = "a single array, or an object" if start.startswith(_NPY) else "no archive of NumPy's"
        raise InputError(
            f"{path} is {what}; wanted arrays by name, as numpy.savez writes them, or .safetensors"
        )
    # NumPy's own texts are not passed on: they advise to allow pickles.
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: _in_known_types(archive[key]) for key in archive.files}
    except Exception as error:  # zipfile and NumPy raise nearly anything on a broken file
        if _ADVICE in str(error):
            raise InputError(
                f"{path} is refused, and nothing in it was run: it holds more than arrays of numbers, "
                "or is damaged; save arrays alone, best as .safetensors"
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} is no whole archive of NumPy's ({reason}); fetch or write it again"
        ) from None
    if any(_BIT in key for key in arrays):
        raise InputError(
            f"{path} holds a BiT, a ResNet v2 with standardized kernels and group normalization, which "
            "is none of the models here; `jaxnets models --pretrained 'resnetv2*'` lists the nearest"
        )
    arrays = {key: value for key, value in arrays.items() if value is not None}
    if not arrays:
        raise InputError(f"{path} holds no arrays of numbers; wanted weights by name")
    return arrays


def _in_known_types(value: np.ndarray | bytes) -> np.ndarray | None:
    """The array; None for other files in the archive, and for text."""
    if not isinstance(value, np.ndarray):
        return None
    if value.dtype == np.dtype("V2"):  # as NumPy writes brain floats
        return value.view(jnp.bfloat16)
    return value if value.dtype.kind in "biuf" else None
