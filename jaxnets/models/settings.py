"""Settings of models: what the annotations of a family's `build` allow, and how values are checked.

The types are the usual ones; `Annotated` adds a condition that a type cannot state:

    def build(*, depths: Counts, block: Literal["basic", "bottleneck"], drop_path: Probability = 0.0)
"""

import dataclasses
import inspect
import numbers
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from jaxnets.errors import InputError, unknown_name


class Condition(NamedTuple):
    """What a value must fulfill besides its type.

    Attributes:
        wanted: how an error message puts it, such as "a positive number".
        holds: whether a value of the right type fulfills it.
    """

    wanted: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Condition("an integer, 1 or more", lambda value: value >= 1)]
CountOrZero = Annotated[int, Condition("an integer, 0 or more", lambda value: value >= 0)]
Counts = Annotated[tuple[Count, ...], Condition("a tuple of at least one", len)]
Positive = Annotated[float, Condition("a positive number", lambda value: value > 0)]
NonNegative = Annotated[float, Condition("a number, 0 or more", lambda value: value >= 0)]
Probability = Annotated[float, Condition("a probability in [0, 1)", lambda value: 0 <= value < 1)]
Share = Annotated[float, Condition("a share in [0, 1]", lambda value: 0 <= value <= 1)]


class Setting(NamedTuple):
    """An argument of a family's `build`.

    Attributes:
        annotation: its type, as above; `Any` where `build` has none.
        default: `inspect.Parameter.empty` where every variant gives its own.
    """

    annotation: Any
    default: Any


def settings_of(build: Callable[..., Any]) -> dict[str, Setting]:
    """The keyword arguments of a family's `build` by name."""
    hints = get_type_hints(build, include_extras=True)
    parameters = inspect.signature(build).parameters.values()
    return {p.name: Setting(hints.get(p.name, Any), p.default) for p in parameters}


def takes_fields_of(module: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares that the `**settings` of a function are the fields of a Linen module.

    The fields, with their types and defaults, stand in the signature of the function, for `help` as
    for `create_model`; so a setting of a backbone is written once, where the module declares it.

        @takes_fields_of(ResNet)
        def build(*, num_classes: int = 1000, **settings: Any) -> Classifier:
            backbone = ResNet(**settings)
    """
    fields = [field for field in dataclasses.fields(module) if field.name not in ("parent", "name")]

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        *own, rest = signature.parameters.values()
        taken = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=rest.empty if field.default is dataclasses.MISSING else field.default,
                annotation=field.type,
            )
            for field in fields
        ]
        function.__signature__ = signature.replace(parameters=[*own, *taken])
        del function.__annotations__[rest.name]
        function.__annotations__ |= {field.name: field.type for field in fields}
        return function

    return declare


def checked(setting: str, value: Any, annotation: Any, example: Any) -> Any:
    """A value, if it is what an annotation says; lists become tuples.

    Args:
        setting: its name, for the error message.
        value: what came.
        annotation: a type, `Literal`, a tuple or a union of these, or `Annotated` with a `Condition`.
            Any other allows every value.
        example: a value that fits, for the error message.

    Raises:
        InputError: the value does not fit.
    """
    kind, *conditions = get_args(annotation) if get_origin(annotation) is Annotated else [annotation]
    conditions = [condition for condition in conditions if isinstance(condition, Condition)]
    origin, arguments = get_origin(kind), get_args(kind)
    wanted, fits = None, True
    if origin in (Union, types.UnionType):
        for argument in arguments:
            try:
                return checked(setting, value, argument, example)
            except InputError:
                pass
        wanted, fits = str(kind), False
    elif origin is Literal:
        matches = [a for a in arguments if type(a) is type(value) and a == value]
        if not matches and isinstance(value, str) and isinstance(arguments[0], str):
            raise unknown_name(setting, value, map(str, arguments))
        wanted, fits = f"one of {', '.join(map(repr, arguments))}", bool(matches)
    elif origin is tuple or kind is tuple:
        wanted, fits = "a tuple", isinstance(value, tuple | list)
        if fits and len(arguments) == 2 and arguments[1] is ...:
            examples = example or (None,)
            value = tuple(checked(setting, item, arguments[0], examples[0]) for item in value)
        elif fits and arguments:
            wanted, fits = f"a tuple of {len(arguments)}", len(value) == len(arguments)
            if fits:
                examples = example or [None] * len(value)
                value = tuple(map(checked, [setting] * len(value), value, arguments, examples))
    elif kind is bool or kind is str:
        wanted, fits = f"a {kind.__name__}", isinstance(value, kind)
    elif kind is int or kind is float:
        wanted = {int: "an integer", float: "a number"}[kind]
        abstract = {int: numbers.Integral, float: numbers.Real}[kind]
        fits = isinstance(value, abstract) and not isinstance(value, bool)
    elif kind is type(None):
        wanted, fits = "None", value is None
    if conditions:
        wanted, holds = conditions[0]
        fits = fits and holds(value)
    if not fits:
        such = "" if example is None or origin is Literal else f", such as {example!r}"
        raise InputError(f"{setting}: wanted {wanted}{such}; got {value!r}")
    return value
