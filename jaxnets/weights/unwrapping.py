"""State dicts as training scripts leave them: nested, prefixed, averaged, with other things beside.

Nested dicts are made flat, their names joined by dots, so that a nested dict and a prefix are one thing.
Then the names of the model's own tensors tell where its weights are: under the prefix that has them all.
So no wrapper has to be known by its name, and a prefix that the model's own names have is never removed.

Of raw weights and their running average the average is taken, as by timm's `load_checkpoint` and
torchvision's reference scripts.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.errors import InputError, some

_logger = logging.getLogger("jaxnets")

# What torch's wrappers of modules put into the names, at any depth.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_AVERAGES = {"ema", "swa", "avg", "average", "averaged", "polyak"}
_TRAINING = re.compile(
    r"(.*_)?(opt|optim|optimizers?|sched|schedulers?|scaler|callbacks?)(_.*)?", re.IGNORECASE
)
_COUNTERS = {"num_batches_tracked", "n_averaged"}  # of batch normalization and of AveragedModel
_PROFILED = {"total_ops", "total_params"}  # which thop leaves in every module

Tensors = Mapping[str, Any]
Keys = Mapping[str, Mapping[str, str]]


class Names(NamedTuple):
    """The names of a model's tensors in a library.

    Attributes:
        known: all of them.
        needed: those without which it is another model.
        auxiliary: whether a name is of an auxiliary head that the model does not have.
        parts: the first components of the names of all but the head, where other heads may lie beside
            them unused; None where nothing may.
    """

    known: Collection[str]
    needed: Collection[str]
    auxiliary: Callable[[str], bool]
    parts: Collection[str] | None


class StateDict(NamedTuple):
    """The tensors of one model.

    Attributes:
        tensors: by the names of a library, or nearly so: what is left over is a misfit.
        prefix: under which they were, with its last dot.
        averaged: whether the running average was taken, and the raw weights were not.
        counters: how many counters and profilers' entries are ignored.
        auxiliary: the names of auxiliary heads' tensors, which the model does not have.
        left: those of all others that are not loaded, with their prefixes.
    """

    tensors: dict[str, Any]
    prefix: str
    averaged: bool
    counters: int
    auxiliary: tuple[str, ...]
    left: tuple[str, ...]

    def tell(self, origin: str) -> None:
        """Logs what was taken and what was not: as a warning, where it is more than counters and
        auxiliary heads."""
        texts = []
        if self.averaged:
            texts.append(f"the averaged weights are taken, {self.prefix[:-1]}")
        elif self.left and self.prefix:
            texts.append(f"the weights under {self.prefix[:-1]} are taken")
        if self.left or self.auxiliary:
            texts.append(f"not loaded: {some(self.left + self.auxiliary)}")
        if self.counters:
            texts.append(f"{self.counters} counters and entries of profilers are ignored")
        if texts:
            level = logging.WARNING if self.averaged or self.left else logging.INFO
            _logger.log(level, "%s: %s", origin, "; ".join(texts))


def flattened(content: Any) -> dict[str, Any]:
    """The tensors of nested dicts and lists, by their names joined with dots. All else is left out.

    Raises:
        InputError: two have the same name.
    """
    tensors: dict[str, Any] = {}
    for key, value in _leaves(content, (), ()):
        if key in tensors:
            raise InputError(f"state_dict: it holds {key} twice, nested and not; keep one of them")
        tensors[key] = value
    return tensors


def _leaves(content: Any, path: tuple[str, ...], above: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    if hasattr(content, "shape") or hasattr(content, "__array__"):
        yield ".".join(path), content
        return
    if isinstance(content, Mapping):
        entries = content.items()
    elif isinstance(content, list | tuple):
        entries = enumerate(content)
    else:
        return
    if id(content) not in above:  # a pickle can hold a dict in itself
        for key, value in entries:
            yield from _leaves(value, (*path, str(key)), (*above, id(content)))


def unwrapped(tensors: Tensors, libraries: Sequence[Names]) -> StateDict:
    """The tensors of a model among those of a checkpoint, without their prefix.

    Args:
        tensors: `flattened`.
        libraries: the names of the model, by each library that may have named the tensors.

    Raises:
        InputError: they hold several such models, and nothing tells which is meant.
    """
    keys = _tails(tensors, libraries)
    every = {key: tails for key, tails in keys.items() if not _of_training(key)}
    aside = _set_aside(tensors)
    for candidates in ({key: tails for key, tails in every.items() if not key.startswith(aside)}, every):
        fitting = [(names, whole) for names in libraries if (whole := _whole(candidates, names))]
        if fitting:
            break
    if not fitting:
        prefix, names = _nearest(candidates, libraries)
        return _taken(tensors, keys, prefix, False, names, ())
    # Where heads are not needed, libraries may differ in nothing else.
    names, whole = max(fitting, key=lambda pair: max(_counted(candidates, pair[0].known).values()))
    prefix, averaged = _chosen(tensors, candidates, whole, names)
    return _taken(tensors, keys, prefix, averaged, names, whole)


def _tails(keys: Collection[str], libraries: Sequence[Names]) -> dict[str, dict[str, str]]:
    """Of each name what it is under each prefix it may have, without what wrappers within the model
    added."""
    own = {part for names in libraries for key in names.known for part in key.split(".")}
    wrappers = _WRAPPERS - own
    result = {}
    for key in keys:
        parts = key.split(".")
        result[key] = {
            "".join(f"{part}." for part in parts[:depth]): ".".join(
                [parts[depth], *(part for part in parts[depth + 1 :] if part not in wrappers)]
            )
            for depth in range(len(parts))
        }
    return result


def _of_training(key: str) -> bool:
    """Whether a tensor is of an optimizer or the like, some of which name theirs as the weights."""
    return any(_TRAINING.fullmatch(part) for part in key.split(".")[:-1])


def _set_aside(tensors: Tensors) -> tuple[str, ...]:
    """Prefixes of weights that are not meant where there are others: averages of no steps yet, which are
    what the model began with, and what Lightning's `WeightAveraging` keeps beside its average."""
    aside = []
    for key, value in tensors.items():
        owner, _, entry = key.rpartition(".")
        begun = entry != "n_averaged" or bool(np.any(np.asarray(value)))
        if key == "averaging_state.n_averaged":  # Lightning's, whose average is the state_dict
            aside.append("current_model_state." if begun else "state_dict.")
        elif owner and not begun:
            aside.append(f"{owner}.")
    return tuple(aside)


