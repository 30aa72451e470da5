"""Reading of TensorFlow's checkpoints, without TensorFlow.

Two forms are read. Of version 2 are `NAME.index`, a table that says of each tensor where its bytes are,
and beside it `NAME.data-00000-of-00001` and the like, which hold them. Of version 1 is a single file,
often called `NAME.ckpt`, a table that holds the tensors itself. Both tables are those of LevelDB:
sorted keys in blocks, not compressed. Their values are Protocol Buffers, of which a few fields are
needed. Only numbers are read; checksums are not compared.
"""

import mmap
import re
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.errors import InputError

INDEX = ".index"
ARCHIVES = (".tar.gz", ".tgz")
STATE = "checkpoint"  # the file in a directory that names the last checkpoint there

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)  # the end of a table
_FOOTER = 48  # bytes
_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_LAST = re.compile(r'^model_checkpoint_path: "(?P<path>.+)"', re.MULTILINE)

# By the number of the type in `types.proto`; text and resources are left out.
_DTYPES = {
    1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64,
    10: np.bool_, 14: jnp.bfloat16, 17: np.uint16, 19: np.float16, 22: np.uint32, 23: np.uint64,
}  # fmt: skip
_RAW = {1: 5, 2: 6}  # of a type in version 1 the field that has the numbers: as they are,
_VARINTS = {3: 7, 9: 10}  # or each as a varint


@dataclass(frozen=True)
class TensorFlowTensor:
    """A tensor of a checkpoint that is read when NumPy asks for it.

    Attributes:
        content: its bytes in the mapped file.
        shape, dtype: of the tensor.
    """

    content: memoryview
    shape: tuple[int, ...]
    dtype: np.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = np.frombuffer(self.content, self.dtype).reshape(self.shape)
        return value.copy() if dtype is None else value.astype(dtype)


