"""Reading of Keras's files: weights and whole models in HDF5, and `.keras` archives.

There are two layouts. Keras 1 and 2, and Keras 3 in its older `.h5`, keep for each layer of a model a
group of its name, and in attributes the names of layers and variables in order. Keras 3 keeps the
variables of each layer in a group `vars`, by their position in it; the groups around are called by the
class of the layer and a number, and the layer's name is in an attribute of `vars` or, before Keras 3.6,
in the archive's `config.json` alone.

Only arrays, names and JSON are read; nothing in a file is run, and no other file is opened, whatever a
link in it says.
"""

import io
import itertools
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.errors import InputError, some
from jaxnets.weights import keras
from jaxnets.weights.files import ZIP, start_of

ENDINGS = (".h5", ".hdf5", ".keras")

_HDF5 = b"\x89HDF\r\n\x1a\n"
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"  # in an archive
_WHOLE_MODEL = "model_weights"  # the group of the weights in an .h5 file of a whole model
_OLD_LAYERS = "_layer_checkpoint_dependencies"  # what TensorFlow 2.12 and 2.13 called "layers"
_NOT_LAYERS = {"optimizer", "optimizer_weights", "seed_generator", "metrics", "loss_tracker"}

# The variables of a layer by their ranks; of normalizations, which in all applications have an offset.
_BY_RANKS = {
    (4,): ("kernel",),
    (4, 1): ("kernel", "bias"),
    (2,): ("kernel",),
    (2, 1): ("kernel", "bias"),
    (4, 4): ("depthwise_kernel", "pointwise_kernel"),
    (4, 4, 1): ("depthwise_kernel", "pointwise_kernel", "bias"),
    (1, 1, 1): ("beta", "moving_mean", "moving_variance"),
    (1, 1, 1, 1): ("gamma", "beta", "moving_mean", "moving_variance"),
}
_IN_KERAS_1 = {
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}
_LEAF = re.compile(
    rf"(.*?_)??(?P<leaf>{'|'.join(sorted({*keras.LEAVES, *_IN_KERAS_1}, key=len)[::-1])})(_\d+)?"
)

Variable = tuple[str, str, Any]


@dataclass(frozen=True)
class StoredArray:
    """An array of an HDF5 file that is read when NumPy asks for it.

    Attributes:
        origin: the file, for errors.
        dataset: of the open file.
    """

    origin: str
    dataset: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dataset.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        try:
            value = self.dataset[()]
        except (OSError, RuntimeError) as error:
            raise _damaged(self.origin, error) from None
        if self.dataset.attrs.get("dtype") == "bfloat16":  # which HDF5 does not have
            value = value.view(jnp.bfloat16)
        return value if dtype is None else value.astype(dtype, copy=False)


def is_keras(path: Path) -> bool:
    """Whether a file is one of Keras's, or of HDF5, by its content."""
    start = start_of(path)
    if not start.startswith(ZIP):
        return start.startswith(_HDF5)
    try:
        with zipfile.ZipFile(path) as entries:
            return _WEIGHTS in entries.namelist()
    except zipfile.BadZipFile:
        return False


def read_keras(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables of a file's layers by the names and in the layouts of torch, none read yet, and the
    configuration of its model, which files of weights do not have.

    Raises:
        InputError: h5py is not installed; the file is missing, cut short or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path}: Keras's files need h5py; pip install 'jaxnets[keras]'") from None
    config, content = _unpacked(path) if start_of(path).startswith(ZIP) else ({}, path)
    try:
        file = h5py.File(content, "r")
        config = config or json.loads(file.attrs.get("model_config", "{}"))
        groups, datasets = _content(path, file)
        if _WHOLE_MODEL in groups or _strings(file, "layer_names"):
            variables = list(_by_names(groups, datasets))
        else:
            variables = list(_by_positions(file, datasets, _names_in(config)))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(path, error) from None
    if not variables:
        raise InputError(
            f"{path} is HDF5, but holds no layers of Keras: wanted `layer_names` or groups `vars`, and "
            f"it has {some(sorted(file)) or 'nothing'}"
        )
    arrays = ((layer, leaf, StoredArray(str(path), value)) for layer, leaf, value in variables)
    return keras.in_torchs_layout(str(path), arrays), config


def _damaged(path: str | Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} is no whole file of Keras's ({reason}); fetch or write it again")


