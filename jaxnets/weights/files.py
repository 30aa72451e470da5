"""Reading and writing of weights: safetensors, and torch's own files by torch.

Each tensor of a safetensors file is read when it is asked for, so loading takes little more memory than
the weights. (The file is not memory-mapped: its pages would stay in memory beside the arrays made of
them.) A `.pth` file is a pickle, which can hold any program: it is only opened by torch with
`weights_only=True`, which runs none.
"""

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.errors import InputError

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pt", ".bin")

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_PUBLISHED_HASH = re.compile(r"-(?P<sha>[0-9a-f]{8,64})\.pth$")
_WRAPPERS = ("state_dict", "model")  # where training scripts keep the tensors, beside other things


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


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file that torch saved, by name; also those under "state_dict" or "model".

    The prefix "module." of wrapped models is removed. A file named name-sha8.pth, as torchvision names
    them, must have that hash.

    Raises:
        InputError: torch is not installed; the file is missing, is damaged, or holds anything but
            tensors (which is not run).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    check_published_hash(path, path.name)
    torch = _torch(path)
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04" and not zipped:
            raise InputError(f"{path} is cut short; fetch or write it again")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused, and nothing in it was run: it holds more than tensors, or is damaged; "
            "save the state dict alone, best as .safetensors"
        ) from error
    except Exception as error:  # torch's reader raises nearly anything on a broken file
        raise InputError(
            f"{path} cannot be read as torch's ({str(error).splitlines()[0]}); fetch or write it again"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(map(torch.is_tensor, content.values())):
        raise InputError(f"{path} holds no state dict; wanted tensors by name")
    return {key.removeprefix("module."): _from_torch(torch, value) for key, value in content.items()}


def write_torch(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as torch does, for `torch.load(path, weights_only=True)`.

    Raises:
        InputError: torch is not installed.
    """
    torch = _torch(path)
    torch.save({key: _to_torch(torch, value) for key, value in tensors.items()}, path)


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


def _from_torch(torch: Any, tensor: Any) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:  # which NumPy does not have
        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.numpy()


def _to_torch(torch: Any, array: np.ndarray) -> Any:
    array = np.array(array, order="C")  # torch takes ownership
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