def prefix_of(path: Path) -> Path | None:
    """The checkpoint that a path means: its file of version 1, or the `NAME` of its files of version 2.

    Args:
        path: one of these, one of the files of version 2, or a directory with a file `checkpoint` or
            with the files of one checkpoint.

    Returns:
        None where there is no checkpoint.
    """
    if path.is_dir():
        return _last_in(path)
    prefix = Path(_PART.sub("", str(path)))
    if _beside(prefix, INDEX).is_file():
        return prefix
    return path if _ends_as_table(path) else None


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The tensors of the checkpoint in an archive, as TF-Slim published them.

    Raises:
        InputError: as for `read_tensorflow`, or there is no checkpoint in it, or several.
    """
    try:
        with tarfile.open(path) as archive, tempfile.TemporaryDirectory() as folder:
            for member in archive:
                if member.isfile():
                    member.name = Path(member.name).name
                    archive.extract(member, folder, filter="data")
            prefix = prefix_of(Path(folder))
            if prefix is None:
                raise InputError(f"{path} holds no checkpoint of TensorFlow, or several")
            return {name: np.array(tensor) for name, tensor in read_tensorflow(prefix).items()}
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} is no whole archive ({error}); fetch it again") from None


def _last_in(directory: Path) -> Path | None:
    if (directory / STATE).is_file():
        last = _LAST.search((directory / STATE).read_text(errors="replace"))
        # The path may be that on the machine that wrote it.
        found = last and prefix_of(directory / Path(last["path"]).name)
        if found:
            return found
    files = (*directory.glob(f"*{INDEX}"), *directory.glob("*.ckpt"))
    found = {prefix_of(path) for path in files if path.is_file()} - {None}
    return found.pop() if len(found) == 1 else None


def _beside(prefix: Path, ending: str) -> Path:
    return prefix.parent / (prefix.name + ending)


def _ends_as_table(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size < _FOOTER:
        return False
    with path.open("rb") as file:
        file.seek(-len(_MAGIC), 2)
        return file.read() == _MAGIC


def begins_as_table(path: Path) -> bool:
    """Whether a file begins as one of version 1, or is empty, as when it was cut short."""
    with path.open("rb") as file:
        return b"\0\0".startswith(file.read(2))  # the first key shares nothing and is empty


def read_tensorflow(prefix: Path) -> dict[str, TensorFlowTensor | np.ndarray]:
    """The tensors of a checkpoint by name.

    Args:
        prefix: of `prefix_of`.

    Raises:
        InputError: a file is missing, cut short or damaged, or tensors are partitioned.
    """
    index = _beside(prefix, INDEX)
    try:
        return _version_2(prefix, index) if index.is_file() else _version_1(prefix)
    except InputError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise InputError(
            f"{prefix} is no whole checkpoint of TensorFlow ({error}); fetch or write it again"
        ) from None


def _version_2(prefix: Path, index: Path) -> dict[str, TensorFlowTensor | np.ndarray]:
    tensors, shards, count = {}, {}, 1
    for key, value in _entries(_mapped(index)):
        entry = _message(value)
        if not key:  # the header
            count = entry.get(1, 1)
            continue
        dtype = _DTYPES.get(entry.get(1, 0))
        if dtype is None:
            continue
        if 7 in entry:
            raise _partitioned(index, key)
        number, start, size = entry.get(3, 0), entry.get(4, 0), entry.get(5, 0)
        if number not in shards:
            shards[number] = _mapped(_beside(prefix, f".data-{number:05}-of-{count:05}"))
        content = shards[number][start : start + size]
        if len(content) != size:
            raise ValueError(f"{key} is beyond the end of its data")
        tensors[key] = _tensor(key, content, _shape(entry.get(2, b"")), dtype)
    return tensors


def _version_1(path: Path) -> dict[str, TensorFlowTensor | np.ndarray]:
    tensors, about = {}, {}
    for key, value in _entries(_mapped(path)):
        entry = _message(value)
        if not key:
            every = (_message(tensor) for number, tensor in _fields(entry[1]) if number == 1)
            about = {str(of[1], "utf-8"): (of[3], _shape(of.get(2, b""))) for of in every}
            continue
        saved = _message(entry[2])
        name, content = str(saved[1], "utf-8"), _message(saved[3])
        kind, shape = about[name]
        if name in tensors:
            raise _partitioned(path, name)
        if kind in _RAW:
            tensors[name] = _tensor(name, content[_RAW[kind]], shape, _DTYPES[kind])
        elif kind in _VARINTS:
            numbers = np.array(list(_varints(content[_VARINTS[kind]])), np.uint64)
            tensors[name] = numbers.astype(_DTYPES[kind]).reshape(shape)
    return tensors


def _partitioned(path: Path, name: str) -> InputError:
    return InputError(f"{path} has {name} in several parts; save it again without a partitioner")


def _tensor(name: str, content: memoryview, shape: tuple[int, ...], dtype: Any) -> TensorFlowTensor:
    dtype = np.dtype(dtype)
    if len(content) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{name} has {len(content)} bytes, which shape {shape} of {dtype} does not fit")
    return TensorFlowTensor(content, shape, dtype)


def _mapped(path: Path) -> memoryview:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; it belongs to the checkpoint beside it")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _entries(table: memoryview) -> Iterator[tuple[str, memoryview]]:
    """The keys and values of a table. (In version 1 the keys are not the names; only "" matters.)"""
    if len(table) < _FOOTER or bytes(table[-len(_MAGIC) :]) != _MAGIC:
        raise ValueError("its end is missing")
    _, _, start, size, *_ = _varints(table[-_FOOTER : -len(_MAGIC)])
    for _, handle in _in_block(table, start, size):
        start, size, *_ = _varints(handle)
        for key, value in _in_block(table, start, size):
            yield key.decode(errors="replace"), value


def _in_block(table: memoryview, start: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    block = table[start : start + size]
    if len(block) != size or table[start + size] != 0:
        raise ValueError("a block is missing or compressed")
    (restarts,) = struct.unpack("<I", block[-4:])
    position, end, key = 0, size - 4 * (restarts + 1), b""
    while position < end:
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + bytes(block[position : position + added])
        position += added
        yield key, block[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number at a position, 7 bits a byte, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        value, shift, position = value | (byte & 0x7F) << shift, shift + 7, position + 1
        if byte < 0x80:
            return value, position


def _varints(data: memoryview) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a Protocol Buffer by their numbers: varints as numbers, others as bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            length, position = _varint(data, position)
        if length is None or position + length > len(data):
            raise ValueError("an entry is cut short")
        yield tag >> 3, data[position : position + length]
        position += length


def _message(data: memoryview) -> dict[int, Any]:
    """The fields of which there is one; of others the last."""
    return dict(_fields(data))


def _shape(data: memoryview) -> tuple[int, ...]:
    dimensions = [value for number, value in _fields(data) if number == 2]
    return tuple(_message(dimension).get(1, 0) for dimension in dimensions)