def _unpacked(path: Path) -> tuple[dict[str, Any], io.BytesIO]:
    """The configuration and the weights of an archive."""
    try:
        with zipfile.ZipFile(path) as entries:
            names = entries.namelist()
            if _WEIGHTS not in names or _CONFIG not in names:
                raise InputError(
                    f"{path} is a zip, but none of Keras's: wanted {_CONFIG} and {_WEIGHTS} in it, and "
                    f"it has {some(names) or 'nothing'}"
                )
            return json.loads(entries.read(_CONFIG)), io.BytesIO(entries.read(_WEIGHTS))
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        json.JSONDecodeError,
    ) as error:
        raise _damaged(path, error) from None


def _content(path: Path, file: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The groups of a file, itself among them, and its arrays by their paths, without any that lies in
    another file."""
    import h5py

    groups, found = {"": file}, {}

    def visit(name: str, value: Any) -> None:  # is not called for links to other files
        if isinstance(value, h5py.Dataset):
            if value.is_virtual or value.external:
                raise InputError(f"{path} is refused: its {name} lies in another file")
            found[name] = value
        else:
            groups[name] = value

    file.visititems(visit)
    return groups, found


def _strings(group: Any, name: str) -> list[str]:
    """An attribute that is a list of texts, in pieces where it was too large for one."""
    pieces = itertools.takewhile(group.attrs.__contains__, (f"{name}{i}" for i in itertools.count()))
    keys = [name] if name in group.attrs else pieces
    values = [value for key in keys for value in group.attrs[key]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _by_names(groups: Mapping[str, Any], datasets: Mapping[str, Any]) -> Iterator[Variable]:
    """The variables in the order of the attributes."""
    start = f"{_WHOLE_MODEL}/" if _WHOLE_MODEL in groups else ""
    for layer in _strings(groups[start[:-1]], "layer_names"):
        stored_names = _strings(groups[start + layer], "weight_names")
        weights = [name.partition(":")[0] for name in stored_names]
        owners = {_owner(name) for name in weights}
        for name, stored in zip(weights, stored_names, strict=True):
            # A layer that is a model has variables of many layers, each named by its own.
            owner = _owner(name) if len(owners) > 1 else layer
            leaf = name.rpartition("/")[2]
            match = _LEAF.fullmatch(leaf)
            leaf = match["leaf"] if match else leaf
            yield owner, _IN_KERAS_1.get(leaf, leaf), datasets[f"{start}{layer}/{stored}"]


def _owner(variable: str) -> str:
    """The layer in the name of a variable."""
    return variable.rpartition("/")[0].rpartition("/")[2]


def _by_positions(
    file: Any, datasets: Mapping[str, Any], names: Mapping[str, str]
) -> Iterator[Variable]:
    """The variables in the order of the groups' numbers, with the names of their layers."""
    groups: dict[str, list[Any]] = {}
    for path, value in datasets.items():
        group, _, position = path.rpartition("/")
        if group.rpartition("/")[2] == "vars" and position.isdigit():
            groups.setdefault(group, []).append((int(position), value))
    for group in sorted(groups, key=_numbered):
        path = group.removesuffix("vars").removesuffix("/").replace(_OLD_LAYERS, "layers")
        if not path or not _NOT_LAYERS.isdisjoint(path.split("/")):
            continue
        values = [value for _, value in sorted(groups[group], key=lambda pair: pair[0])]
        leaves = _BY_RANKS.get(tuple(value.ndim for value in values))
        layer = file[group].attrs.get("name", names.get(path))
        if layer is None:
            raise InputError(
                f"{file.filename} does not name its layers, as Keras before 3.6 wrote .weights.h5; read "
                "it there into the model it is of, and save that as .keras"
            )
        for i, value in enumerate(values):
            yield layer, leaves[i] if leaves else str(i), value


def _numbered(path: str) -> list[tuple[str, int]]:
    """A key that sorts conv2d_2 before conv2d_10."""
    matches = (re.fullmatch(r"(.*?)(?:_(\d+))?", part) for part in path.split("/"))
    return [(match[1], int(match[2] or 0)) for match in matches]


def _names_in(config: Any, path: str = "") -> dict[str, str]:
    """The names of a model's layers by the paths of their groups, where these have no attribute."""
    names, counts = {}, {}
    layers = config.get("config", {}) if isinstance(config, Mapping) else {}
    layers = layers.get("layers", []) if isinstance(layers, Mapping) else []
    for layer in layers:
        kind = _in_snake_case(layer["class_name"])
        count = counts[kind] = counts.get(kind, -1) + 1
        here = f"{path}layers/{kind}" + (f"_{count}" if count else "")
        names[here] = layer.get("name") or layer["config"]["name"]
        names |= _names_in(layer, f"{here}/")
    return names


def _in_snake_case(name: str) -> str:
    """The name of a class as Keras writes it into paths: BatchNormalization, batch_normalization."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()