def _counted(keys: Keys, known: Collection[str]) -> Counter[str]:
    """How many of the known names there are under each prefix."""
    known = set(known)
    every = (tail for tails in keys.values() for tail in tails.items())
    found = {(prefix, name) for prefix, name in every if name in known}
    return Counter(prefix for prefix, _ in found)


def _whole(keys: Keys, names: Names) -> list[str]:
    """The prefixes that have every name that is needed, in the order of the tensors."""
    counted = _counted(keys, names.needed)
    every = [prefix for prefix, count in counted.items() if count == len(names.needed)]
    order = list(dict.fromkeys(prefix for tails in keys.values() for prefix in tails))
    return sorted(every, key=order.index)


def _chosen(tensors: Tensors, keys: Keys, whole: Sequence[str], names: Names) -> tuple[str, bool]:
    """The one prefix of several to take, and whether it is that of an average beside the raw ones."""

    def averages(prefix: str) -> int:
        return sum(not _AVERAGES.isdisjoint(_words(part)) for part in prefix.split("."))

    def values(prefix: str) -> dict[str, np.ndarray]:
        return {
            tails[prefix]: np.asarray(tensors[key])
            for key, tails in keys.items()
            if tails.get(prefix) in names.needed
        }

    most = max(map(averages, whole))
    first, *others = best = [prefix for prefix in whole if averages(prefix) == most]
    if others:
        wanted = values(first)
        if not all(
            np.array_equal(wanted[name], value)
            for other in others
            for name, value in values(other).items()
        ):
            shown = some([repr(prefix.removesuffix(".")) for prefix in best])
            raise InputError(
                f"state_dict: it holds {len(best)} sets of weights that fit, under {shown}; keep one "
                "of them"
            )
    return first, most > 0 and len(best) < len(whole)


def _words(part: str) -> list[str]:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part).lower().replace("-", "_").split("_")


def _nearest(keys: Keys, libraries: Sequence[Names]) -> tuple[str, Names]:
    """The prefix and the library that have the most of the names; the prefix that all tensors share
    where none has half of them."""
    best, nearest = 0.5, (_shared_prefix(keys), libraries[0])
    for names in libraries:
        for prefix, count in _counted(keys, names.known).items():
            if count > best * len(names.known):
                best, nearest = count / len(names.known), (prefix, names)
    return nearest


def _shared_prefix(keys: Collection[str]) -> str:
    shared: list[str] = []
    for parts in zip(*(key.split(".")[:-2] for key in keys if not _counts(key)), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(f"{parts[0]}.")
    return "".join(shared)


def _counts(key: str) -> bool:
    return key.rpartition(".")[2] in _COUNTERS | _PROFILED


def _taken(
    tensors: Tensors,
    keys: Keys,
    prefix: str,
    averaged: bool,
    names: Names,
    whole: Collection[str],
) -> StateDict:
    """The tensors under a prefix, without what is certain to be no part of the model."""
    known, others = set(names.known), [other for other in whole if other != prefix]
    own, counters, auxiliary, left = {}, 0, [], []
    for key, value in tensors.items():
        inside = prefix in keys[key]
        name = keys[key].get(prefix, key)
        if inside and name in known and name not in own:
            own[name] = value
        elif _counts(key) or _is_number(value, inside):
            counters += 1
        elif inside and names.auxiliary(name):
            auxiliary.append(key)
        elif (
            not inside
            or name in own
            or _of_training(key)
            or any(other in keys[key] for other in others if other.startswith(prefix))
            or (names.parts is not None and name.partition(".")[0] not in names.parts)
        ):
            left.append(key)
        else:
            own[name] = value
    left.sort(key=_of_training)  # what may matter first
    return StateDict(own, prefix, averaged, counters, tuple(auxiliary), tuple(left))


def _is_number(value: Any, inside: bool) -> bool:
    """Whether a tensor is a step, a score or the like; of the model itself only integers can be."""
    if np.shape(value):
        return False
    return not inside or np.issubdtype(np.asarray(value).dtype, np.integer)
