"""Tables of what a model is made of: shapes, parameters, multiply-adds, receptive fields."""

import bisect
import copy
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.ad_checkpoint import checkpoint_name

from jaxnets.errors import InputError
from jaxnets.explain.program import Reading, Value
from jaxnets.layers import lowering
from jaxnets.models import create_model

_MARK = "jaxnets summary"
_OWN = "(own)"
_HEADINGS = ("module", "kind", "output", "parameters", "multiply-adds", "receptive field", "stride")
_FLOAT_BYTES = 4

Path = tuple[str, ...]


class ReceptiveField(NamedTuple):
    """What one position of a map sees of the image.

    Attributes:
        size: pixels over (height, width); `math.inf` where it sees the whole image, however large.
        stride: how many pixels apart neighbours look, over (height, width); None where there is no
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


@dataclass(frozen=True)
class Summary:
    """A model as a table, printed by `print(summary)`.

    Attributes:
        name: of the model.
        input_shape: for which the table holds, batch included.
        rows: every module in the order in which they are called, what is within a module after it.
        params: parameters of the whole.
        multiply_adds: of one forward pass in eval mode, over the whole batch: one for each product
            in convolutions (padding counts like pixels) and matrix products, those of attention
            too. Biases, normalization, activations and pooling do not count, nor does what only
            trains, such as auxiliary heads.
        memory: bytes in float32 of all variables (running statistics too), the input, and what
            every row without rows inside puts out: roughly what a training step keeps until its
            backward pass. Gradients, the optimiser's state and what the compiler saves by fusing,
            or adds as workspace, are left out.
        parts: how many levels of the tree are parts of a composition (backbone, head), and not
            layers.
    """

    name: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    params: int
    multiply_adds: int
    memory: int
    parts: int = 0

    def folded(self, depth: int | None = None) -> tuple[Row, ...]:
        """Rows that add up to the whole: modules down to a depth, without those that contain others.

        What a module has besides the modules inside it is a row of its own, "path/(own)".

        Args:
            depth: 1 for the layers or blocks of which backbone and head are made, 2 for what is in
                these, and so on; None for everything.

        Raises:
            InputError: a depth below 1.
        """
        if depth is not None and depth < 1:
            raise InputError(f"depth is {depth}; it must be 1 or more, or None for everything")
        deepest = math.inf if depth is None else depth + self.parts
        shown = [row for row in self.rows if row.path.count("/") < deepest]
        whole = Row("", "", None, self.params, self.multiply_adds, None, 0)
        return tuple(_without_containers([whole, *shown]))

    def table(self, depth: int | None = None) -> str:
        """The table as text, folded to a depth; see `folded`."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
        total = self._total()
        for number, (heading, footer) in enumerate(zip(_HEADINGS, total, strict=True)):
            justify = "left" if number < 2 else "right"
            table.add_column(heading, footer, justify=justify, no_wrap=True)
        for row in self.folded(depth):
            table.add_row(*_cells(row, self.multiply_adds))
        console = Console(file=io.StringIO(), width=1000, color_system=None, markup=False)
        console.print(table)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        return "\n".join([self._title(), *lines]).rstrip()

    def to_markdown(self, depth: int | None = None) -> str:
        """The table in Markdown, folded to a depth; see `folded`."""
        rows = [_cells(row, self.multiply_adds) for row in self.folded(depth)]
        rule = ["---"] * 2 + ["---:"] * (len(_HEADINGS) - 2)
        rows = [_HEADINGS, rule, *rows, [f"**{cell}**" if cell else "" for cell in self._total()]]
        return "\n".join([self._title(), "", *("| " + " | ".join(row) + " |" for row in rows)])

    def __str__(self) -> str:
        return self.table()

    def _title(self) -> str:
        memory = f"{self.memory / 2**20:,.1f} MiB of float32 in a forward pass"
        return f"{self.name} on {_sides(self.input_shape)}: {memory}"

    def _total(self) -> tuple[str, ...]:
        products = _millions(self.multiply_adds, self.multiply_adds)
        return ("total", "", "", f"{self.params:,}", products, "", "")


