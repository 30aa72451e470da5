"""Coarse-to-fine random search for hyperparameters (CS231n, "Hyperparameter optimization").

Many settings are drawn at random from wide ranges and trained briefly. The best advance to a stage of
longer training, together with new draws from ranges narrowed around them, and so on. The search is
random instead of a grid because every draw tries a new value of the one hyperparameter that matters
(Bergstra and Bengio 2012), and log-uniform because learning rates and decays act multiplicatively.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import optax

from jaxnets import data, metrics
from jaxnets.data.dataset import read_batch
from jaxnets.errors import InputError, unknown_name
from jaxnets.training.candidates import Outcome, Trainer, Values, make_comparison
from jaxnets.training.divergence import DivergenceError, refuse_low_limit
from jaxnets.training.judging import scalar_kinds
from jaxnets.training.parallel import DataParallel
from jaxnets.training.progress import SearchReporter
from jaxnets.training.search_result import SearchResult, Space, Stage, Trial
from jaxnets.training.step import UpdateRule, usual_rule
from jaxnets.training.task import LOSS, Task, Variables, headline_of

MARGIN = 0.1  # share of a range's log width that the narrowed range adds on each side of the survivors
_FLOAT32 = np.finfo(np.float32)
_DRAWS = 0x5EA7C  # separates the key of the draws from those of parameters and dropout


def halving(candidates: int, epochs: Sequence[int]) -> tuple[Stage, ...]:
    """Stages that each train half as many candidates as the previous one, and keep a quarter.

    Args:
        candidates: number of candidates in the first stage.
        epochs: number of epochs in each stage, shortest first.

    Raises:
        InputError: as for `search`.
    """
    counts = [
        max(1, -(-candidates // 2**k)) if candidates > 0 else candidates for k in range(len(epochs))
    ]
    stages = tuple(
        Stage(count, length, keep=max(1, count // 4))
        for count, length in zip(counts, epochs, strict=True)
    )
    _check_stages(stages)
    return stages


def search(
    task: Task,
    train: data.Source,
    validation: data.Source,
    *,
    optimizer: Callable[..., optax.GradientTransformation],
    space: Mapping[str, tuple[float, float]],
    stages: Sequence[Stage] | None = None,
    batch_size: int = 128,
    seed: int = 0,
    precision: str = "float32",
    monitor: str | None = None,
    stop_above: float | None = 3.0,
    together: int | None = None,
    workers: int = 0,
    parallel: DataParallel | None = None,
    variables: Variables | None = None,
    make_rule: Callable[..., UpdateRule] = usual_rule,
    on_stage: Callable[[SearchResult], None] = lambda result: None,
    progress: bool = True,
) -> SearchResult:
    """Searches for the hyperparameters of an optimizer, coarse to fine, under one `vmap`.

    Every candidate of a stage is trained as by `fit` with this seed and the stage's epochs: from the
    same parameters, on the same batches, through its complete learning rate schedule. Candidates kept
    by a stage are therefore restarted in the next, on equal terms with its new draws; they are not
    resumed, because a schedule that has reached its end cannot be extended.

    Args:
        task: the task to learn.
        train: training examples.
        validation: examples to compare candidates on, held out of the training set
            (`data.hold_out`). Do not use the test set: its scores would be biased by the selection.
        optimizer: `(steps, **values) -> optimizer` for a run of `steps` steps; the values are traced
            scalars, by the names of `space`, as `create_optimizer` and `create_schedule` accept.
        space: lowest and highest value of each hyperparameter, both above 0.
        stages: see `Stage`; None for `halving(24, (2, 5, 12))`.
        batch_size: examples per step.
        seed: seed of the draws, parameters, data order, augmentation and dropout.
        precision: "float32" or "bfloat16".
        monitor: the metric to compare by; None for the task's headline, or `loss` if the headline is a
            metric of whole sets: that of training, of a task without other metrics. Ties are broken by
            the lower loss.
        stop_above: give up a candidate when its loss exceeds this many times its initial value, as
            `fit` with `log_every=1` does, or is not finite; None for the latter only.
        together: number of candidates trained at once. None for as many as fit into memory according
            to the compiler; on CPUs, where this is faster, for one per device.
        workers: processes that read and decode images.
        parallel: the devices that share the candidates; None for all devices of this process.
        variables: initial variables of every candidate, such as pretrained ones; None to draw them
            from `seed`.
        make_rule: `(task, optimizer, precision=...) -> UpdateRule`, for a custom step.
        on_stage: called with the result so far after each stage.
        progress: show a progress bar, and the result of each stage.

    Returns:
        Every trial, and the best of the longest stage.

    Raises:
        InputError: for invalid stages or ranges, a hyperparameter that `optimizer` does not take, or a
            metric that the task does not have.
        DivergenceError: if every candidate of the first stage was given up.
    """
    stages = halving(24, (2, 5, 12)) if stages is None else tuple(stages)
    _check_stages(stages)
    _check_space(space, optimizer)
    refuse_low_limit(stop_above)
    if together is not None and together < 1:
        raise InputError(f"together is {together}; it must be 1 or more, or None")
    if jax.process_count() > 1:
        raise InputError("search runs in one process; start it on one host")
    monitor, metric = _choose_monitor(task, train, monitor)
    result = SearchResult(stages, (), (), monitor, metric.form, metric.lower_is_better, seed)
    now, drawn = dict(space), 0
    with SearchReporter(len(stages), enabled=progress) as reporter:
        for number, stage in enumerate(stages, start=1):
            known = result.kept(number - 1) if number > 1 else []
            fresh = draw(now, stage.candidates - len(known), seed, number)
            candidates = [(trial.candidate, trial.values) for trial in known]
            candidates += [(drawn + k, values) for k, values in enumerate(fresh, start=1)]
            drawn += len(fresh)
            trainer = Trainer(
                task, optimizer, train, validation, stage.epochs, batch_size, seed, precision,
                math.inf if stop_above is None else stop_above, together, workers,
                parallel or DataParallel.create(), variables, make_rule,
            )  # fmt: skip
            reporter.begin(number, stage, now, len(candidates) * trainer.steps)
            outcomes = trainer.run([values for _, values in candidates], reporter.advance)
            trials = [
                Trial(number, candidate, values, outcome)
                for (candidate, values), outcome in zip(candidates, outcomes, strict=True)
            ]
            trials.sort(key=lambda trial: _rank(trial.outcome, result))
            result = dataclasses.replace(
                result, spaces=(*result.spaces, now), trials=(*result.trials, *trials)
            )
            on_stage(result)
            reporter.end(result)
            survivors = [trial.values for trial in result.kept(number)]
            if not survivors:
                break
            now = narrow(now, survivors)
    if result.best is None:
        ranges = ", ".join(f"{name} from {low:g} to {high:g}" for name, (low, high) in space.items())
        raise DivergenceError(
            f"all {len(result.trials)} candidates diverged: their loss was not finite, or exceeded "
            f"stop_above={stop_above} times its initial value ({ranges}); search lower learning rates"
        )
    return result


def draw(space: Space, count: int, seed: int, stage: int) -> list[Values]:
    """Draws settings log-uniformly from a space, rounded to three significant digits.

    Args:
        space: lowest and highest value by name.
        count: number of settings.
        seed, stage: determine the draw; it differs between stages.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _DRAWS), stage)
    places = np.asarray(jax.random.uniform(key, (count, len(space))), np.float64)

    def at(place: float, low: float, high: float) -> float:
        value = float(f"{low * (high / low) ** place:.3g}")  # as printed, so that it is reproducible
        return min(max(value, low), high)

    return [
        {name: at(u, *ends) for u, (name, ends) in zip(row, space.items(), strict=True)}
        for row in places
    ]


