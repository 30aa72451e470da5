"""A model as a program in which every layer has a name.

No model knows of this. Flax's interception of method calls tells the layers while the model is traced
to a jaxpr; when that is interpreted, a layer's output can be changed on its way.
"""

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend import core

from jaxnets.errors import InputError
from jaxnets.explain.interpreting import ReluRule, evaluate


class Program(NamedTuple):
    """What a model computes in evaluation, for images of one shape.

    Attributes:
        jaxpr: from the leaves of (variables, images) to the scores and then the layers' outputs.
        layers: shape of each layer's output, by name, in the order in which the jaxpr has them.
        maps: those of the layers that are the backbone's feature maps, from shallow to deep.
    """

    jaxpr: Any
    layers: dict[str, tuple[int, ...]]
    maps: tuple[str, ...]

    @property
    def variables_of_layers(self) -> dict[str, Any]:
        """The jaxpr's variable that is a layer's output, by the layer's name."""
        return dict(zip(self.layers, self.jaxpr.jaxpr.outvars[1:], strict=True))


def trace(model: nn.Module, variables: Mapping[str, Any], images: Any) -> Program:
    """Traces a model; nothing is computed.

    Layers are the backbone's feature maps (`stage1`) and every module with an array for output, by
    its path (`backbone/stage1_block1/conv1`). Of a module that is called several times, the last call
    counts; modules inside `nn.scan` or `nn.remat` are no layers.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables, or their shapes.
        images: float[N, H, W, C], or its shape.

    Raises:
        InputError: the images do not fit the model.
    """
    check_images(images)
    shapes, maps = {}, []

    def forward(variables, images):
        level, outputs = core.get_opaque_trace_state(convention="flax"), {}

        def watch(call, args, kwargs, context):
            out = call(*args, **kwargs)
            path = "/".join(context.module.path)
            if core.get_opaque_trace_state(convention="flax") != level:
                return out
            if not path and context.method_name == "features":
                outputs.update(out)
                maps.extend(out)
            elif path and context.method_name == "__call__" and isinstance(out, jax.Array):
                outputs[path] = out
            return out

        with nn.intercept_methods(watch):
            scores = model.apply(variables, images, train=False)
        shapes.update({name: out.shape for name, out in outputs.items()})
        return scores, list(outputs.values())  # a dict would come out sorted

    with jax.disable_jit(False):  # or ReLU loses its name, which is that of a jitted function
        jaxpr = jax.make_jaxpr(forward)(variables, images)
    return Program(jaxpr, shapes, tuple(maps))


