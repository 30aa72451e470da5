"""Trains many settings of one run at once, under `vmap`; used by `training.search`.

Every candidate starts from the same parameters and sees the same batches in the same order as
`training.fit` with this seed. Candidates therefore differ only in their settings, and each equals a
single-device run of `fit` with those settings. All share one compiled program and one batch per step.
With several devices, each trains some of the candidates, without communication.

The loop differs from `loop.run`, which records, saves and stops one run as a whole: here each
candidate is given up individually, and only its outcome is kept.
"""

import math
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets import data, metrics
from jaxnets.data.dataset import read_batch
from jaxnets.data.prefetching import Prefetch
from jaxnets.training.divergence import WINDOW, far_above
from jaxnets.training.parallel import DataParallel
from jaxnets.training.precision import cast, compute_dtype
from jaxnets.training.state import TrainState, create_state
from jaxnets.training.step import EvalStep, UpdateRule, make_eval_step, usual_rule
from jaxnets.training.task import Batch, Task, Variables

LOOK_EVERY = 10  # steps between checks for candidates still training; each check waits for the device
MEMORY_SHARE = 0.8  # of the device's free memory; on a CPU, of half of the machine's memory
# A step of LeNet-5 on 64 digits took 23 ms of CPU time per candidate alone, 31 ms with four together
# and 46 ms with twelve: CPUs are slow at convolutions with different kernels for each candidate.
CPU_TOGETHER = 1

Values = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """The outcome of training one candidate.

    Attributes:
        start: loss of the first batch, before any step.
        losses: mean training loss of each completed epoch.
        stopped: the step at which the candidate was given up; None if it was trained to the end.
        stopped_loss: the loss of that step, possibly not finite; None if it was not given up.
        measured: the task's scalar metrics on the validation examples; {} if it was given up.
    """

    start: float
    losses: tuple[float, ...]
    stopped: int | None
    stopped_loss: float | None
    measured: dict[str, float]


@flax.struct.dataclass
class _Candidate:
    """A candidate in training; with a leading axis [C], a group of candidates.

    Attributes:
        values: its settings, f32[] each.
        state: its training state.
        early: f32[WINDOW], the losses of its first steps.
        recent: f32[WINDOW], the losses of its latest steps, the latest first.
        stopped: i32[], the step at which it was given up; 0 while it is training.
    """

    values: dict[str, jax.Array]
    state: TrainState
    early: jax.Array
    recent: jax.Array
    stopped: jax.Array