def narrow(space: Space, survivors: Sequence[Values]) -> Space:
    """The ranges spanned by some settings, extended by a margin and clipped to the given ranges."""
    narrowed = {}
    for name, (low, high) in space.items():
        values = [one[name] for one in survivors]
        margin = (high / low) ** MARGIN
        narrowed[name] = (max(low, min(values) / margin), min(high, max(values) * margin))
    return narrowed


def _rank(outcome: Outcome, result: SearchResult) -> tuple:
    """A sort key: best first, given up last and, among those, longest trained first."""
    if outcome.stopped is not None:
        return (True, -outcome.stopped, 0.0)
    score = outcome.measured[result.monitor]
    return (False, score if result.lower_is_better else -score, outcome.measured.get("loss", 0.0))


def _choose_monitor(task: Task, train: data.Source, monitor: str | None) -> tuple[str, metrics.Metric]:
    """The metric to compare by, among those that are scalars."""
    example = read_batch(train, np.zeros(1, int))
    getattr(task, "check", lambda batch: None)(example)
    variables = jax.eval_shape(task.init, jax.random.key(0), example)
    sums = jax.eval_shape(make_comparison(task), variables, example)
    names = scalar_kinds(sums)
    if monitor is None:
        headline = headline_of(task).metric
        monitor = headline if headline in names else LOSS.metric
    if monitor not in names:
        raise unknown_name("monitor", monitor, names)
    return monitor, sums[monitor]


def _check_stages(stages: Sequence[Stage]) -> None:
    if not stages:
        raise InputError("stages: none given; a search needs at least one")
    for number, stage in enumerate(stages, start=1):
        for field in dataclasses.fields(stage):
            value = getattr(stage, field.name)
            if value < 1:
                raise InputError(f"{field.name} is {value} in stage {number}; it must be 1 or more")
        if number == len(stages):
            break
        for count, which in ((stage.candidates, number), (stages[number].candidates, number + 1)):
            if stage.keep > count:
                raise InputError(
                    f"stage {number} keeps {stage.keep} candidates, but stage {which} has only {count}"
                )


def _check_space(space: Mapping[str, tuple[float, float]], optimizer: Callable) -> None:
    if not space:
        raise InputError("space is empty; give a hyperparameter, such as learning_rate=(1e-5, 0.1)")
    _, *parameters = inspect.signature(optimizer).parameters.values()
    named = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    for name, ends in space.items():
        if name not in named and len(named) == len(parameters):
            raise unknown_name("hyperparameter", name, named)
        low, high = ends
        if not _FLOAT32.tiny <= low < high <= _FLOAT32.max:
            raise InputError(
                f"space: {name} is from {low:g} to {high:g}; wanted two numbers above 0 of float32, "
                "the lower first"
            )
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if needed and parameter.name not in space:
            raise InputError(f"space has no {parameter.name}, which optimizer needs; give its range")