def run(
    program: Program,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    relu: ReluRule | None = None,
    added: Mapping[str, jax.Array] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes what the model does, differentiable by variables, images and what is added.

    Args:
        program: of `trace`, for variables and images of these shapes.
        variables: of the model.
        images: float[N, H, W, C].
        relu: the rule by which ReLU and ReLU6 are differentiated; None for their derivative.
        added: what is added to a layer's output, by the layer's name, before anything reads it.

    Returns:
        The scores f32[N, K] and the outputs of all layers by name.
    """
    by_name = program.variables_of_layers
    added = {by_name[name]: value for name, value in (added or {}).items()}
    leaves = jax.tree.leaves((variables, images))
    scores, *outputs = evaluate(program.jaxpr, leaves, relu, added)
    return scores, dict(zip(program.layers, outputs, strict=True))


def layer_shapes(
    model: nn.Module, variables: Mapping[str, Any], images: Any
) -> dict[str, tuple[int, ...]]:
    """The layers of a model, by the names that functions of `jaxnets.explain` take; see `trace`.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables, or their shapes.
        images: float[N, H, W, C], or its shape.

    Returns:
        The shape of each layer's output: first the backbone's feature maps, from shallow to deep
        (`stage1`), then the modules, in the order in which they end, by their paths
        (`backbone/stage1_block1/conv1`).

    Raises:
        InputError: the images do not fit the model.
    """
    program = trace(model, variables, images)
    return {name: program.layers[name] for name in program.maps} | program.layers


def check_layer(program: Program, name: str) -> tuple[int, ...]:
    """The shape of a layer's output.

    Raises:
        InputError: there is no layer of that name; the text has those that there are, or the nearest.
    """
    if name in program.layers:
        return program.layers[name]
    if len(program.layers) <= 16:
        raise InputError(f"unknown layer {name!r}; known: {', '.join(program.layers)}")
    near = difflib.get_close_matches(name, program.layers, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    modules = [path for path in program.layers if path not in program.maps]
    raise InputError(
        f"unknown layer {name!r}; {hint}known are the maps {', '.join(program.maps)} and "
        f"{len(modules)} modules such as {modules[0]}, which jaxnets.explain.layer_shapes lists"
    )


def deepest_maps(program: Program, only_read: bool = False) -> str:
    """The deepest feature map of more than one pixel or, where there is none, such a module.

    Args:
        program: of `trace`.
        only_read: whether the scores must depend on it.

    Raises:
        InputError: there is none.
    """
    for name in (*reversed(program.maps), *reversed(program.layers)):
        shape = program.layers[name]
        if len(shape) == 4 and shape[1] * shape[2] > 1 and (not only_read or is_read(program, name)):
            return name
    raise InputError("images: the model makes no map of more than one pixel of them; give larger ones")


def is_read(program: Program, layer: str) -> bool:
    """Whether the scores depend on a layer's output (not, say, on a view of it that is only shown)."""
    needed = {program.jaxpr.jaxpr.outvars[0]}
    for equation in reversed(program.jaxpr.jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            needed.update(atom for atom in equation.invars if not isinstance(atom, core.Literal))
    return program.variables_of_layers[layer] in needed


def check_unit(program: Program, layer: str, unit: int) -> None:
    """Refuses a channel that a layer has not."""
    *_, channels = check_layer(program, layer)
    if not 0 <= unit < channels:
        raise InputError(
            f"unit {unit} is out of range: {layer} has {channels}, so they run from 0 to {channels - 1}"
        )


def check_images(images: Any) -> None:
    """Refuses what is not float[N, H, W, C]."""
    shape = np.shape(images)
    if len(shape) != 4:
        hint = "; add the batch axis with images[None]" if len(shape) == 3 else ""
        raise InputError(f"images: wanted [N, H, W, C], got shape {shape}{hint}")
    dtype = getattr(images, "dtype", np.dtype(object))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"images: wanted an array of floats as the model reads them, got {dtype}")


def checked_classes(model: nn.Module, images: Any, classes: Any) -> jax.Array | None:
    """One class for each image, i32[N]; None where the model's own choice is wanted.

    Raises:
        InputError: the images have another rank, the model has no classes, or a class is not one of
            them.
    """
    check_images(images)
    if model.num_classes == 0:
        raise InputError("model: it was made with num_classes=0 and scores no classes")
    if classes is None:
        return None
    shape = np.shape(classes)
    if shape not in ((), (len(images),)):
        raise InputError(f"classes: wanted one, or one for each of {len(images)} images, got {shape}")
    if not isinstance(classes, jax.core.Tracer):
        outside = [c for c in np.ravel(classes) if not 0 <= c < model.num_classes]
        if outside or not np.issubdtype(np.asarray(classes).dtype, np.integer):
            raise InputError(
                f"classes: {outside[0] if outside else classes} is not one of the model's "
                f"{model.num_classes}, which run from 0 to {model.num_classes - 1}"
            )
    return jnp.broadcast_to(jnp.asarray(classes, jnp.int32), (len(images),))


def scores_of(scores: jax.Array, classes: jax.Array | None) -> jax.Array:
    """f32[N] of f32[N, K]: each image's score of its class, or where None its highest."""
    if classes is None:
        classes = jnp.argmax(scores, axis=-1)
    return jnp.take_along_axis(scores, classes[:, None], axis=-1)[:, 0]
