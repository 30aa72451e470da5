"""Summaries of models: output shapes, parameters, multiply-adds and receptive fields, as a table."""

import dataclasses
import io
import math
import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from jaxnets import console
from jaxnets.errors import InputError
from jaxnets.explain.modules import Row, read_modules, sides
from jaxnets.models import create_model

_OWN = "(own)"
_HEADINGS = ("module", "kind", "output", "parameters", "multiply-adds", "receptive field", "stride")
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Summary:
    """A model as a table; `print(summary)` prints it.

    Attributes:
        name: of the model.
        input_shape: with the batch.
        rows: one for each module, in the order of their calls, a module before those inside it.
        params: number of parameters of the model.
        multiply_adds: of one forward pass in eval mode, over the whole batch: one for each product
            in convolutions (padding counts like pixels) and matrix products, those of attention
            too. Biases, normalization, activations and pooling do not count, nor does what only
            trains, such as auxiliary heads.
        memory: bytes in float32 of all variables (with running statistics), of the input and of the
            outputs of all innermost rows: about what a training step keeps until its backward pass.
            Gradients, the optimizer's state, the compiler's workspace and its savings by fusion are
            not included.
        parts: number of levels of the tree that are parts of a composition (backbone, head) and not
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
        """Rows that add up to the model: modules down to a depth, without those that contain others.

        What a module has besides the modules inside it is a separate row, "path/(own)".

        Args:
            depth: 1 for the layers or blocks of backbone and head, 2 for the modules inside these, and
                so on; None for all.

        Raises:
            InputError: a depth below 1.
        """
        if depth is not None and depth < 1:
            raise InputError(f"depth is {depth}; it must be 1 or more, or None for everything")
        deepest = math.inf if depth is None else depth + self.parts
        shown = [row for row in self.rows if row.path.count("/") < deepest]
        whole = Row("", "", None, self.params, self.multiply_adds, None, 0)
        return tuple(_without_containers([whole, *shown]))

    def table(self, depth: int | None = None, width: int | None = None) -> str:
        """The table as text, folded to a depth; see `folded`.

        Args:
            depth: as for `folded`.
            width: of its lines; None for as wide as it is.
        """
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
        total = self._total()
        for number, (heading, footer) in enumerate(zip(_HEADINGS, total, strict=True)):
            justify = "left" if number < 2 else "right"
            table.add_column(heading, footer, justify=justify, no_wrap=True)
        for row in self.folded(depth):
            table.add_row(*_cells(row, self.multiply_adds))
        if width is not None and console.natural_width(table) > width:
            return "\n".join([self._title(), "", *console.folded(table, width)])
        plain = console.PlainConsole(file=io.StringIO(), width=1000, color_system=None)
        plain.print(table)
        lines = [line.rstrip() for line in plain.file.getvalue().splitlines()]
        return "\n".join([self._title(), *lines]).rstrip()

    def to_markdown(self, depth: int | None = None) -> str:
        """The table in Markdown, folded to a depth; see `folded`."""
        rows = [_cells(row, self.multiply_adds) for row in self.folded(depth)]
        rule = ["---"] * 2 + ["---:"] * (len(_HEADINGS) - 2)
        rows = [_HEADINGS, rule, *rows, [f"**{cell}**" if cell else "" for cell in self._total()]]
        return "\n".join([self._title(), "", *("| " + " | ".join(row) + " |" for row in rows)])

    def to_dict(self, depth: int | None = None) -> dict[str, Any]:
        """The whole table for JSON, folded to a depth; see `folded`."""
        rows = [dataclasses.asdict(row) for row in self.folded(depth)]
        return dataclasses.asdict(self) | {"rows": rows}

    def __str__(self) -> str:
        return self.table()

    def _title(self) -> str:
        memory = f"{self.memory / 2**20:,.1f} MiB of float32 in a forward pass"
        return f"{self.name} on {sides(self.input_shape)}: {memory}"

    def _total(self) -> tuple[str, ...]:
        products = _millions(self.multiply_adds, self.multiply_adds)
        return ("total", "", "", f"{self.params:,}", products, "", "")


def summary(
    model: str | nn.Module,
    input_shape: Sequence[int] | None = None,
    **overrides: Any,
) -> Summary:
    """Summarizes a model by tracing it; nothing is computed or compiled.

        print(jaxnets.summary("googlenet").table(depth=1))

    Multiply-adds and receptive fields are read off the traced program, operation by operation, for the
    layers as they are written and not in the forms that `layers.lowering` gives them on a CPU. The
    receptive field of a map is the largest over the paths that lead to it: a window of F positions adds
    (F - 1) times the stride so far. A global mean, a dense layer on a flattened map or attention sees
    the whole image, and so does everything after it.

    Args:
        model: a name of `list_models()`, or any module that is called with one array (and `train`,
            which is then False).
        input_shape: [N, H, W, C] for images; for a classifier also [H, W, C] of one image. None for the
            size that the model was made for.
        **overrides: settings for `create_model`, with a name.

    Raises:
        InputError: an unknown name or setting, or a shape that the model cannot take.
    """
    if not isinstance(model, str | nn.Module):
        raise InputError(f"model is a {type(model).__name__}; wanted the name of a model, or a module")
    if isinstance(model, str):
        name, model = model, create_model(model, **overrides)
    elif overrides:
        raise InputError(f"{', '.join(overrides)}: settings go with the name of a model, not a module")
    else:
        name = getattr(model, "model_name", None) or model.name or type(model).__name__
    shape = _checked_shape(model, input_shape)
    (root, *rows), count = read_modules(model, shape)
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
    innermost = [row for row in found.folded() if not row.path.endswith(_OWN)]
    count += math.prod(shape) + sum(row.activations for row in innermost)
    return dataclasses.replace(found, memory=_FLOAT_BYTES * count)


def _checked_shape(model: nn.Module, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    size = getattr(model, "input_size", None)
    if input_shape is None:
        if size is None:
            raise InputError("input_shape: this module was made for no size; give one, with the batch")
        return (1, *size)
    shape = tuple(input_shape)
    if not shape or not all(isinstance(side, numbers.Integral) and side > 0 for side in shape):
        raise InputError(f"input_shape is {input_shape!r}; wanted whole numbers above 0")
    if size is None:
        return shape
    if len(shape) not in (3, 4):
        raise InputError(f"input_shape is {shape}; wanted (H, W, C) of an image, or (N, H, W, C)")
    return shape if len(shape) == 4 else (1, *shape)


def _without_containers(rows: list[Row]) -> Iterator[Row]:
    """The rows that contain no others, and for each that does a row of what is its own."""
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
        size = sides(row.receptive_field.size, equal=True)
        stride = sides(row.receptive_field.stride or (), equal=True)
    shape = "" if row.output_shape is None else sides(row.output_shape[1:])
    products = _millions(row.multiply_adds, total)
    return (row.path, row.kind, shape, f"{row.parameters:,}", products, size, stride)


def _millions(products: int, total: int) -> str:
    """Exact numbers for small models, millions for large ones."""
    if total < 10**7 or not products:
        return f"{products:,}"
    return f"{products / 1e6:,.{1 if products >= 50_000 else 3}f} M"
