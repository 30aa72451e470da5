"""The modules of a model, as they are called while it is traced, one row each."""

import bisect
import copy
import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.ad_checkpoint import checkpoint_name

from jaxnets.explain.program import Reading, Value
from jaxnets.layers import lowering

_MARK = "jaxnets summary"

Path = tuple[str, ...]


class ReceptiveField(NamedTuple):
    """What one position of a map sees of the image.

    Attributes:
        size: pixels over (height, width); `math.inf` where it sees the whole image, however large.
        stride: how many pixels apart neighbors look, over (height, width); None where there is no
            map any more.
    """

    size: tuple[float, float]
    stride: tuple[float, float] | None


@dataclass(frozen=True)
class Row:
    """A module of a model, with everything inside it; or a feature map that no module puts out.

    Attributes:
        path: where its parameters are, as "backbone/inception3a/1x1/conv".
        kind: the class, and of a convolution its kernel and stride; "map" for a feature map.
        output_shape: of what it puts out, batch included; of several arrays the last of a dict and
            the first of a tuple.
        parameters: how many numbers it learns; running statistics are none.
        multiply_adds: products of its convolutions and matrix products in one forward pass.
        receptive_field: None for what does not come from an image [N, H, W, C].
        activations: how many numbers it puts out, in all its calls and arrays.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int
    receptive_field: ReceptiveField | None
    activations: int


def read_modules(model: nn.Module, shape: tuple[int, ...]) -> tuple[list[Row], int]:
    """Traces a model in eval mode on one array of float32, without computing or compiling anything.

    Returns:
        A row for the model itself (its path is ""), then one for each module and each map that no
        module puts out, in order; and how many numbers its variables hold.
    """
    calls, program, (out, variables) = _traced(model, shape)
    image, outputs = len(program.jaxpr.invars) - 1, len(jax.tree.leaves(out))
    reading = Reading(program, image, outputs, _MARK)
    sizes = {path: leaf.size for path, leaf in flatten_dict(variables.get("params", {})).items()}
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables))
    return _rows(calls, reading, sizes), numbers


def sides(lengths: Sequence[float], equal: bool = False) -> str:
    """28x28x192; where all are equal it may be one number, and all of an image is "all"."""
    shown = ["all" if side == math.inf else str(side) for side in lengths]
    return shown[0] if equal and len(set(shown)) == 1 else "x".join(shown)


@dataclass
class _Call:
    """A call of a module while it is traced; outputs are the shapes of its arrays by label."""

    path: Path
    kind: str
    outputs: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    maps: bool = False
    hands_on: bool = False  # its very input, as dropout does at test time


def _traced(model: nn.Module, shape: tuple[int, ...]) -> tuple[list[_Call], Any, Any]:
    """The calls of modules, the marked program, the shapes of its output and of the variables."""
    calls: list[_Call] = []

    def watch(call, args, kwargs, context):
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        number, own = len(calls), _Call(context.module.path, _kind(context.module))
        calls.append(own)
        (args, kwargs), _ = _marked((args, kwargs), f"{_MARK} {number} in")
        handed = {id(leaf) for leaf in jax.tree.leaves((args, kwargs)) if _is_float(leaf)}
        out = call(*args, **kwargs)
        own.maps = isinstance(out, Mapping)
        own.hands_on = all(id(leaf) in handed for leaf in jax.tree.leaves(out))
        out, own.outputs = _marked(out, f"{_MARK} {number} out")
        return out

    mode = {"train": False} if "train" in inspect.signature(model.__call__).parameters else {}
    key = jax.eval_shape(jax.random.key, 0)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)

    def run(key, images):
        # Flax's own `init`, for a classifier's draws all parameters at once, which takes longer here.
        return nn.Module.init_with_output(model, {"params": key, "dropout": key}, images, **mode)

    with lowering("native"), nn.intercept_methods(watch):
        program, shapes = jax.make_jaxpr(run, return_shape=True)(key, images)
    return calls, program, shapes


def _marked(value: Any, name: str) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The value with a mark on each of its arrays of floats, and their shapes by label."""
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
                leaves[number] = checkpoint_name(leaf, f"{name} {own}")
        return jax.tree.unflatten(tree, leaves)

    return mark(value, ""), shapes


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _kind(module: nn.Module) -> str:
    kind = type(module).__name__
    if not isinstance(module, nn.Conv):
        return kind
    kernel = np.atleast_1d(module.kernel_size)
    strides = np.broadcast_to(1 if module.strides is None else module.strides, kernel.shape)
    same = len(set(strides.tolist())) == 1
    stride = "" if max(strides) == 1 else f"/{strides[0] if same else sides(strides)}"
    groups = module.feature_group_count
    return f"{kind} {sides(kernel)}{stride}" + (f", {groups} groups" if groups > 1 else "")


def _rows(calls: list[_Call], reading: Reading, sizes: dict[Path, int]) -> list[Row]:
    """A row for each module and for each map that no module puts out, in order; first the whole."""
    places: dict[int, list[int]] = {}
    outputs: dict[int, dict[str, Value]] = {}
    for mark, (place, value) in reading.marks.items():
        number, side, label = mark.removeprefix(f"{_MARK} ").split(" ", 2)
        places.setdefault(int(number), []).append(place)
        if side == "out":
            outputs.setdefault(int(number), {})[label] = value
    made = {
        value.born
        for number, values in outputs.items()
        if not calls[number].maps
        for value in values.values()
    }
    by_path: dict[Path, list[int]] = {}
    for number, call in enumerate(calls):
        if number in places and not (call.hands_on and call.path):
            by_path.setdefault(call.path, []).append(number)

    found: list[tuple[int, Row]] = []
    at = [place for place, _ in reading.products]
    for path, numbers in by_path.items():
        first, own = calls[numbers[0]], outputs.get(numbers[0], {})
        label = (list(first.outputs)[-1 if first.maps else 0]) if first.outputs else None
        products: set[int] = set()
        for number in numbers:
            start, end = min(places[number]), max(places[number])
            products.update(range(bisect.bisect(at, start), bisect.bisect(at, end)))
        row = Row(
            path="/".join(path),
            kind=first.kind,
            output_shape=first.outputs.get(label),
            parameters=sum(size for leaf, size in sizes.items() if leaf[: len(path)] == path),
            multiply_adds=sum(reading.products[k][1] for k in products),
            receptive_field=_receptive_field(own.get(label)),
            activations=sum(math.prod(shape) for n in numbers for shape in calls[n].outputs.values()),
        )
        found.append((min(places[numbers[0]]), row))
        for name, value in own.items() if first.maps else ():
            if (*path, name) not in by_path and value.born not in made:
                shape = first.outputs[name]
                seen = _receptive_field(value)
                own_path = "/".join((*path, name))
                found.append((value.born, Row(own_path, "map", shape, 0, 0, seen, math.prod(shape))))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def _receptive_field(value: Value | None) -> ReceptiveField | None:
    if value is None or value.view is None:
        return None
    view = value.view
    size, stride = (tuple(map(_plain, sides)) for sides in (view.size, view.stride))
    return ReceptiveField(size, stride if any(view.axes) else None)


def _plain(side: float) -> float:
    """A whole number as an int, others (and infinity) as a float."""
    return int(side) if side != math.inf and side == int(side) else float(side)
