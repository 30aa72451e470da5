"""Reading and writing of weights: safetensors, and torch's own files by torch.

Each tensor of a safetensors file is read when it is asked for, so loading takes little more memory than
the weights. (The file is not memory-mapped: its pages would stay in memory beside the arrays made of
them.) What torch saved is a pickle, which can hold any program: it is only opened by torch with
`weights_only=True`, which runs none.
"""

import argparse
import contextlib
import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.errors import InputError, some
from jaxnets.models import list_models, published_weights
from jaxnets.weights.unwrapping import flattened

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pt", ".bin")
CHECKPOINTS = (".ckpt", ".tar", ".th")  # further endings of what torch saved

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_PUBLISHED_HASH = re.compile(r"-(?P<sha>[0-9a-f]{8,64})\.pth$")
ZIP = b"PK\x03\x04"
_LEGACY = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch.serialization.MAGIC_NUMBER, in a pickle
_ADVICE = "weights_only"
_LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself allows
_PATHLIBS = ("pathlib", "pathlib._local")  # of Python before 3.13 and from then on
_NUMPYS = ("numpy._core.multiarray", "numpy.core.multiarray")  # of version 2 and before
_UNKNOWN = re.compile(r"GLOBAL (?P<name>\S+)")


@dataclass(frozen=True)
class TorchTensor:
    """A tensor of torch's, in NumPy's types.

    Attributes:
        tensor: on a CPU.
    """

    tensor: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        tensor = self.tensor.detach()
        if str(tensor.dtype) == "torch.bfloat16":  # which NumPy does not have
            value = tensor.float().numpy().astype(jnp.bfloat16)
        else:
            try:
                value = tensor.numpy()
            except (TypeError, RuntimeError) as error:  # such as quantized ones
                raise InputError(f"a tensor of {tensor.dtype} cannot be read: {error}") from None
        return value if dtype is None else value.astype(dtype, copy=False)


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of a file that is read when NumPy asks for it.

    Attributes:
        file: the open file.
        key: its name there.
        shape, dtype: as there.
    """

    file: Any
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.file.get_tensor(self.key)  # always a copy
        return value if dtype is None else value.astype(dtype, copy=False)


def read_safetensors(path: str | Path) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """The tensors of a safetensors file by name, none read yet, and the file's metadata.

    Raises:
        InputError: the file is missing, cut short or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="np", backend="pread")
        tensors = {}
        for key in file.keys():  # noqa: SIM118 (it is no mapping)
            about = file.get_slice(key)
            dtype = about.get_dtype()
            if dtype not in _DTYPES:
                raise InputError(f"{path} has {key} as {dtype}; wanted one of {', '.join(_DTYPES)}")
            tensors[key] = LazyTensor(file, key, tuple(about.get_shape()), np.dtype(_DTYPES[dtype]))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is no whole safetensors file ({error}); fetch or write it again"
        ) from error
    return tensors, file.metadata() or {}


def write_safetensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes arrays by name, and text by name as `metadata`; its "format" is "pt", as readers of torch's
    weights expect."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {key: np.asarray(value, order="C") for key, value in tensors.items()}
    try:
        save_file(arrays, path, metadata={**(metadata or {}), "format": "pt"})
    except SafetensorError as error:
        raise InputError(f"{path} cannot be written: {error}") from None


def is_safetensors(path: Path) -> bool:
    """Whether a file is one by its content, whatever its name."""
    start = start_of(path)
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length < min(_LONGEST_HEADER, path.stat().st_size)


def is_torch(path: Path) -> bool:
    """Whether torch saved a file, by its content: a zip, or pickles one after the other."""
    start = start_of(path)
    if start[:4] != ZIP:
        return _LEGACY in start
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as entries:
        return any(name.endswith("/data.pkl") for name in entries.namelist())
    return False


def start_of(path: Path) -> bytes:
    """The first 32 bytes of a file; none of what is no file, or cannot be read."""
    if not path.is_file() or not os.access(path, os.R_OK):
        return b""
    with path.open("rb") as file:
        return file.read(32)


def read_torch(path: str | Path) -> dict[str, Any]:
    """The tensors of a file that torch saved, by name, as `flattened`; all else is left out.

    A file of the name of public weights, which states their hash, must have that hash.

    Raises:
        InputError: torch is not installed; the file is missing, is damaged, or holds objects other than
            tensors, numbers and text (which are not made).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if _PUBLISHED_HASH.search(path.name) and _is_published(path.name):
        check_published_hash(path, path.name)
    torch = _torch(path)
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if file.read(4) == ZIP and not zipped:
            raise InputError(f"{path} is cut short; fetch or write it again")
    # None of torch's own texts is passed on: they advise to turn `weights_only` off.
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        unknown = _UNKNOWN.search(str(error))
        what = f" ({unknown['name']})" if unknown else ""
        raise InputError(
            f"{path} is refused, and nothing in it was run: it holds more than tensors{what}, or is "
            "damaged; save the state dict alone, best as .safetensors"
        ) from None
    except Exception as error:  # torch's reader raises nearly anything on a broken file
        if _ADVICE in str(error):
            raise InputError(
                f"{path} is refused, and nothing in it was run: it is a TorchScript program, or of a "
                "format that torch no longer writes; save the state dict alone, best as .safetensors"
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be read as torch's ({reason}); fetch or write it again"
        ) from None
    tensors = flattened(content)
    if not tensors or not isinstance(content, Mapping | list | tuple):
        keys = list(map(str, content)) if isinstance(content, Mapping) else []
        held = f", but {some(keys)}" if keys else ""
        raise InputError(f"{path} holds no state dict{held}; wanted tensors by name")
    return {
        key: value if isinstance(value, np.ndarray | np.generic) else TorchTensor(value)
        for key, value in tensors.items()
    }


def _harmless() -> list[Any]:
    """What scripts save beside tensors, and is only data: options of the command line, paths, and
    NumPy's numbers and arrays."""
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    return [
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
        *((PurePosixPath, f"{module}.PosixPath") for module in _PATHLIBS),
        *((PureWindowsPath, f"{module}.WindowsPath") for module in _PATHLIBS),
        *((scalar, f"{module}.scalar") for module in _NUMPYS),
        *((array, f"{module}._reconstruct") for module in _NUMPYS),
    ]


def write_torch(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as torch does, for `torch.load(path, weights_only=True)`.

    Raises:
        InputError: torch is not installed.
    """
    torch = _torch(path)
    torch.save({key: _to_torch(torch, value) for key, value in tensors.items()}, path)


def _is_published(name: str) -> bool:
    """Whether a file has the name of public weights: a date or a step in a name is no hash."""
    return any(row.file == name for of in list_models(pretrained=True) for row in published_weights(of))


def check_published_hash(path: Path, name: str) -> None:
    """Checks a file that was published as name-sha8.pth.

    Raises:
        InputError: its SHA-256 does not begin with sha8.
    """
    published = _PUBLISHED_HASH.search(name)
    if published is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(published["sha"]):
        raise InputError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., but {name} was published with "
            f"{published['sha']}...; delete it and fetch it again"
        )


def _torch(path: str | Path) -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path}: torch's own files need torch; pip install 'jaxnets[torch]', or use .safetensors"
        ) from None
    return torch


def _to_torch(torch: Any, array: np.ndarray) -> Any:
    array = np.array(array, order="C")  # torch takes ownership
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
