"""Models as programs of their own: files of `jax.export` that run wherever jax does.

Such a file is the serialized program and nothing else, so that a process without jaxnets runs it by
`jax.export.deserialize(open(path, "rb").read()).call(images)`. What there is to say of it lies beside it
in `PATH.json`.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets import atomic
from jaxnets.errors import InputError
from jaxnets.paths import expanded

OLDEST = (0, 10)
"""The first jax that programs were exported by."""


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A model as a function of images, and what there is to say of it.

    Attributes:
        program: the function, compiled for none of its platforms yet.
        about: `task`; `model`, its name; `images`, what they are and how they are made of pictures, and
            their `image_shape` [H, W, C]; `inside`, what the program does itself; `outputs`, what they
            are; `class_names`, where it has some; `platforms`; and `jax`, the version that wrote it.
    """

    program: jax.export.Exported
    about: Mapping[str, Any]

    def __call__(self, images: Any) -> Any:
        """What the model makes of images.

        Args:
            images: uint8[N, H, W, C], of any N.

        Raises:
            InputError: images of another shape or type.
        """
        images = images if hasattr(images, "dtype") else np.asarray(images)
        wanted = self.image_shape
        if images.shape[1:] != wanted or images.dtype != np.uint8:
            raise InputError(
                f"images: wanted uint8[N, {', '.join(map(str, wanted))}], got "
                f"{images.dtype}{list(images.shape)}"
            )
        return self._compiled(images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of its images."""
        return tuple(self.about["image_shape"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of its classes, by label."""
        return tuple(self.about.get("class_names", ()))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the program into a file, and what is to say of it beside it."""
        path = Path(path)
        atomic.write_bytes(path, self.program.serialize())
        atomic.write_text(about_path(path), json.dumps(self.about, indent=2) + "\n")

    @functools.cached_property
    def _compiled(self) -> Any:
        return jax.jit(self.program.call)


def load_exported(path: str | os.PathLike) -> ExportedModel:
    """Reads a model that `jaxnets export` or `jaxnets.export_model` has written.

    A program may do what it likes: load those that you trust.

    Args:
        path: of the program; what there is to say of it lies beside it.

    Returns:
        A function of images uint8[N, H, W, C], compiled for each N when it is first called with it.

    Raises:
        InputError: no such file, another file, or one of a jax that is too new or too old.
    """
    path = expanded(path)
    about = _read_about(path)
    _refuse_other_jax(path, about["jax"])
    try:
        program = jax.export.deserialize(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # flatbuffers and jax raise nearly anything on another file
        raise InputError(
            f"{path} is no program that jax {jax.__version__} can read; jax {about['jax']} wrote it: "
            "export it again"
        ) from error
    _refuse_other_program(path, about["jax"], program)
    return ExportedModel(program, about)


def about_path(path: Path) -> Path:
    """Where what is to say of a program lies."""
    return path.with_name(f"{path.name}.json")


def _read_about(path: Path) -> dict[str, Any]:
    beside = about_path(path)
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{beside} cannot be read: {error.strerror}; it lies beside the program, which "
            "jax.export.deserialize runs without it"
        ) from error
    except ValueError as error:
        raise InputError(f"{beside} is not JSON: {error}") from None
    if not isinstance(about, dict) or not {"jax", "image_shape"} <= about.keys():
        raise InputError(f"{beside} is not as `jaxnets export` writes it; export the model again")
    return about


def _refuse_other_jax(path: Path, wrote: str) -> None:
    """Raises InputError for a version whose programs this one need not run: jax promises weeks for newer
    ones, half a year for older ones."""
    own, other = (tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (jax.__version__, wrote))
    if other > own:
        raise _too_new(path, wrote)
    if other < OLDEST:
        raise _too_old(path, wrote)


def _refuse_other_program(path: Path, wrote: str, program: jax.export.Exported) -> None:
    """Raises InputError for a program in a form that this jax does not know, or no longer."""
    from jax.extend.mlir.dialects import stablehlo

    least = jax.export.minimum_supported_calling_convention_version
    most = jax.export.maximum_supported_calling_convention_version
    found = re.match(rb"ML\xefR.{1,9}?StableHLO_v([\d.]+)\0", program.mlir_module_serialized[:64], re.S)
    form = _numbers(found[1].decode()) if found else ()
    convention = program.calling_convention_version
    if convention < least or (form and form < _numbers(stablehlo.get_minimum_version())):
        raise _too_old(path, wrote)
    if convention > most or form > _numbers(stablehlo.get_current_version()):
        raise _too_new(path, wrote)


def _too_new(path: Path, wrote: str) -> InputError:
    return InputError(
        f"{path} is too new for jax {jax.__version__}: jax {wrote} wrote it; install that, or export "
        "the model again by this one"
    )


def _too_old(path: Path, wrote: str) -> InputError:
    return InputError(
        f"{path} is too old for jax {jax.__version__}: jax {wrote} wrote it; export the model again"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
