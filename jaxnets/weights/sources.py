"""Sources of weights, each named by one line of text.

    hf:timm/resnet50.a1_in1k              a repository of the Hugging Face hub
    torchvision:resnet50-0676ba61.pth     a file that a library published under this name
    resnet50.safetensors, weights.pth     a file, known by its content if it has another ending; all
                                          formats are in `jaxnets.weights.formats`
    some/folder                           one with model.safetensors, flax_model.msgpack or
                                          pytorch_model.bin and, perhaps, config.json; or with a
                                          checkpoint of TensorFlow

Fetched files are kept in the cache of the library that they belong to, TF-Slim's in `~/.cache/jaxnets`.
`HF_HUB_OFFLINE=1` forbids all fetching.
"""

import contextlib
import json
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxnets.errors import InputError
from jaxnets.paths import expanded
from jaxnets.weights import files, formats, slim
from jaxnets.weights.keras import KERAS

PUBLISHED = {
    "torchvision": "https://download.pytorch.org/models/",
    "timm": "https://github.com/rwightman/pytorch-image-models/releases/download/",
    "cadene": "http://data.lip6.fr/cadene/pretrainedmodels/",
    "keras": "https://storage.googleapis.com/tensorflow/keras-applications/",
    "slim": "https://storage.googleapis.com/",
}
"""The URLs of the files that libraries published."""

HUB = "hf"
WEIGHTS_FILE = "model.safetensors"
FURTHER_FILES = ("flax_model.msgpack", "pytorch_model.bin")  # of the hub, in a folder without the above
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they are in their source.

    Attributes:
        origin: the source, for messages.
        tensors: arrays, or objects that NumPy can read, by name.
        config: the content of `config.json`, the hub's or Keras's, or nothing.
        metadata: of the file, text by name.
        library: whose format the file has, and so whose names the tensors; None where many use it.
    """

    origin: str
    tensors: Mapping[str, Any]
    config: Mapping[str, Any]
    metadata: Mapping[str, str]
    library: str | None = None


def is_source(text: str) -> bool:
    """Whether a text is a source of weights, not the name of a model."""
    return is_weights(text) or os.path.exists(os.path.expanduser(text))


def is_weights(text: str) -> bool:
    """Whether a text names a source of weights by its form, as no picture does."""
    kind, path = text.partition(":")[0], expanded(text)
    whole = _weights_in(path) is not None
    return kind in (HUB, *PUBLISHED) or whole or formats.format_of(path) is not None


def read(source: str | os.PathLike) -> Checkpoint:
    """Opens weights, and fetches them first where they are not cached.

    Args:
        source: one of the forms in the docstring of this module.

    Raises:
        InputError: there are none, they cannot be fetched (the message says which file to put where),
            or the file is damaged.
    """
    source = os.fspath(source)
    kind, colon, rest = source.partition(":")
    if kind == HUB and colon:
        return _read_hub(rest)
    if kind in PUBLISHED and colon:
        return _read_path(_published_file(kind, rest), source)
    return _read_path(expanded(source), source)


def _read_hub(repository: str) -> Checkpoint:
    return _opened(
        f"{HUB}:{repository}",
        _hub_file(repository, WEIGHTS_FILE),
        _read_config(_hub_file(repository, CONFIG_FILE)),
    )


def _read_path(path: Path, origin: str) -> Checkpoint:
    weights, config = _weights_in(path), path / CONFIG_FILE
    if weights is not None:
        return _opened(str(path), weights, _read_config(config) if config.is_file() else {})
    if formats.format_of(path) is not None:
        return _opened(origin, path, {})
    if path.is_dir():
        raise InputError(
            f"{path} holds no weights: wanted {WEIGHTS_FILE} in it, one checkpoint of TensorFlow, or a "
            "run's directory"
        )
    kinds = [*formats.ENDINGS, f"{HUB}:OWNER/NAME", *(f"{by}:FILE" for by in PUBLISHED)]
    raise InputError(
        f"source: {origin} holds no weights that are known; wanted {', '.join(kinds)}, or a folder "
        f"with {WEIGHTS_FILE}"
    )


def _weights_in(folder: Path) -> Path | None:
    """The file of weights in a folder that is shaped as the hub's repositories."""
    paths = (folder / name for name in (WEIGHTS_FILE, *FURTHER_FILES))
    return next(filter(Path.is_file, paths), None)


def _opened(origin: str, path: Path, config: Mapping[str, Any]) -> Checkpoint:
    kind = formats.format_of(path)
    contents = kind.read(path)
    return Checkpoint(
        origin, contents.tensors, config or contents.config, contents.metadata, kind.library
    )


def hub_config(repository: str) -> dict[str, Any]:
    """The content of a hub repository's `config.json`; the weights are not fetched.

    Raises:
        InputError: it cannot be fetched or read.
    """
    return _read_config(_hub_file(repository, CONFIG_FILE))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def _hub_file(repository: str, name: str) -> Path:
    """The path of a repository's file in the hub's cache; it is fetched where it is missing."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(hf_hub_download(repository, name, local_files_only=True))
        return Path(hf_hub_download(repository, name))
    except LocalEntryNotFoundError as error:  # which is also an EntryNotFoundError
        raise InputError(
            f"{HUB}:{repository} is not in the cache {constants.HF_HUB_CACHE} and {_reason()}: get "
            f"{WEIGHTS_FILE} and {CONFIG_FILE} from {constants.ENDPOINT}/{repository} on another "
            "machine, put both into one folder, and give that folder as the source"
        ) from error
    except HFValidationError as error:
        raise InputError(f"source: {HUB}:{repository} is not of the form {HUB}:OWNER/NAME") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{HUB}:{repository}: the hub has no such repository") from error
    except EntryNotFoundError as error:
        raise InputError(f"{HUB}:{repository} has no {name}") from error


def _published_file(library: str, name: str) -> Path:
    """The path of a published file in its library's cache; it is fetched where it is missing."""
    url = PUBLISHED[library] + name
    folder = {KERAS: _keras_cache, slim.LIBRARY: _own_cache}.get(library, _torch_cache)()
    path = folder / Path(name).name
    if path.is_file():
        return path
    advice = f"get {url} on another machine and put it into {folder}"
    if _offline():
        raise InputError(f"{library}:{name} is not in the cache and {_reason()}: {advice}")
    folder.mkdir(parents=True, exist_ok=True)
    part = tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False)  # noqa: SIM115
    try:
        with part, urllib.request.urlopen(url, timeout=30) as answer:
            shutil.copyfileobj(answer, part)
        files.check_published_hash(Path(part.name), path.name)
        os.replace(part.name, path)
    except OSError as error:  # URLError and HTTPError among them
        raise InputError(f"{library}:{name} cannot be fetched ({error}): {advice}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part.name)
    return path


def _torch_cache() -> Path:
    """The folder in which torch keeps fetched files."""
    home = Path(os.environ.get("TORCH_HOME", _caches() / "torch")).expanduser()
    return home / "hub" / "checkpoints"


def _keras_cache() -> Path:
    """The folder in which Keras keeps fetched files."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _own_cache() -> Path:
    """The folder for files of libraries that keep no fetched ones."""
    return _caches() / "jaxnets"


def _caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _reason() -> str:
    return "HF_HUB_OFFLINE is set" if _offline() else "there is no network"
