"""The tables of names: which name a library has for each module of a model.

The table is `RENAMES` in the family's file: for each library the rules, or a function from the
model to the rules, where a library numbers its layers through. A rule is a pair, or with a layout a
triple:

    ("backbone/stage{s}_block{b}/{layer}", "layer{s}.{b-1}.{layer}")
    ("head/fc1", "classifier.0", "(h7 w7 c) o -> o (c h7 w7)")

First comes the path of a module of ours (or of a parameter that belongs to no layer), in which each
{field} stands for any text. Then comes the reference's name, in which a field stands for the same text,
with slashes as dots, or for a number with something added. A kernel with an unusual layout has that
layout (`jaxnets.weights.layout`), from ours to theirs, as a third entry. The first rule that matches a
module holds for all its parameters.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.models.registry import family_of, published_weights

Rules = Sequence[tuple[str, ...]]

OUR_NAMES = "jaxnets"
"""Beside the `libraries`: the paths in our variables, with dots, and of the layers' parameters torch's
names."""

_OURS = (("", ""), ("{module}", "{module}"))
_PARTIAL = {"keras", "slim"}  # of a family these have only the models of which there are weights

_FIELD = re.compile(r"\{(?P<name>\w+)(?P<added>[+-]\d+)?\}")


def libraries(name: str) -> tuple[str, ...]:
    """The libraries whose names of a model's parameters are known.

    Args:
        name: one of `jaxnets.list_models()`.

    Raises:
        InputError: the name is unknown.
    """
    return tuple(_renames(name))


def libraries_of(model: nn.Module) -> tuple[str, ...]:
    """The `libraries` of a model that have names for it on its own backbone."""

    def has_names(library: str) -> bool:
        try:
            rules_of(model, library)
        except InputError:
            return False
        return True

    return tuple(filter(has_names, libraries(model.model_name)))


def rules_of(model: nn.Module, library: str) -> Rules:
    """The rules of a library's names for a model."""
    if library == OUR_NAMES:
        return _OURS
    rules = _renames(model.model_name)[library]
    return rules(model) if callable(rules) else rules


def covering(rules: Rules) -> re.Pattern:
    """The regular expression of all names of modules that rules give."""
    field = r"\\\{\w+(\\[+-]\d+|\+\d+)?\\\}"
    return re.compile("|".join(re.sub(field, ".+", re.escape(theirs)) for _, theirs, *_ in rules))


def renamed(path: str, rules: Rules) -> tuple[str, str | None]:
    """The reference's name of a module, and the layout of its kernel if it is unusual."""
    for pattern, template, *layout in rules:
        match = _pattern(pattern).fullmatch(path)
        if match:
            name = _FIELD.sub(functools.partial(_put_in, match), template)
            return name, *(layout or [None])
    raise ValueError(f"no rename covers {path}")


@functools.cache
def _pattern(pattern: str) -> re.Pattern:
    """The regular expression of a pattern with {fields}."""
    pieces = re.split(r"\{(\w+)\}", pattern)
    pieces[::2] = map(re.escape, pieces[::2])
    pieces[1::2] = (f"(?P<{field}>.+?)" for field in pieces[1::2])
    return re.compile("".join(pieces))


def _put_in(match: re.Match, field: re.Match) -> str:
    """The text of a template's field, from the pattern that matched."""
    text, added = match[field["name"]], field["added"]
    return str(int(text) + int(added)) if added else text.replace("/", ".")


def _renames(name: str) -> Mapping[str, Any]:
    """The table of the family that has the model, without libraries that have only others of it."""
    table = getattr(family_of(name), "RENAMES", {})
    have = {row.library for row in published_weights(name)}
    return {library: rules for library, rules in table.items() if library not in _PARTIAL - have}
