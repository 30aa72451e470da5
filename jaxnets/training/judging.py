"""How a run is judged: by its headline, and by the metric that it monitors."""

import itertools
from collections.abc import Collection, Mapping
from typing import Protocol

import jax
import numpy as np

from jaxnets import metrics
from jaxnets.errors import InputError
from jaxnets.metrics import Metric, Metrics
from jaxnets.training.task import LOSS, Headline

_OF_EVERY_EPOCH = ("seconds", "images_per_second", "data_wait")


class Criteria(Protocol):
    """What of a `loop.Schedule` decides how a run is judged."""

    headline: Headline
    monitor: str | None
    patience: int | None


def key_of(name: str) -> str:
    """The name of a metric of training steps in an epoch's record."""
    of_the_step = name.startswith(("update_ratio", "grad_norm", "learning_rate"))  # also per layer
    return name if of_the_step else f"train_{name}"


def scalar_kinds(sums: Metrics) -> Metrics:
    """Those of a step's metrics that are scalars, by name; also of shapes, as from `jax.eval_shape`."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), sums)
    with np.errstate(all="ignore"):
        return {name: sums[name] for name in metrics.scalars(zeros)}


def unknown(criteria: Criteria, names: Collection[str], tested: bool) -> str:
    """What is wrong with the headline or the monitor, in words; "" if an epoch records both.

    Args:
        criteria: the headline and the monitor.
        names: of the metrics of an epoch's record, such as "train_loss".
        tested: whether a run has test examples; if not, it may do without its headline.
    """
    recorded = names if tested else [name for name in names if not name.startswith("test_")]
    metric, monitor = criteria.headline.metric, criteria.monitor
    if not {f"train_{metric}", f"test_{metric}"}.intersection(names):
        return f"headline is {metric!r}, which is no metric of the task: an epoch has {_listed(names)}"
    if monitor is not None and monitor not in {*recorded, *_OF_EVERY_EPOCH}:
        return f"monitor is {monitor!r}; an epoch records {_listed(recorded)}"
    return ""


def refuse_unknown(criteria: Criteria, names: Collection[str], tested: bool) -> None:
    """Raises an `InputError` for what is `unknown`."""
    wrong = unknown(criteria, names, tested)
    if wrong:
        raise InputError(wrong)


def score(record: dict, criteria: Criteria, kinds: Mapping[str, Metric]) -> float:
    """The monitored value of an epoch, negated if lower is better."""
    name = _monitored(record, criteria)
    lower_is_better = name in kinds and kinds[name].lower_is_better
    return -record[name] if lower_is_better else record[name]


def plateau(epochs: list[dict], criteria: Criteria, kinds: Mapping[str, Metric]) -> str:
    """The reason to stop if the last `patience` epochs brought no improvement; otherwise ""."""
    scores = [score(record, criteria, kinds) for record in epochs]
    best = scores.index(max(scores))
    if criteria.patience is None or len(scores) - 1 - best < criteria.patience:
        return ""
    name = _monitored(epochs[best], criteria)
    return (
        f"stopped after epoch {epochs[-1]['epoch']}: {name} has not improved on epoch "
        f"{epochs[best]['epoch']} ({epochs[best][name]:.4g}) for {criteria.patience} epochs"
    )


def headline(record: dict, criteria: Criteria, kinds: Mapping[str, Metric]) -> str:
    """The result of an epoch in words, such as "test accuracy 98.61%"."""
    for part, (name, words) in itertools.product(("test", "train"), (criteria.headline, LOSS)):
        key = f"{part}_{name}"
        if key in record:
            kind = kinds.get(key) or kinds.get(f"train_{name}")
            form = "{:.4g}" if kind is None else kind.form
            return f"{part} {words} {form.format(record[key])}"
    return ""


def _monitored(record: dict, criteria: Criteria) -> str:
    monitor = criteria.monitor
    names = (monitor,) if monitor else (f"test_{criteria.headline.metric}", "test_loss", "train_loss")
    for name in names:
        if name in record:
            return name
    raise InputError(f"monitor is {monitor!r}; an epoch records {_listed(record)}")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
