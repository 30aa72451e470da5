"""`fit`, the training function that scripts call."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import jax
import numpy as np
import optax

from jaxnets import data
from jaxnets.console import status
from jaxnets.data.dataset import check_source, read_batch
from jaxnets.data.pipeline import BatchIterator
from jaxnets.errors import InputError
from jaxnets.layout import CHECKPOINTS, PROFILE
from jaxnets.metrics import Metric, Metrics
from jaxnets.training import growing, judging, loop
from jaxnets.training.checkpoint import Checkpointer, CheckpointError, remove_after
from jaxnets.training.evaluation import Predictions, make_measure, make_predictor
from jaxnets.training.logs import History, Recorder
from jaxnets.training.parallel import DataParallel, is_main_process, wait_for_all
from jaxnets.training.profiling import traced
from jaxnets.training.progress import Reporter
from jaxnets.training.ratios import with_layer_ratios
from jaxnets.training.state import TrainState, create_state
from jaxnets.training.step import UpdateRule, make_eval_step, usual_rule
from jaxnets.training.task import Batch, Task, Variables, headline_of


def fit(
    task: Task,
    train: data.Source,
    *,
    optimizer: optax.GradientTransformation | None = None,
    test: data.Source | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    seed: int = 0,
    directory: str | Path | None = None,
    resume: bool = False,
    checkpoint: int | None = None,
    precision: str = "float32",
    accumulate: int = 1,
    ema_decay: float | None = None,
    remat: bool = False,
    monitor: str | None = None,
    patience: int | None = None,
    stop_above: float | None = 3.0,
    log_every: int = 10,
    checkpoint_every: int | None = None,
    keep: int = 2,
    workers: int = 0,
    layer_ratios: bool = False,
    sides: Sequence[int] | None = None,
    parallel: DataParallel | None = None,
    variables: Variables | None = None,
    rule: UpdateRule | None = None,
    measure: Callable[[Predictions], Metrics] | None = None,
    profile: bool = False,
    progress: bool = True,
    stop: Callable[[int], bool] = lambda step: False,
) -> tuple[TrainState, History]:
    """Trains a task on all available devices.

    Two runs with the same arguments on the same number of devices are bitwise identical, even if one
    of them was killed and resumed.

    Args:
        task: the task to learn, such as `jaxnets.Classification`.
        train: training examples, such as `jaxnets.data.load("digits").train`.
        optimizer: any Optax transformation; None with a `rule`.
        test: examples to evaluate on at the end of each epoch.
        epochs: passes over `train`; the last incomplete batch of each pass is dropped.
        batch_size: examples per step, over all devices and processes.
        seed: seed of the parameters, data order, augmentation and dropout.
        directory: run directory for checkpoints, `metrics.jsonl` and TensorBoard files; None to write
            nothing.
        resume: resume from the newest checkpoint in `directory`, or start if there is none.
        checkpoint: with `resume`, the step of the checkpoint to resume from, such as an older one where
            the newest is damaged; those after it are removed.
        precision: "float32", or "bfloat16" for the forward and backward pass.
        accumulate: micro-batches per step, for batches that do not fit in memory; ignored with a
            `rule`.
        ema_decay: decay of an exponential moving average of the parameters, which is used for
            evaluation; None for no average. It is lower in the first steps; see `make_train_step`.
        remat: compute blocks of the backbone again in the backward pass, to save memory; ignored with a
            `rule`.
        monitor, patience, stop_above, log_every, checkpoint_every: see `loop.Schedule`.
        keep: number of latest checkpoints to keep, in addition to the best.
        workers: processes that read and decode images; 0 reads in the background of this process.
        layer_ratios: also record the update-to-weight ratio of each layer; see `with_layer_ratios`.
        sides: side of the training images in each epoch, to which they are scaled down on the device;
            None for their own. Each new one compiles another step; see `growing_sides`.
        parallel: how to use the devices; None for all of them.
        variables: initial variables, such as pretrained ones; None to draw them from `seed`.
        rule: a custom step and its optimizer state, such as for a GAN; None for the usual step with
            `optimizer`.
        measure: metrics of the whole test set, computed at the end of each epoch: a function from what
            `predict_all` yields to metrics by name; None for the task's own `measure`, if it has one.
        profile: write a trace of a few steps, for JAX's profiler, into `directory`.
        progress: show a progress bar and a row for each epoch.
        stop: `stop(step)` is called after each step; where it is true, the run saves a checkpoint and
            ends, to be resumed with the same bits. With several processes it must answer alike in all.

    Returns:
        The final state (predict with `state.variables`) and the history.

    Raises:
        InputError: for incompatible arguments, or a batch that the task cannot take. Nothing is written
            before all arguments are checked.
        DivergenceError: when the loss is not finite or exceeds `stop_above` times its initial value.
        CheckpointError: when a checkpoint cannot be written or read, or belongs to another model or
            dataset.
    """
    for name, count in {"batch_size": batch_size, "keep": keep, "accumulate": accumulate}.items():
        loop.refuse_below_one(name, count)
    if directory is None and resume:
        raise InputError("resume needs the directory of the run to resume")
    if directory is None and profile:
        raise InputError("profile needs a directory to write the trace into")
    if checkpoint is not None and not resume:
        raise InputError(f"checkpoint is {checkpoint}, without resume; resume=True (--resume) takes it")
    if (optimizer is None) == (rule is None):
        raise InputError("optimizer and rule: give exactly one of the two")
    if rule is None:
        options = {"precision": precision, "accumulate": accumulate}
        options |= {"ema_decay": ema_decay, "remat": remat}
        rule = usual_rule(task, optimizer, **options)
    parallel = parallel or DataParallel.create()
    shard = {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
    local_batch_size = parallel.local_batch_size(batch_size)
    for name, source in {"train": train, **({} if test is None else {"test": test})}.items():
        check_source(name, source)
    steps_per_epoch = data.steps_per_epoch(train, local_batch_size, jax.process_count())
    check = getattr(task, "check", lambda batch: None)
    example = read_batch(train, np.zeros(1, int))
    check(example)
    if test is not None:
        check(_like(example, test))
    for name, values in example.items():
        if values.dtype.kind in "OSUMm":
            raise InputError(f"source: {name} is {values.dtype}; wanted numbers: leave it out")
    schedule = loop.Schedule(
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        headline=headline_of(task),
        monitor=monitor,
        patience=patience,
        stop_above=stop_above,
    )
    source = data.train_batches(train, local_batch_size, seed=seed, workers=workers, **shard)
    key, ema = jax.random.key(seed), ema_decay is not None
    with status("preparing the parameters", progress and is_main_process()):
        state = create_state(task, rule, key, example, ema=ema, variables=variables)

    train_step = parallel.compile_train_step(rule.step)
    if layer_ratios:
        train_step = with_layer_ratios(train_step)
    batch = jax.tree.map(lambda a: np.zeros((local_batch_size, *a.shape[1:]), a.dtype), example)
    _, sums = jax.eval_shape(train_step, state, parallel.put(batch))  # kept for the first step
    kinds = _judged_by(schedule, task, sums, state.variables, example, tested=test is not None)
    measure = measure or getattr(task, "measure", None)
    if measure is None:  # its metrics are known after the first epoch
        judging.refuse_unknown(schedule, kinds, tested=test is not None)

    position = {}
    if directory is not None:
        state, position = _restored(state, source, Path(directory), resume, checkpoint)
        wait_for_all("run directory read")  # before any process makes checkpoints in it
    resume_at = int(state.step)

    options = {"precision": precision, "parallel": parallel}
    sums_of = make_measure(task, **options)
    predict = None if measure is None else make_predictor(task, **options)

    def evaluate(state: TrainState) -> Metrics:
        sums = sums_of(state.variables, test, batch_size)
        if predict is None:
            return sums
        return {**sums, **measure(predict(state.variables, test, batch_size))}

    read = itertools.count(resume_at)

    def place(batch):
        check(batch)
        placed = parallel.put(batch)
        if sides is None:
            return placed
        return growing.in_epoch(placed, sides, next(read) // steps_per_epoch)

    main = is_main_process()
    checkpointer = None
    if directory is not None:
        checkpointer = Checkpointer(Path(directory) / CHECKPOINTS, keep=keep)
    recorder = Recorder(directory if main else None, resume_at)
    reporter = Reporter(epochs, schedule.steps_per_epoch, schedule.headline, enabled=progress and main)
    try:
        stepping = traced(train_step, Path(directory) / PROFILE) if profile else nullcontext(train_step)
        with closing(data.prefetch(source, place)) as batches, reporter, stepping as step:
            if resume_at:
                reporter.say(f"resumed at step {resume_at} of {epochs * steps_per_epoch}")
            before = position.get("end", schedule.end)
            if before == schedule.end:
                recorder.history.stopped = position.get("stopped", "")
            return loop.run(
                step,
                parallel.replicate(state),
                batches,
                schedule,
                recorder=recorder,
                reporter=reporter,
                evaluate=None if test is None else evaluate,
                checkpointer=checkpointer,
                kinds=kinds,
                epochs_before=None if before["epochs"] == epochs else before["epochs"],
                stop=stop,
            )
    finally:
        recorder.close()
        if checkpointer is not None:
            checkpointer.close()


def _judged_by(
    schedule: loop.Schedule,
    task: Task,
    sums: Metrics,
    variables: Variables,
    example: Batch,
    tested: bool,
) -> dict[str, Metric]:
    """The known metrics of an epoch's record, once headline and monitor are among them."""
    kinds = {judging.key_of(name): kind for name, kind in judging.scalar_kinds(sums).items()}
    if judging.unknown(schedule, kinds, tested) and hasattr(task, "metrics"):
        measured = jax.eval_shape(make_eval_step(task), variables, example)
        kinds |= {f"test_{name}": kind for name, kind in judging.scalar_kinds(measured).items()}
    return kinds


