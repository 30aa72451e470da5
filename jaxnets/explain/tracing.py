"""A model as a jaxpr in which every call of a module is marked.

Models do not take part in this. While a model is traced, Flax's interception of method calls puts a
mark (`jax.ad_checkpoint.checkpoint_name`, an identity) on each array that a module reads and returns.
From the marks `summary` reads where in the program a module begins and ends, and the attributions
know which variable of the program is the output of which layer.
"""

import copy
import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, JaxprEqn, Var

from jaxnets.errors import InputError
from jaxnets.explain.arguments import check_images
from jaxnets.explain.interpreting import ReluRule, evaluate
from jaxnets.explain.reading import variables_needed

_PREFIX = "jaxnets call "


@dataclass
class Call:
    """A call of a module.

    Attributes:
        module: as it was called.
        outputs: the shapes of the floating-point arrays it returned, by label: "" for a single array,
            the key in a dict, ".0", ".1", ... in a tuple.
        returns: "array", "maps" (a dict), or "other".
        is_identity: whether it returned its very input, as dropout does in evaluation.
    """

    module: nn.Module
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    returns: str = "other"
    is_identity: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        return self.module.path


class Mark(NamedTuple):
    """Where an equation of a traced program stands for an array that a module reads or returns.

    Attributes:
        call: number of the call.
        side: "in" or "out".
        label: which of the arrays, as in `Call.outputs`.
    """

    call: int
    side: str
    label: str


@dataclass(frozen=True)
class Trace:
    """A traced program.

    Attributes:
        jaxpr: from the leaves of the arguments to the leaves of the result.
        calls: of modules, in the order in which they began.
        result: shapes of the result.
    """

    jaxpr: ClosedJaxpr
    calls: list[Call]
    result: Any

    @functools.cached_property
    def variables(self) -> dict[str, Var]:
        """The variable of the jaxpr that is a layer's output, by the layer's name; the maps first."""
        maps, modules = {}, {}
        for equation, mark in self._outputs():
            call = self.calls[mark.call]
            if mark.call == self._backbone:
                # What is marked is read by the head alone. The backbone itself goes on without the mark.
                maps[mark.label] = equation.invars[0]
            elif call.path and call.returns == "array":
                modules.pop("/".join(call.path), None)
                modules["/".join(call.path)] = equation.outvars[0]
        return maps | modules

    @functools.cached_property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The shape of each layer's output by the layer's name: the maps first, from shallow to deep."""
        return {name: variable.aval.shape for name, variable in self.variables.items()}

    @functools.cached_property
    def maps(self) -> tuple[str, ...]:
        """The layers that are the backbone's feature maps."""
        return tuple(self.calls[self._backbone].outputs) if self._backbone is not None else ()

    @functools.cached_property
    def _backbone(self) -> int | None:
        """The number of the call that returned the feature maps: the outermost one, and its last."""
        found = [mark.call for _, mark in self._outputs() if self.calls[mark.call].returns == "maps"]
        return min(reversed(found), key=lambda number: len(self.calls[number].path), default=None)

    def _outputs(self) -> Iterator[tuple[JaxprEqn, Mark]]:
        """The marked outputs that are not inside a loop, a branch or a rematerialization."""
        for equation in self.jaxpr.jaxpr.eqns:
            mark = mark_of(equation)
            if mark is not None and mark.side == "out":
                shape = self.calls[mark.call].outputs[mark.label]
                if equation.outvars[0].aval.shape == shape:  # under vmap it has an axis more
                    yield equation, mark


def trace(model: nn.Module, variables: Mapping[str, Any], images: Any) -> Trace:
    """Traces a classifier in evaluation; nothing is computed.

    Its layers are the backbone's feature maps (`stage1`) and every module that returns one array, by
    its path (`backbone/stage1_block1/conv1`). Of a module that is called several times, the last call
    counts. Modules inside `nn.scan` or `nn.remat` are not layers.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables, or their shapes.
        images: float[N, H, W, C], or its shape.

    Raises:
        InputError: the images do not fit the model.
    """
    check_images(images)
    return trace_calls(functools.partial(model.apply, train=False), variables, images)


def trace_calls(function: Callable, *arguments: Any) -> Trace:
    """Traces any function that calls modules; nothing is computed.

    Args:
        function: of arrays, or trees of arrays.
        arguments: its arguments, or their shapes.
    """
    calls: list[Call] = []

    def watch(call, args, kwargs, context):
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        number, own = len(calls), Call(context.module)
        calls.append(own)
        (args, kwargs), _ = _marked((args, kwargs), number, "in")
        given = {id(leaf) for leaf in jax.tree.leaves((args, kwargs)) if _is_float(leaf)}
        out = call(*args, **kwargs)
        own.is_identity = all(id(leaf) in given for leaf in jax.tree.leaves(out))
        if isinstance(out, Mapping | jax.Array):
            own.returns = "maps" if isinstance(out, Mapping) else "array"
        out, own.outputs = _marked(out, number, "out")
        return out

    # Under `disable_jit` ReLU would lose its name, which is that of a jitted function.
    with nn.intercept_methods(watch), jax.disable_jit(False):
        jaxpr, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
    return Trace(jaxpr, calls, result)


