"""Models into programs that run without jaxnets: see `exported`."""

import os
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets import pretrained, recipes
from jaxnets.config import is_run
from jaxnets.errors import InputError
from jaxnets.exported import ExportedModel
from jaxnets.models import model_info
from jaxnets.outputs import check_path
from jaxnets.paths import expanded
from jaxnets.ranges import SIDES, refuse_outside
from jaxnets.runs import Recipe, Run, load_run
from jaxnets.weights import Pretrained

PLATFORMS = ("cpu", "cuda", "tpu")

_INSIDE = (
    "normalization, the model and the last step of its task; not reading, scaling or cropping pictures"
)


def export_model(
    model: str | os.PathLike | Run | Pretrained,
    path: str | os.PathLike | None = None,
    *,
    size: tuple[int, int] | None = None,
    checkpoint: int | Literal["latest", "best"] = "latest",
) -> ExportedModel:
    """A model as a program of its own, for CPUs, NVIDIA GPUs and TPUs, and any number of images.

    Its weights are inside, and so is all that becomes of pixels in 0 to 255: normalization, the model,
    and the last step of its task (probabilities, captions by beam search, objects that overlap no
    others, labels of pixels). Reading, scaling and cropping pictures is not.

        jaxnets.export_model("runs/mine", "classifier.bin")
        probabilities = jaxnets.load_exported("classifier.bin")(images)

    Args:
        model: the directory of a run; a model's name, for its best public weights; NAME=SOURCE; a
            source, as for `jaxnets.load_pretrained`; or what was read from one of these.
        path: the file to write, if any; what there is to say of it is written beside it.
        size: (height, width) of the images; None for what the model was trained on or made for.
        checkpoint: which one of a run; a number is that of its step.

    Raises:
        InputError: no such model, one whose task has no way to be exported, a size that it does not
            take, or a file that cannot be written.
    """
    if path is not None:
        path = expanded(path)
        check_path(path)
    for side in size or ():
        refuse_outside("size", side, SIDES)
    recipe, member = _member(model, checkpoint)
    if recipe.serve is None:
        raise InputError(f"model: one of {recipe.name} has no way to be exported")
    served = recipe.serve(member, size)
    variables = jax.tree.map(jnp.asarray, served.variables)
    count = jax.export.symbolic_shape("N")
    images = jax.ShapeDtypeStruct((*count, *served.image_shape), jnp.uint8)
    run = jax.jit(lambda images: served.run(variables, images))
    program = jax.export.export(run, platforms=PLATFORMS)(images)
    about = {
        "task": recipe.name,
        "model": served.name,
        "image_shape": list(served.image_shape),
        "images": served.images,
        "inside": _INSIDE,
        "outputs": served.outputs,
        **served.about,
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
    }
    exported = ExportedModel(program, about)
    if path is not None:
        exported.save(path)
    return exported


def _member(model: Any, checkpoint: Any) -> tuple[Recipe, Run | Pretrained]:
    """A run or a pretrained model, and the recipe of its task."""
    if isinstance(model, Run):
        return model.recipe, model
    if not isinstance(model, Pretrained) and is_run(model):
        recipe = recipes.of_run(model)
        return recipe, load_run(recipe, model, checkpoint)
    loaded = model if isinstance(model, Pretrained) else pretrained.named(model, checkpoint)
    return recipes.get(model_info(loaded.model.model_name).task), loaded
