"""The formats in which weights are kept. A further one is a row of `FORMATS`.

No reader runs what is in a file: arrays, text and numbers are read, and all else is refused.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxnets.errors import InputError
from jaxnets.weights import files, flax_files, keras, keras_files, numpy_files, slim, tf_checkpoints


class Contents(NamedTuple):
    """What was kept together.

    Attributes:
        tensors: arrays, or objects that NumPy can read, by name.
        metadata: text by name.
        config: of the model, as its library writes it.
    """

    tensors: Mapping[str, Any]
    metadata: Mapping[str, str] = {}
    config: Mapping[str, Any] = {}


class Format(NamedTuple):
    """A format of files, of directories, or of several files whose names begin alike.

    Attributes:
        endings: of the names of such files, in lower case.
        holds: whether a path is of it by its content, whatever its name; False where there is nothing.
        read: the contents of a path. It raises InputError, with the path in its text, for what is
            missing, damaged or of another kind.
        library: whose names the tensors have; None where many use the format.
    """

    endings: tuple[str, ...]
    holds: Callable[[Path], bool]
    read: Callable[[Path], Contents]
    library: str | None = None


def _read_torch(path: Path) -> Contents:
    if path.suffix == ".ckpt" and path.is_file() and tf_checkpoints.begins_as_table(path):
        raise InputError(
            f"{path} is no whole checkpoint of torch or TensorFlow; fetch or write it again"
        )
    return Contents(files.read_torch(path))


def _read_keras(path: Path) -> Contents:
    tensors, config = keras_files.read_keras(path)
    return Contents(tensors, config=config)


def _read_tensorflow(path: Path) -> Contents:
    prefix = tf_checkpoints.prefix_of(path)
    read = tf_checkpoints.read_archive if prefix is None else tf_checkpoints.read_tensorflow
    return Contents(slim.state_dict(read(prefix or path)))


SAFETENSORS = Format(
    files.SAFETENSORS, files.is_safetensors, lambda path: Contents(*files.read_safetensors(path))
)
TORCH = Format((*files.TORCH, *files.CHECKPOINTS), files.is_torch, _read_torch)
NUMPY = Format(
    numpy_files.NUMPY, numpy_files.is_numpy, lambda path: Contents(numpy_files.read_numpy(path))
)
FLAX = Format(flax_files.FLAX, flax_files.is_flax, lambda path: Contents(flax_files.read_flax(path)))
KERAS = Format(keras_files.ENDINGS, keras_files.is_keras, _read_keras, keras.KERAS)
TENSORFLOW = Format(
    tf_checkpoints.ARCHIVES,
    lambda path: tf_checkpoints.prefix_of(path) is not None,
    _read_tensorflow,
    slim.LIBRARY,
)

FORMATS = (SAFETENSORS, TORCH, NUMPY, FLAX, KERAS, TENSORFLOW)

ENDINGS = tuple(ending for kind in FORMATS for ending in kind.endings)


def format_of(path: Path) -> Format | None:
    """The format of what is at a path, by its content, or else by the ending of its name, of which
    there need be no file; None where neither is known."""
    by_content = next((kind for kind in FORMATS if kind.holds(path)), None)
    if by_content or path.is_dir():
        return by_content
    return next((kind for kind in FORMATS if path.name.lower().endswith(kind.endings)), None)