def summary(
    model: str | nn.Module,
    input_shape: Sequence[int] | None = None,
    **overrides: Any,
) -> Summary:
    """What a model is made of, found by tracing it: nothing is computed or compiled.

        print(jaxnets.summary("googlenet").table(depth=1))

    Multiply-adds and receptive fields are read off the traced program, operation by operation, as
    the layers are written and not as `layers.lowering` has them computed on a CPU. The receptive
    field of a map is the largest of those of the paths that lead to it: a window of F positions
    adds (F - 1) times the stride so far. What takes in all positions, a global mean, a dense layer
    on a flattened map, attention, sees the whole image, and so does all that comes after.

    Args:
        model: a name of `list_models()`, or any module that is called with one array.
        input_shape: of the input, [N, H, W, C] for images; a classifier's may lack N, which is then
            1. None for the size that the model was made for.
        **overrides: settings for `create_model`, with a name.

    Raises:
        InputError: an unknown name or setting, or a shape that the model cannot take.
    """
    if isinstance(model, str):
        name, model = model, create_model(model, **overrides)
    elif overrides:
        raise InputError(f"{', '.join(overrides)}: settings go with the name of a model, not a module")
    else:
        name = getattr(model, "model_name", None) or model.name or type(model).__name__
    shape = _checked_shape(model, input_shape)
    calls, program, (out, variables) = _traced(model, shape)
    image, outputs = len(program.jaxpr.invars) - 1, len(jax.tree.leaves(out))
    reading = Reading(program, image, outputs, _MARK)
    sizes = {
        path: math.prod(leaf.shape) for path, leaf in flatten_dict(variables.get("params", {})).items()
    }
    root, *rows = _rows(calls, reading, sizes)
    if not rows:  # a single layer
        rows = [dataclasses.replace(root, path=name)]
    found = Summary(
        name=name,
        input_shape=shape,
        rows=tuple(rows),
        params=root.parameters,
        multiply_adds=root.multiply_adds,
        memory=0,
        parts=int(isinstance(getattr(model, "backbone", None), nn.Module)),
    )
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables)) + math.prod(shape)
    numbers += sum(row.activations for row in found.folded() if not row.path.endswith(_OWN))
    return dataclasses.replace(found, memory=_FLOAT_BYTES * numbers)


@dataclass
class _Call:
    """A call of a module while it is traced; outputs are the shapes of its arrays by label."""

    path: Path
    kind: str
    outputs: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    maps: bool = False
    hands_on: bool = False  # its very input, as dropout does at test time


def _checked_shape(model: nn.Module, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    size = getattr(model, "input_size", None)
    if input_shape is None:
        if size is None:
            raise InputError("input_shape: this module was made for no size; give one, batch included")
        return (1, *size)
    shape = tuple(input_shape)
    if not shape or not all(isinstance(side, int) and side > 0 for side in shape):
        raise InputError(f"input_shape is {input_shape!r}; wanted whole numbers above 0")
    if size is None:
        return shape
    if len(shape) not in (3, 4):
        raise InputError(f"input_shape is {shape}; wanted (H, W, C) of an image, or (N, H, W, C)")
    return shape if len(shape) == 4 else (1, *shape)


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

    key = jax.eval_shape(jax.random.key, 0)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)

    def run(key, images):
        # Flax's own `init`, for a classifier's draws all parameters at once, which takes longer here.
        return nn.Module.init_with_output(model, {"params": key, "dropout": key}, images)

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
    stride = "" if max(strides) == 1 else f"/{strides[0] if same else _sides(strides)}"
    groups = module.feature_group_count
    return f"{kind} {_sides(kernel)}{stride}" + (f", {groups} groups" if groups > 1 else "")


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
        if number in places and not call.hands_on:
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
            parameters=sum(size for own, size in sizes.items() if own[: len(path)] == path),
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


def _without_containers(rows: list[Row]) -> Iterator[Row]:
    """The rows that contain no others of them, and of those that do what is theirs alone."""
    inside: dict[str, list[Row]] = {}
    paths = {row.path for row in rows}
    for row in rows[1:]:
        parent = row.path
        while parent := parent.rpartition("/")[0]:
            if parent in paths:
                break
        inside.setdefault(parent, []).append(row)
    for row in rows:
        within = inside.get(row.path, [])
        if not within:
            yield row
            continue
        parameters = row.parameters - sum(part.parameters for part in within)
        products = row.multiply_adds - sum(part.multiply_adds for part in within)
        if parameters or products:
            path = f"{row.path}/{_OWN}".lstrip("/")
            yield dataclasses.replace(row, path=path, parameters=parameters, multiply_adds=products)


def _cells(row: Row, total: int) -> tuple[str, ...]:
    size = stride = ""
    if row.receptive_field is not None:
        size = _sides(row.receptive_field.size, equal=True)
        stride = _sides(row.receptive_field.stride or (), equal=True)
    shape = "" if row.output_shape is None else _sides(row.output_shape[1:])
    products = _millions(row.multiply_adds, total)
    return (row.path, row.kind, shape, f"{row.parameters:,}", products, size, stride)


def _sides(sides: Sequence[float], equal: bool = False) -> str:
    """28x28x192; where all are equal it may be one number, and all of an image is "all"."""
    shown = ["all" if side == math.inf else str(side) for side in sides]
    return shown[0] if equal and len(set(shown)) == 1 else "x".join(shown)


def _millions(products: int, total: int) -> str:
    """Whole numbers in small nets; in large ones millions."""
    if total < 10**7 or not products:
        return f"{products:,}"
    return f"{products / 1e6:,.{1 if products >= 50_000 else 3}f} M"
