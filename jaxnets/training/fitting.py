"""`fit`: what a script calls."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import jax
import numpy as np
import optax

from jaxnets import data
from jaxnets.data.dataset import read_batch
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics
from jaxnets.training import loop
from jaxnets.training.checkpoint import Checkpointer
from jaxnets.training.evaluation import Predictions, make_measure, make_predictor
from jaxnets.training.logs import History, Recorder
from jaxnets.training.parallel import DataParallel, is_main_process
from jaxnets.training.profiling import traced
from jaxnets.training.progress import Reporter
from jaxnets.training.ratios import with_layer_ratios
from jaxnets.training.state import TrainState, create_state
from jaxnets.training.step import UpdateRule, usual_rule
from jaxnets.training.task import Batch, Task, Variables, headline_of

CHECKPOINTS, PROFILE = "checkpoints", "profile"


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
    precision: str = "float32",
    accumulate: int = 1,
    ema_decay: float | None = None,
    monitor: str | None = None,
    patience: int | None = None,
    stop_above: float | None = 3.0,
    log_every: int = 10,
    checkpoint_every: int | None = None,
    keep: int = 2,
    workers: int = 0,
    layer_ratios: bool = False,
    parallel: DataParallel | None = None,
    variables: Variables | None = None,
    rule: UpdateRule | None = None,
    measure: Callable[[Predictions], Metrics] | None = None,
    profile: bool = False,
    progress: bool = True,
) -> tuple[TrainState, History]:
    """Trains a task on all devices there are.

    Two runs of the same arguments on the same number of devices end in the same bits, also where one
    of them was killed and resumed.

    Args:
        task: what to learn, such as `jaxnets.Classification`.
        train: examples to learn from, such as `jaxnets.data.load("digits").train`.
        optimizer: any Optax transformation; None with a `rule`.
        test: examples to measure by, at the end of each epoch.
        epochs: passes over `train`; the last incomplete batch of a pass is left out.
        batch_size: over all devices and processes.
        seed: of parameters, order, augmentation and dropout.
        directory: of the run: checkpoints, `metrics.jsonl` and TensorBoard files go there. None leaves
            nothing.
        resume: go on from the newest checkpoint in `directory`, or from the start if there is none.
        precision: "float32", or "bfloat16" for the forward and backward pass.
        accumulate: micro-batches to each step, for batches that do not fit in memory; a matter of the
            `rule` where there is one.
        ema_decay: keep a moving average of the parameters and measure with it; None for no average.
        monitor, patience, stop_above, log_every, checkpoint_every: see `loop.Schedule`.
        keep: how many of the last checkpoints to keep, besides the best.
        workers: processes that read and decode images; 0 reads in the background of this one.
        layer_ratios: record the update-to-weight ratio of each layer too; see `with_layer_ratios`.
        parallel: how to use the devices; all of them where None.
        variables: where to begin from, such as pretrained ones; drawn from `seed` where None.
        rule: a step of your own and the state of its optimizers, such as that of a GAN; None for the
            usual step with `optimizer`.
        measure: measures of the whole test set, from what `predict_all` yields to metrics by name, at
            the end of each epoch.
        profile: write a trace of a few steps, for JAX's profiler, into `directory`.
        progress: show a bar and a row for each epoch.

    Returns:
        The last state (predict with `state.variables`) and the history.

    Raises:
        InputError: for arguments that do not fit together, or a batch that the task cannot take.
        DivergenceError: when the loss is not finite or passes `stop_above` times its start.
        CheckpointError: when a checkpoint cannot be written, or is another model's.
    """
    if (optimizer is None) == (rule is None):
        raise InputError("optimizer and rule: give one of the two")
    if rule is None:
        options = {"precision": precision, "accumulate": accumulate, "ema_decay": ema_decay}
        rule = usual_rule(task, optimizer, **options)
    parallel = parallel or DataParallel.create()
    shard = {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
    local_batch_size = parallel.local_batch_size(batch_size)
    example = read_batch(train, np.zeros(1, int))
    if test is not None:
        _refuse_other_shapes(example, test)
    schedule = loop.Schedule(
        epochs=epochs,
        steps_per_epoch=data.steps_per_epoch(train, local_batch_size, jax.process_count()),
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
    state = create_state(task, rule, key, example, ema=ema, variables=variables)

    checkpointer, resume_at = None, 0
    if directory is not None:
        checkpointer = Checkpointer(Path(directory) / CHECKPOINTS, keep=keep)
        if checkpointer.latest_step is not None:
            if not resume:
                raise InputError(
                    f"directory: {directory} already holds a run, at step "
                    f"{checkpointer.latest_step}; resume it, or choose another directory"
                )
            state, position = checkpointer.restore(state)
            source.set_state(position["data"])
            resume_at = int(state.step)
    elif resume:
        raise InputError("resume needs the directory of the run to go on with")
    elif profile:
        raise InputError("profile needs a directory to write the trace into")

    train_step = parallel.compile_train_step(rule.step)
    if layer_ratios:
        train_step = with_layer_ratios(train_step)
    options = {"precision": precision, "parallel": parallel}
    sums_of = make_measure(task, **options)
    predict = None if measure is None else make_predictor(task, **options)

    def evaluate(state: TrainState) -> Metrics:
        sums = sums_of(state.variables, test, batch_size)
        if predict is None:
            return sums
        return {**sums, **measure(predict(state.variables, test, batch_size))}

    check = getattr(task, "check", lambda batch: None)

    def place(batch):
        check(batch)
        return parallel.put(batch)

    main = is_main_process()
    recorder = Recorder(directory if main else None, resume_at)
    reporter = Reporter(epochs, schedule.steps_per_epoch, schedule.headline, enabled=progress and main)
    try:
        stepping = traced(train_step, Path(directory) / PROFILE) if profile else nullcontext(train_step)
        with closing(data.prefetch(source, place)) as batches, reporter, stepping as step:
            if resume_at:
                reporter.say(f"resumed at step {resume_at}")
            return loop.run(
                step,
                parallel.replicate(state),
                batches,
                schedule,
                recorder=recorder,
                reporter=reporter,
                evaluate=None if test is None else evaluate,
                checkpointer=checkpointer,
            )
    finally:
        recorder.close()
        if checkpointer is not None:
            checkpointer.close()


def _refuse_other_shapes(example: Batch, test: data.Source) -> None:
    """The network is made for one shape of example."""
    for name, value in test[0].items():
        wanted, came = np.shape(example[name])[1:], np.shape(value)
        if came != wanted:
            raise InputError(
                f"test has {name} of shape {came}, train of shape {wanted}; load both alike"
            )
