"""`fit`, the training function that scripts call."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import jax
import numpy as np
import optax

from jaxnets import data
from jaxnets.console import status
from jaxnets.data.dataset import read_batch
from jaxnets.errors import InputError
from jaxnets.layout import CHECKPOINTS, PROFILE
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
        precision: "float32", or "bfloat16" for the forward and backward pass.
        accumulate: micro-batches per step, for batches that do not fit in memory; ignored with a
            `rule`.
        ema_decay: decay of an exponential moving average of the parameters, which is used for
            evaluation; None for no average.
        monitor, patience, stop_above, log_every, checkpoint_every: see `loop.Schedule`.
        keep: number of latest checkpoints to keep, in addition to the best.
        workers: processes that read and decode images; 0 reads in the background of this process.
        layer_ratios: also record the update-to-weight ratio of each layer; see `with_layer_ratios`.
        parallel: how to use the devices; None for all of them.
        variables: initial variables, such as pretrained ones; None to draw them from `seed`.
        rule: a custom step and its optimizer state, such as for a GAN; None for the usual step with
            `optimizer`.
        measure: metrics of the whole test set, computed at the end of each epoch: a function from what
            `predict_all` yields to metrics by name.
        profile: write a trace of a few steps, for JAX's profiler, into `directory`.
        progress: show a progress bar and a row for each epoch.

    Returns:
        The final state (predict with `state.variables`) and the history.

    Raises:
        InputError: for incompatible arguments, or a batch that the task cannot take.
        DivergenceError: when the loss is not finite or exceeds `stop_above` times its initial value.
        CheckpointError: when a checkpoint cannot be written, or belongs to another model.
    """
    if (optimizer is None) == (rule is None):
        raise InputError("optimizer and rule: give exactly one of the two")
    if rule is None:
        options = {"precision": precision, "accumulate": accumulate, "ema_decay": ema_decay}
        rule = usual_rule(task, optimizer, **options)
    parallel = parallel or DataParallel.create()
    shard = {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
    local_batch_size = parallel.local_batch_size(batch_size)
    steps_per_epoch = data.steps_per_epoch(train, local_batch_size, jax.process_count())
    check = getattr(task, "check", lambda batch: None)
    example = read_batch(train, np.zeros(1, int))
    check(example)
    if test is not None:
        _refuse_other_examples(example, test)
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
        raise InputError("resume needs the directory of the run to resume")
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


def _refuse_other_examples(example: Batch, test: data.Source) -> None:
    """The network is made for one kind of example, of one shape."""
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
