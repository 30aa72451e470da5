"""The rows of a summary: the modules of a traced model."""

import bisect
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxnets.explain.reading import Reading, Value
from jaxnets.explain.tracing import Call, mark_of, trace_calls
from jaxnets.layers import lowering

Path = tuple[str, ...]


class ReceptiveField(NamedTuple):
    """The part of the image that one position of a map depends on.

    Attributes:
        size: pixels over (height, width); `math.inf` for the whole image, however large.
        stride: pixels between the fields of neighbors, over (height, width); None for what is not a map.
    """

    size: tuple[float, float]
    stride: tuple[float, float] | None


@dataclass(frozen=True)
class Row:
    """A module of a model, with everything inside it; or a feature map that no module returns.

    Attributes:
        path: where its parameters are, as "backbone/inception3a/1x1/conv".
        kind: the class, and of a convolution its kernel and stride; "map" for a feature map.
        output_shape: with the batch; of several outputs, that of the last in a dict and of the first in
            a tuple.
        parameters: number of trained values, without running statistics.
        multiply_adds: products of its convolutions and matrix products in one forward pass.
        receptive_field: None for what does not depend on an image [N, H, W, C].
        activations: number of values that it returns, over all its calls and outputs.
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
        module returns, in order; and the number of values in its variables.
    """
    mode = {"train": False} if "train" in inspect.signature(model.__call__).parameters else {}
    key = jax.eval_shape(jax.random.key, 0)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)

    def call(key, images):
        # Flax's own `init`: a classifier's draws all parameters at once, which takes longer to trace.
        return nn.Module.init_with_output(model, {"params": key, "dropout": key}, images, **mode)

    with lowering("native"):
        traced = trace_calls(call, key, images)
    out, variables = traced.result
    image, outputs = len(traced.jaxpr.jaxpr.invars) - 1, len(jax.tree.leaves(out))
    reading = Reading(traced.jaxpr, image, outputs, mark_of)
    sizes = {path: leaf.size for path, leaf in flatten_dict(variables.get("params", {})).items()}
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables))
    return _rows(traced.calls, reading, sizes), numbers


def sides(lengths: Sequence[float], equal: bool = False) -> str:
    """Sides as text, such as 28x28x192; one number where `equal` and all are; "all" for `math.inf`."""
    shown = ["all" if side == math.inf else str(side) for side in lengths]
    return shown[0] if equal and len(set(shown)) == 1 else "x".join(shown)


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


def _rows(calls: list[Call], reading: Reading, sizes: dict[Path, int]) -> list[Row]:
    """The row of the model, then those of modules and of maps that no module returns, in order."""
    places: dict[int, list[int]] = {}
    outputs: dict[int, dict[str, Value]] = {}
    for mark, (place, value) in reading.marks.items():
        places.setdefault(mark.call, []).append(place)
        if mark.side == "out":
            outputs.setdefault(mark.call, {})[mark.label] = value
    made = {
        value.born
        for number, values in outputs.items()
        if calls[number].returns != "maps"
        for value in values.values()
    }
    by_path: dict[Path, list[int]] = {}
    for number, call in enumerate(calls):
        if number in places and not (call.is_identity and call.path):
            by_path.setdefault(call.path, []).append(number)

    found: list[tuple[int, Row]] = []
    at = [place for place, _ in reading.products]
    for path, numbers in by_path.items():
        first, own = calls[numbers[0]], outputs.get(numbers[0], {})
        maps = first.returns == "maps"
        label = list(first.outputs)[-1 if maps else 0] if first.outputs else None
        products: set[int] = set()
        for number in numbers:
            start, end = min(places[number]), max(places[number])
            products.update(range(bisect.bisect(at, start), bisect.bisect(at, end)))
        row = Row(
            path="/".join(path),
            kind=_kind(first.module),
            output_shape=first.outputs.get(label),
            parameters=sum(size for leaf, size in sizes.items() if leaf[: len(path)] == path),
            multiply_adds=sum(reading.products[k][1] for k in products),
            receptive_field=_receptive_field(own.get(label)),
            activations=sum(math.prod(shape) for n in numbers for shape in calls[n].outputs.values()),
        )
        found.append((min(places[numbers[0]]), row))
        for name, value in own.items() if maps else ():
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
    """A whole number as an int, any other (and infinity) as a float."""
    return int(side) if side != math.inf and side == int(side) else float(side)
