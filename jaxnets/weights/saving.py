"""Models with their weights into files, under our names or a library's."""

import dataclasses
import json
from os import PathLike
from pathlib import Path

from flax.traverse_util import flatten_dict

from jaxnets import outputs
from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.weights import exporting, files, renames
from jaxnets.weights.pretrained import Pretrained, naming_of
from jaxnets.weights.renames import OUR_NAMES

METADATA = "jaxnets"  # the entry in the metadata of our files


def save(path: str | PathLike, pretrained: Pretrained, library: str = OUR_NAMES) -> None:
    """Writes weights into a file.

    Args:
        path: a `.safetensors` file, or a `.pth` file where torch is installed.
        pretrained: the model and its weights.
        library: the library whose tensor names are used: one of `jaxnets.weights.libraries(name)`, or
            "jaxnets", which also writes all else that `load` needs into the file's metadata.

    Raises:
        InputError: the library or the suffix is unknown, torch is missing, or the library's model
            computes something else.
    """
    check_path(path)
    suffix = Path(path).suffix
    metadata = {}
    if library == OUR_NAMES:
        tensors = {"/".join(path): value for path, value in flatten_dict(pretrained.variables).items()}
        preprocessing = pretrained.preprocessing
        about = {
            "model": pretrained.model.model_name,
            "num_classes": pretrained.model.num_classes,
            "input_size": pretrained.model.input_size,
            "settings": dict(pretrained.settings),
            "class_names": pretrained.class_names,
            "activation": pretrained.activation,
            "naming": naming_of(pretrained.model),
            "preprocessing": preprocessing and dataclasses.asdict(preprocessing),
        }
        metadata[METADATA] = json.dumps(about)
    else:
        model, settings = pretrained.model, pretrained.settings
        tensors = exporting.exported(model, pretrained.variables, library, settings)
    if suffix in files.TORCH:
        files.write_torch(path, tensors)
    else:
        files.write_safetensors(path, tensors, metadata)


def check_path(path: str | PathLike) -> None:
    """Checks that weights can be written into a file.

    Raises:
        InputError: another suffix, or no place to write it.
    """
    endings = (*files.SAFETENSORS, *files.TORCH)
    if Path(path).suffix not in endings:
        raise InputError(f"output: {path} must end in .safetensors, or in .pth for torch")
    outputs.check_path(path, endings)


def usual_library(name: str, path: str | PathLike) -> str:
    """The default library of tensor names: ours, but in a torch file the first that has the model."""
    theirs = renames.libraries_of(create_model(name))
    return theirs[0] if theirs and Path(path).suffix in files.TORCH else OUR_NAMES
