"""The reading of a jaxpr: what its outputs depend on, its multiply-adds and its receptive fields.

All of it is read off the program, operation by operation, so no layer has to state it.

The *view* of a value is the receptive field of one of its positions: how many pixels of the image it can
depend on along each axis, and how many pixels apart the views of two neighbors are. A window of F
positions adds (F - 1) times the stride of what it slides over, and multiplies that stride by its own.
Where paths meet, the largest view counts; shifts between them are neglected. An operation over all
positions, such as a global mean, a dense layer on a flattened map or attention, sees the whole image:
`math.inf`.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

_NOWHERE = frozenset()

_REDUCTIONS = (
    *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
    *("argmax", "argmin"),
)
_MIXING = ("scan", "while", "fft")  # of any shape, and yet not position by position
_SAME_RANK = ("pad", "rev", "slice", "dynamic_slice", "split", "concatenate", "sort", "top_k")


class View(NamedTuple):
    """What one position of an array sees of the image.

    Attributes:
        size: pixels over (height, width); `math.inf` for all.
        stride: pixels between neighbors, over (height, width).
        axes: for each axis of the array, the axes of the image it runs along: 0 height, 1 width.
    """

    size: tuple[float, float]
    stride: tuple[Fraction, Fraction]
    axes: tuple[frozenset[int], ...]


class Value(NamedTuple):
    """A value of the program: the number of the operation that made it, and its view, if it has one."""

    born: int
    view: View | None


def variables_needed(jaxpr: Jaxpr, outputs: int) -> set[Var]:
    """The variables that the first outputs of a program depend on, with these outputs themselves."""
    needed = {atom for atom in jaxpr.outvars[:outputs] if not isinstance(atom, Literal)}
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            needed.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    return needed


class Reading:
    """A traced program, read from its first operation to its last.

    Attributes:
        marks: the place in the program and the value of each mark; see `tracing`.
        products: the place and the multiply-adds of each convolution and matrix product that the
            wanted outputs depend on. An operation in a loop counts once for each turn where their number
            is known (`scan`), and not at all where it is not (`while_loop`); of the branches of a `cond`
            the last counts.
    """

    def __init__(
        self,
        program: ClosedJaxpr,
        image: int,
        outputs: int,
        mark_of: Callable[[JaxprEqn], Hashable | None],
    ):
        """Reads a program.

        Args:
            program: traced by `jax.make_jaxpr`.
            image: which of its inputs is the image [N, H, W, C].
            outputs: how many of its outputs are wanted, from the first on.
            mark_of: the mark that an equation is; None for other equations.
        """
        self.marks: dict[Hashable, tuple[int, Value]] = {}
        self.products: list[tuple[int, int]] = []
        self._mark_of, self._place = mark_of, 0
        inputs = [Value(0, None) for _ in program.jaxpr.invars]
        shape = program.jaxpr.invars[image].aval.shape
        if len(shape) == 4:
            axes = (_NOWHERE, frozenset({0}), frozenset({1}), _NOWHERE)
            inputs[image] = Value(0, View((1, 1), (Fraction(1), Fraction(1)), axes))
        self._read(program.jaxpr, inputs, 1, variables_needed(program.jaxpr, outputs))

    def _read(
        self, jaxpr: Jaxpr, inputs: Sequence[Value], times: int, needed: set[Var] | None = None
    ) -> list[Value]:
        """Reads a program that runs `times` times; products count if they lead to `needed` variables."""
        values = dict(zip(jaxpr.invars, inputs, strict=True))

        def value(atom: Any) -> Value:
            return Value(0, None) if isinstance(atom, Literal) else values.get(atom, Value(0, None))

        for equation in jaxpr.eqns:
            self._place += 1
            ins = [value(atom) for atom in equation.invars]
            counts = times if needed is None or not needed.isdisjoint(equation.outvars) else 0
            outs = self._equation(equation, ins, counts)
            values.update(zip(equation.outvars, outs, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: JaxprEqn, ins: list[Value], times: int) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        mark = self._mark_of(equation)
        if mark is not None:
            self.marks[mark] = self._place, ins[0]
            return ins[:1]
        if name == "cond":
            return self._read(params["branches"][-1].jaxpr, ins[1:], times)
        inner = next((params[key] for key in ("jaxpr", "call_jaxpr") if key in params), None)
        inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
        if name == "scan":
            self._read(inner, [Value(0, None)] * len(inner.invars), times * params["length"])
        elif inner is not None and len(inner.invars) == len(ins):
            return self._read(inner, ins, times)
        elif name in ("conv_general_dilated", "dot_general"):
            count = _conv_products if name == "conv_general_dilated" else _matrix_products
            if times:
                self.products.append((self._place, times * count(equation)))
        views = [found.view for found in ins]
        seen = None
        if any(view is not None for view in views):
            seen = [_view(equation, views, variable.aval.shape) for variable in equation.outvars]
        return [Value(self._place, view) for view in seen or [None] * len(equation.outvars)]


def _conv_products(equation: JaxprEqn) -> int:
    params = equation.params
    lhs, rhs = (variable.aval.shape for variable in equation.invars)
    kernel = [rhs[axis] for axis in params["dimension_numbers"].rhs_spec]  # out, in, height, width
    if math.prod(params["lhs_dilation"]) > 1:  # transposed: every input pixel pastes the kernel
        return math.prod(lhs) * math.prod(kernel[2:]) * kernel[0] // params["feature_group_count"]
    return math.prod(equation.outvars[0].aval.shape) * math.prod(kernel[1:])


def _matrix_products(equation: JaxprEqn) -> int:
    ((contracted, _), _) = equation.params["dimension_numbers"]
    lhs = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(lhs[axis] for axis in contracted)


def _view(equation: JaxprEqn, views: list[View | None], shape: tuple[int, ...]) -> View:
    """What an output of this shape sees; at least one of the inputs has a view."""
    name, params = equation.primitive.name, equation.params
    shapes = [getattr(variable.aval, "shape", ()) for variable in equation.invars]
    first, before = views[0], shapes[0]
    if name == "conv_general_dilated" and first is not None and views[1] is None:
        return _convolved(first, params, shapes[1])
    if name.startswith("reduce_window") and first is not None:
        sides = ("window_dimensions", "window_strides", "window_dilation")
        windows = zip(*(params[side] for side in sides), strict=True)
        return _slide(first, [((w - 1) * d + 1, Fraction(s)) for w, s, d in windows])
    if name == "dot_general":
        return _multiplied(views, shapes, *params["dimension_numbers"])
    if name in _REDUCTIONS or name == "unstack":
        over = params["axes"] if name in _REDUCTIONS else (params["axis"],)
        kept = [axis for axis in range(len(before)) if axis not in over]
        view = _sum_up(first, before, over)
        return _placed(view, {axis: place for place, axis in enumerate(kept)}, len(shape))
    if name == "broadcast_in_dim":
        return _placed(first, dict(enumerate(params["broadcast_dimensions"])), len(shape))
    if name == "transpose":
        return first._replace(axes=tuple(first.axes[axis] for axis in params["permutation"]))
    if name in ("reshape", "squeeze", "expand_dims"):
        return _regrouped(first, before, shape)
    if name == "slice" and params["strides"]:
        return _slide(first, [(1, Fraction(s)) for s in params["strides"]])
    same = [v for v, s in zip(views, shapes, strict=True) if v is not None and len(s) == len(shape)]
    elementwise = name not in _MIXING and all(not s or _spreads(s, shape) for s in shapes)
    known = [view for view in views if view is not None]
    if same and (elementwise or name in _SAME_RANK):
        return _joined(known, len(shape))
    return _everywhere(known, len(shape))


def _convolved(view: View, params: dict[str, Any], kernel: tuple[int, ...]) -> View:
    """The view after a convolution with a kernel of this shape."""
    numbers, rank = params["dimension_numbers"], len(kernel)
    windows = [(1, Fraction(1))] * rank
    for i, (lhs, rhs) in enumerate(zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], strict=True)):
        spread = params["lhs_dilation"][i]  # of a transposed convolution, which meets fewer pixels
        span = (kernel[rhs] - 1) * params["rhs_dilation"][i] + 1
        windows[lhs] = -(-span // spread), Fraction(params["window_strides"][i], spread)
    view = _sum_up(_slide(view, windows), kernel, numbers.lhs_spec[1:2])
    return _placed(view, dict(zip(numbers.lhs_spec, numbers.out_spec, strict=True)), rank)


def _spreads(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    return len(shape) == len(over) and all(a in (1, b) for a, b in zip(shape, over, strict=True))


def _multiplied(
    views: Sequence[View | None],
    shapes: Sequence[tuple[int, ...]],
    contracted: tuple[Sequence[int], Sequence[int]],
    batched: tuple[Sequence[int], Sequence[int]],
) -> View:
    """The view after a matrix product: batch axes first, then what is left of either side."""
    free = [
        [a for a in range(len(shapes[side])) if a not in (*contracted[side], *batched[side])]
        for side in (0, 1)
    ]
    rank, parts = len(batched[0]) + len(free[0]) + len(free[1]), []
    for side, start in ((0, len(batched[0])), (1, len(batched[0]) + len(free[0]))):
        if views[side] is not None:
            places = {axis: place for place, axis in enumerate(batched[side])}
            places |= {axis: start + place for place, axis in enumerate(free[side])}
            view = _sum_up(views[side], shapes[side], contracted[side])
            parts.append(_placed(view, places, rank))
    return _joined(parts, rank)


def _slide(view: View, windows: Sequence[tuple[int, Fraction]]) -> View:
    """The view of a window that slides, by its span and stride along each axis of the array."""
    size, stride = list(view.size), list(view.stride)
    for (span, step), along in zip(windows, view.axes, strict=True):
        for axis in along:
            size[axis] += (span - 1) * stride[axis]
            stride[axis] *= step
    return View(tuple(size), tuple(stride), view.axes)


def _sum_up(view: View, shape: tuple[int, ...], over: Sequence[int]) -> View:
    """The view after a sum over some axes, which stay in place with nothing along them."""
    size, stride = list(view.size), list(view.stride)
    kept = [axis for axis in range(len(shape)) if axis not in over]
    for axis in set().union(*(view.axes[a] for a in over)):
        bins = [view.axes[a] for a in kept if axis in view.axes[a]]
        if bins == [frozenset({axis})]:  # rows cut into bins: a window as wide as a bin
            width = math.prod(shape[a] for a in over if axis in view.axes[a])
            size[axis] += (width - 1) * stride[axis]
            stride[axis] *= width
        else:
            size[axis] = math.inf
    axes = tuple(_NOWHERE if a in over else along for a, along in enumerate(view.axes))
    return View(tuple(size), tuple(stride), axes)


def _placed(view: View, places: dict[int, int], rank: int) -> View:
    """The view with its axes at other places of an array of this rank."""
    axes = [_NOWHERE] * rank
    for source, place in places.items():
        axes[place] = view.axes[source]
    return view._replace(axes=tuple(axes))


def _everywhere(views: Sequence[View], rank: int) -> View:
    """What sees all, in places of which nothing is known."""
    stride = _joined([view._replace(axes=()) for view in views], 0).stride
    return View((math.inf, math.inf), stride, (_NOWHERE,) * rank)


def _joined(views: Sequence[View], rank: int) -> View:
    """The largest of several views. Those of scalars run along nothing."""
    return View(
        tuple(max(view.size[i] for view in views) for i in (0, 1)),
        tuple(max(view.stride[i] for view in views) for i in (0, 1)),
        tuple(
            frozenset().union(*(view.axes[a] for view in views if len(view.axes) == rank))
            for a in range(rank)
        ),
    )


def _regrouped(view: View, before: tuple[int, ...], after: tuple[int, ...]) -> View:
    """The view after a reshape: axes that are merged run along all that each of them ran along. An axis
    of the image whose every place was repeated, as maps are enlarged, has as many more places."""
    if 0 in before:
        return _everywhere([view], len(after))
    axes: list[frozenset[int]] = []
    stride = list(view.stride)
    i = j = 0
    while i < len(before) or j < len(after):
        (a, i), (b, j) = (i, min(i + 1, len(before))), (j, min(j + 1, len(after)))
        while (merged := math.prod(before[a:i])) != (cut := math.prod(after[b:j])):
            i, j = (i + 1, j) if merged < cut else (i, j + 1)
        along = frozenset().union(*view.axes[a:i])
        alone = i - a == j - b == 1
        if len(along) == 1 and j - b == 1 and along == view.axes[a] and not any(view.axes[a + 1 : i]):
            stride[min(along)] /= math.prod(before[a + 1 : i])
        axes += [along if alone or extent > 1 else _NOWHERE for extent in after[b:j]]
    lost = frozenset().union(*view.axes).difference(*axes)
    size = tuple(math.inf if axis in lost else view.size[axis] for axis in (0, 1))
    return View(size, tuple(stride), tuple(axes))