@dataclass(frozen=True)
class Trainer:
    """The settings shared by the candidates of a stage; see `training.search` for each."""

    task: Task
    optimizer: Callable[..., optax.GradientTransformation]
    train: data.Source
    validation: data.Source
    epochs: int
    batch_size: int
    seed: int
    precision: str
    stop_above: float
    together: int | None
    workers: int
    parallel: DataParallel
    variables: Variables | None = None
    make_rule: Callable[..., UpdateRule] = usual_rule

    @property
    def steps_per_epoch(self) -> int:
        return data.steps_per_epoch(self.train, self.batch_size)

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def run(self, candidates: list[Values], advance: Callable[[int], None]) -> list[Outcome]:
        """Trains and evaluates every candidate, in as few groups as fit into memory.

        Args:
            candidates: the settings of each.
            advance: called with the number of steps done, summed over candidates.
        """
        parallel = self._enough_devices(len(candidates))
        size, step = self._compile(candidates, parallel)
        start = parallel.compile_group(self._start)
        compare = make_comparison(self.task, precision=self.precision)
        measure = parallel.compile_group(jax.vmap(compare, in_axes=(0, None)))
        outcomes = []
        for first in range(0, len(candidates), size):
            group = candidates[first : first + size]
            # A smaller last group is padded, so that it can use the same compiled program.
            filled = group + group[-1:] * (size - len(group))
            begun = start(_stack(filled), parallel.replicate((self._example(), self.variables)))
            advance_all = partial(_times, advance, len(group))
            found = self._run_group(begun, step, measure, advance_all, parallel)
            outcomes += found[: len(group)]
        return outcomes

    def _run_group(
        self,
        group: _Candidate,
        step: Callable,
        measure: Callable,
        advance: Callable[[int], None],
        parallel: DataParallel,
    ) -> list[Outcome]:
        epochs, recent, total = [], [], 0.0
        taken = looked = 0
        with closing(self._batches(parallel)) as batches:
            while taken < self.steps:
                group = step(group, next(batches))
                recent.append(group.recent[:, 0])  # a copy; the group is donated to the next step
                taken += 1
                epoch_ends = taken % self.steps_per_epoch == 0
                if epoch_ends or taken % LOOK_EVERY == 0:
                    total = total + np.sum(recent, axis=0, dtype=np.float64)
                    recent.clear()
                    advance(taken - looked)
                    looked = taken
                    if np.all(group.stopped):
                        break
                if epoch_ends:
                    epochs.append(total / self.steps_per_epoch)
                    total = 0.0
        advance(self.steps - looked)
        count = len(group.stopped)
        variables = jax.vmap(lambda state: state.variables)(group.state)
        measured = self._measure(variables, measure, count, parallel)
        start, last, stopped = (
            np.asarray(a) for a in (group.early[:, 0], group.recent[:, 0], group.stopped)
        )
        return [
            self._outcome(start[i], last[i], stopped[i], [epoch[i] for epoch in epochs], measured[i])
            for i in range(count)
        ]

    def _outcome(
        self, start: float, last: float, stopped: int, losses: list[float], measured: dict[str, float]
    ) -> Outcome:
        if not stopped and not all(map(math.isfinite, measured.values())):
            stopped = self.steps  # it diverged in its last update, after which no loss was computed
            last = measured.get("loss", math.nan)
        if not stopped:
            return Outcome(float(start), tuple(map(float, losses)), None, None, measured)
        whole = losses[: (int(stopped) - 1) // self.steps_per_epoch]
        return Outcome(float(start), tuple(map(float, whole)), int(stopped), float(last), {})

    def _example(self) -> Batch:
        return read_batch(self.train, np.zeros(1, int))

    def _rule(self, values: dict[str, jax.Array]) -> UpdateRule:
        optimizer = self.optimizer(self.steps, **values)
        return self.make_rule(self.task, optimizer, precision=self.precision)

    def _start(self, values: dict[str, jax.Array], begin: tuple[Batch, Variables | None]) -> _Candidate:
        """A group with these settings (f32[C] each), before its first step."""
        key, (example, variables) = jax.random.key(self.seed), begin

        def start(values):
            state = create_state(self.task, self._rule(values), key, example, variables=variables)
            losses = jnp.zeros(WINDOW, jnp.float32)
            return _Candidate(values, state, losses, losses, jnp.zeros((), jnp.int32))

        return jax.vmap(start)(values)

    def _step(self, one: _Candidate, batch: Batch) -> _Candidate:
        """A step of `fit` for one candidate; those given up stay at zero."""
        state, sums = self._rule(one.values).step(one.state, batch)
        value = sums["loss"]
        loss = value.total / jnp.where(value.weight > 0, value.weight, 1)
        early = one.early.at[one.state.step].set(loss, mode="drop")
        recent = jnp.where(one.stopped == 0, jnp.roll(one.recent, 1).at[0].set(loss), one.recent)
        half = jnp.clip(state.step // 2, 1, WINDOW).astype(jnp.float32)
        averaged = jnp.arange(WINDOW, dtype=jnp.float32) < half
        start, mean = (jnp.where(averaged, losses, 0).sum() / half for losses in (early, recent))
        sound = jnp.isfinite(loss)
        if "grad_norm" in sums:
            sound &= jnp.isfinite(sums["grad_norm"].total)
        bad = ~sound | far_above(mean, start, half, self.stop_above)
        stopped = jnp.where((one.stopped == 0) & bad, state.step, one.stopped)
        going = stopped == 0
        # Zero from then on: one program computes all candidates, and where it multiplies across them
        # by masks of 0 (as grouped convolutions may), an overflow in one would reach the others.
        kept = {
            name: jax.tree.map(lambda leaf: _zero_unless(going, leaf), getattr(state, name))
            for name in ("params", "collections", "opt_state")
        }
        return _Candidate(one.values, state.replace(**kept), early, recent, stopped)

    def _measure(
        self, variables: Variables, measure: Callable, count: int, parallel: DataParallel
    ) -> list[dict[str, float]]:
        with closing(data.eval_batches(self.validation, self.batch_size)) as batches:
            sums = metrics.add(
                measure(variables, parallel.replicate(self._checked(batch))) for batch in batches
            )
        return [metrics.scalars(jax.tree.map(lambda a, i=i: a[i], sums)) for i in range(count)]

    def _enough_devices(self, candidates: int) -> DataParallel:
        """Uses no more devices than there are candidates at once."""
        count = min(candidates, self.together or candidates)
        return replace(self.parallel, devices=self.parallel.devices[:count])

    def _compile(self, candidates: list[Values], parallel: DataParallel) -> tuple[int, Callable]:
        """The size of the largest group that fits into memory, and its compiled step."""
        devices, count = parallel.devices, len(candidates)
        share = _ceil(count, len(devices))  # of each device
        if self.together is not None:
            share = min(share, self.together // len(devices))
        elif devices[0].platform == "cpu":
            share = min(share, CPU_TOGETHER)
        with closing(self._batches(parallel)) as batches:
            batch = next(batches)
        step = parallel.compile_group(jax.vmap(self._step, in_axes=(0, None)), donate=(0,))
        while True:
            # Groups of equal size: 12 as two groups of 6, not as 8 and 4.
            groups = _ceil(count, share * len(devices))
            size = _ceil(count, groups * len(devices)) * len(devices)
            values = _stack(candidates[:1] * size)
            group = jax.eval_shape(self._start, values, (self._example(), self.variables))
            compiled = step.lower(group, batch).compile()
            share = size // len(devices)
            if share == 1 or _memory_needed(compiled) <= MEMORY_SHARE * _memory_left(devices[0]):
                return size, compiled
            share = _ceil(share, 2)

    def _batches(self, parallel: DataParallel) -> Prefetch:
        batches = data.train_batches(self.train, self.batch_size, seed=self.seed, workers=self.workers)
        return data.prefetch(batches, lambda batch: parallel.replicate(self._checked(batch)))

    def _checked(self, batch: Batch) -> Batch:
        if hasattr(self.task, "check"):
            self.task.check(batch)
        return batch


def make_comparison(task: Task, *, precision: str = "float32") -> EvalStep:
    """As `make_eval_step`; of a task that is measured on whole sets alone, the loss it is trained by."""
    measure, dtype = make_eval_step(task, precision=precision), compute_dtype(precision)

    def step(variables: Variables, batch: Batch) -> metrics.Metrics:
        sums = measure(variables, batch)
        if sums:
            return sums
        variables = {**variables, "params": cast(variables["params"], dtype)}
        _, (_, sums) = task.loss(variables, batch, jax.random.key(0))
        return {"loss": sums["loss"]}

    return step


def _ceil(count: int, parts: int) -> int:
    return -(-count // parts)


def _zero_unless(going: jax.Array, leaf: jax.Array) -> jax.Array:
    return jnp.where(going, leaf, 0) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _times(advance: Callable[[int], None], candidates: int, steps: int) -> None:
    advance(candidates * steps)


def _stack(values: list[Values]) -> dict[str, np.ndarray]:
    return {name: np.array([one[name] for one in values], np.float32) for name in values[0]}


def _memory_needed(compiled: jax.stages.Compiled) -> int:
    """Bytes a program needs, as estimated by its compiler; 0 where there is no estimate."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    arguments, outputs = found.argument_size_in_bytes, found.output_size_in_bytes
    return arguments + outputs - found.alias_size_in_bytes + found.temp_size_in_bytes


def _memory_left(device: jax.Device) -> int:
    """Free bytes on a device; for a CPU, half of the machine's memory."""
    found = device.memory_stats()
    if found:
        return found["bytes_limit"] - found["bytes_in_use"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