def mark_of(equation: JaxprEqn) -> Mark | None:
    """The mark that an equation is; None where it is another equation."""
    name = equation.params.get("name") if equation.primitive.name == "name" else None
    if not isinstance(name, str) or not name.startswith(_PREFIX):
        return None
    number, side, label = name.removeprefix(_PREFIX).split(" ", 2)
    return Mark(int(number), side, label)


def run(
    traced: Trace,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    relu: ReluRule | None = None,
    added: Mapping[str, jax.Array] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes what a traced classifier does, differentiable by variables, images and what is added.

    Args:
        traced: of `trace`, for variables and images of these shapes.
        variables: of the model.
        images: float[N, H, W, C].
        relu: the rule by which ReLU and ReLU6 are differentiated; None for their derivative.
        added: what is added to a layer's output, by the layer's name, before anything reads it.

    Returns:
        The scores f32[N, K] and the outputs of all layers by name.
    """
    by_name = traced.variables
    added = {by_name[name]: value for name, value in (added or {}).items()}
    leaves = jax.tree.leaves((variables, images))
    wanted = [traced.jaxpr.jaxpr.outvars[0], *by_name.values()]
    scores, *outputs = evaluate(traced.jaxpr, leaves, relu, added, wanted)
    return scores, dict(zip(by_name, outputs, strict=True))


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
    return dict(trace(model, variables, images).layers)


def check_layer(traced: Trace, name: str) -> tuple[int, ...]:
    """The shape of a layer's output.

    Raises:
        InputError: there is no layer of that name; the message lists the layers, or of many the nearest.
    """
    layers, maps = traced.layers, traced.maps
    if name in layers:
        return layers[name]
    if len(layers) <= 16:
        raise InputError(f"unknown layer {name!r}; known: {', '.join(layers)}")
    near = difflib.get_close_matches(name, layers, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    modules = [path for path in layers if path not in maps]
    raise InputError(
        f"unknown layer {name!r}; {hint}known are the maps {', '.join(maps)} and "
        f"{len(modules)} modules such as {modules[0]}, which jaxnets.explain.layer_shapes lists"
    )


def check_maps(traced: Trace, name: str) -> tuple[int, int, int, int]:
    """The shape [N, h, w, c] of a layer's output.

    Raises:
        InputError: there is no layer of that name, or its output has another rank.
    """
    shape = check_layer(traced, name)
    if len(shape) != 4:
        raise InputError(f"layer: {name} gives {shape}, which are no maps [N, h, w, c]; name another")
    return shape


def check_unit(traced: Trace, layer: str, unit: int) -> None:
    """Raises `InputError` unless a layer has a channel of this number."""
    *_, channels = check_layer(traced, layer)
    if not 0 <= unit < channels:
        raise InputError(
            f"unit {unit} is out of range: {layer} has {channels}, so they run from 0 to {channels - 1}"
        )


def deepest_maps(traced: Trace, only_read: bool = False) -> str:
    """The deepest feature map of more than one pixel or, where there is none, such a module.

    Args:
        traced: of `trace`.
        only_read: whether the scores must depend on it.

    Raises:
        InputError: there is none.
    """
    for name in (*reversed(traced.maps), *reversed(traced.layers)):
        shape = traced.layers[name]
        if len(shape) == 4 and shape[1] * shape[2] > 1 and (not only_read or is_read(traced, name)):
            return name
    raise InputError("images: the model makes no map of more than one pixel of them; give larger ones")


def is_read(traced: Trace, layer: str) -> bool:
    """Whether the scores depend on a layer's output; on a map that is only returned they do not."""
    return traced.variables[layer] in variables_needed(traced.jaxpr.jaxpr, outputs=1)


def _marked(value: Any, call: int, side: str) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The value with a mark on each of its floating-point arrays, and their shapes by label."""
    shapes: dict[str, tuple[int, ...]] = {}

    def mark(value: Any, label: str) -> Any:
        if isinstance(value, dict):  # whose keys `jax.tree.map` would put in another order
            marked = copy.copy(value)
            marked.update((key, mark(part, f"{label}{key}")) for key, part in value.items())
            return marked
        if type(value) in (tuple, list):
            return type(value)(mark(part, f"{label}.{place}") for place, part in enumerate(value))
        leaves, tree = jax.tree.flatten(value)
        for number, leaf in enumerate(leaves):
            if _is_float(leaf):
                own = f"{label}.{number}" if number else label
                shapes[own] = leaf.shape
                leaves[number] = checkpoint_name(leaf, f"{_PREFIX}{call} {side} {own}")
        return jax.tree.unflatten(tree, leaves)

    return mark(value, ""), shapes


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