def _restored(
    state: TrainState, source: BatchIterator, directory: Path, resume: bool, checkpoint: int | None
) -> tuple[TrainState, dict]:
    """The state and position to begin with; the source is moved there, and later steps are removed."""
    path = directory / CHECKPOINTS
    if not path.is_dir():
        if checkpoint is not None:
            raise CheckpointError(f"{path} holds no checkpoint of step {checkpoint}: it is not there")
        return state, {}
    with closing(Checkpointer(path, read_only=True)) as reader:
        newest = reader.latest_step
        if newest is None and checkpoint is None:
            return state, {}
        if not resume:
            raise InputError(
                f"directory: {directory} already holds a run, at step {newest}; resume it, or choose "
                "another directory"
            )
        state, position = reader.restore(state, checkpoint)
    saved, mine = position.get("data"), source.get_state()
    if not isinstance(saved, dict):
        raise CheckpointError(
            f"the checkpoint in {directory} is damaged: its position is not that of data; take an older "
            "one by checkpoint=STEP, --checkpoint STEP"
        )
    if saved.get("examples") != mine["examples"]:
        raise CheckpointError(
            f"the run in {directory} was trained on {saved.get('examples')} examples, the data has "
            f"{mine['examples']}: it is another dataset, or has changed; resume with the original one, "
            "or choose another run directory"
        )
    source.set_state(saved)
    if checkpoint is not None:
        if is_main_process():
            remove_after(path, checkpoint)
        wait_for_all("later checkpoints removed")
    return state, position


def _like(example: Batch, test: data.Source) -> Batch:
    """The first test example, which must be of the kind and shape that the network is made for."""
    if len(test) == 0:
        raise InputError("test has no examples; give some, or None")
    other = read_batch(test, np.zeros(1, int))
    shapes = {name: np.shape(value)[1:] for name, value in other.items() if name != "weight"}
    wanted = {name: np.shape(value)[1:] for name, value in example.items() if name != "weight"}
    if shapes.keys() != wanted.keys():
        names = ", ".join(shapes), ", ".join(wanted)
        raise InputError(f"test has {names[0]} in an example, train has {names[1]}; load both alike")
    for name, came in shapes.items():
        if came != wanted[name]:
            raise InputError(
                f"test has {name} of shape {came}, train of shape {wanted[name]}; load both alike"
            )
    return other
