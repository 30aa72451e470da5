"""Checkpoints of a run, with Orbax: asynchronous and atomic; keeps the last few and the best.

If the process is killed during a save, earlier checkpoints stay intact and the partial one is
ignored. Arrays are stored unsharded, so a run can resume on a different number of devices.
"""

import contextlib
import re
import shutil
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax
import numpy as np

from jaxnets.errors import InputError
from jaxnets.training.state import TrainState
from jaxnets.training.task import Variables

SCORE = "score"


class CheckpointError(InputError):
    """A checkpoint that could not be written, read or used."""


class Checkpointer:
    """Saves and restores the checkpoints in one directory.

    Args:
        directory: the directory, with one folder per checkpointed step.
        keep: number of latest checkpoints to keep, in addition to the one with the best score.
        read_only: do not create the directory.

    Raises:
        CheckpointError: if there is no directory to read, or a score in one to write is damaged.
    """

    def __init__(self, directory: str | Path, keep: int = 2, read_only: bool = False):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        from jaxnets.training.literal import literal_path

        self.directory = Path(directory).absolute()
        self._ocp = ocp
        if read_only and not self.directory.is_dir():
            raise CheckpointError(f"{self.directory} holds no checkpoints")

        def score(metrics):
            return metrics[SCORE]

        best = BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        path = literal_path(self.directory)

        def manager(scored: bool):
            return ocp.CheckpointManager(
                path,
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "position": ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
                    best_fn=score,
                    lightweight_initialize=not scored,
                    enable_async_checkpointing=True,
                    cleanup_tmp_directories=not read_only,
                    create=not read_only,
                    read_only=read_only,
                ),
            )

        self._has_scores = True
        try:
            self._manager = manager(scored=True)
            self._manager.best_step()  # fails where JSON is no score
        except (ValueError, KeyError, TypeError, IsADirectoryError) as error:
            # Orbax reads all scores at once, as JSON.
            if not read_only:
                raise CheckpointError(
                    f"a score among the checkpoints in {self.directory} is damaged "
                    f"({_first_line(error)}); remove the folder of that step, or resume from an older "
                    "one, by --checkpoint STEP, which removes those after it"
                ) from error
            self._has_scores = False
            self._manager = manager(scored=False)

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest score, or None if no checkpoint has one.

        Raises:
            CheckpointError: if a score is damaged.
        """
        if not self._has_scores:
            raise CheckpointError(
                f"a score among the checkpoints in {self.directory} is damaged, so that the best is not "
                f"known; choose one by its step: {', '.join(map(str, self._manager.all_steps()))}"
            )
        return self._manager.best_step()

    def save(self, state: TrainState, position: dict, score: float | None = None) -> None:
        """Starts saving, and returns as soon as the state is copied to the host.

        Args:
            state: the state to save.
            position: position of the data iterator, and anything else needed to resume; JSON.
            score: higher is better; None for a checkpoint that cannot be the best.

        Raises:
            CheckpointError: if this or the previous save failed, for example because the disk is
                full. Earlier checkpoints are intact.
        """
        step = int(state.step)
        arrays = flax.serialization.to_state_dict(jax.tree.map(np.asarray, state))
        args = self._ocp.args
        try:
            self._manager.save(
                step,
                args=args.Composite(state=args.StandardSave(arrays), position=args.JsonSave(position)),
                metrics=None if score is None else {SCORE: score},
                force=True,
            )
        except Exception as error:
            raise self._failed(error) from error

    def wait(self) -> None:
        """Waits until every started save is on disk.

        Raises:
            CheckpointError: if a save failed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict]:
        """Restores a checkpoint into a state with the structure of `like`.

        Args:
            like: a state with the structure and shapes to restore.
            step: the step of the checkpoint; the newest one if None.

        Returns:
            The state as host arrays, and the position that was saved with it.

        Raises:
            CheckpointError: if there is no such checkpoint, it is damaged, or it is of other classes, or
                of another model or optimizer; the message names the first difference.
        """
        arrays, position = self._read(step)
        difference = _difference(flax.serialization.to_state_dict(like), arrays)
        if difference:
            raise CheckpointError(
                f"the checkpoint in {self.directory} does not fit: {difference}; resume with the "
                "original settings and data, or choose another run directory"
            )
        return flax.serialization.from_state_dict(like, arrays), position

    def restore_variables(self, step: int | None = None) -> Variables:
        """The variables to predict with, as host arrays, whatever optimizer trained them."""
        arrays, _ = self._read(step)
        params = arrays["params"] if arrays["ema"] is None else arrays["ema"]
        return {"params": params, **arrays["collections"]}

    def close(self) -> None:
        """Waits for started saves and ends the background threads; never raises."""
        with contextlib.suppress(Exception):  # failures are reported by `save` and `wait`
            self._manager.close()

    def _read(self, step: int | None) -> tuple[dict, dict]:
        step = self.latest_step if step is None else step
        steps = self._manager.all_steps()
        if step not in steps:
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            have = f"; there are {', '.join(map(str, steps))}" if steps else ""
            raise CheckpointError(f"{self.directory} holds {what}{have}")
        try:
            return self._read_one(step)
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self.directory} is damaged ({_first_line(error)}); "
                f"{self._instead_of(step)}"
            ) from error

    def _read_one(self, step: int) -> tuple[dict, dict]:
        args = self._ocp.args
        read = self._manager.restore(
            step,
            args=args.Composite(
                state=args.StandardRestore(self._host_arrays(step)),
                position=args.JsonRestore(),
            ),
        )
        if not isinstance(read["position"], dict):
            raise ValueError("its position is no JSON object")
        return read["state"], read["position"]

    def _instead_of(self, damaged: int) -> str:
        """Names the whole checkpoint to take instead: the nearest older one, or else the next."""
        others = [step for step in self._manager.all_steps() if step != damaged]
        for step in sorted(others, key=lambda step: (step > damaged, abs(step - damaged))):
            with contextlib.suppress(Exception):
                self._read_one(step)
                return f"that of step {step} is whole: take it by checkpoint={step}, --checkpoint {step}"
        return "no other one is whole: start a new run"

    def _host_arrays(self, step: int) -> Any:
        """Placeholders that make Orbax read NumPy arrays, whatever devices wrote them."""
        saved = self._manager.item_metadata(step)["state"]
        if saved is None:
            raise ValueError("its _METADATA is missing")
        saved = saved.tree
        return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), saved)

    def _failed(self, error: Exception) -> CheckpointError:
        steps = self._manager.all_steps()
        kept = f"the checkpoint of step {steps[-1]} is intact" if steps else "none was saved before"
        return CheckpointError(
            f"could not save a checkpoint in {self.directory}: {_first_line(error)}; {kept}. "
            "Free some space and rerun with --resume"
        )


def _first_line(error: Exception) -> str:
    system = re.search(r"([^:]+) \[os_error_code", str(error))  # how TensorStore reports a full disk
    if system:
        return system[1].strip()
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _difference(wanted: dict, found: dict) -> str:
    """Names what does not match, or the first leaf that does not; "" if all do."""
    averages = [tree["ema"] is not None for tree in (found, wanted)]
    if averages[0] != averages[1]:
        had = "has a moving average (ema_decay)" if averages[0] else "has no moving average (ema_decay)"
        return f"it {had}, this run has {'none' if averages[0] else 'one'}"
    wanted, found = (
        flax.traverse_util.flatten_dict(tree, sep="/", keep_empty_nodes=True) for tree in (wanted, found)
    )
    other = "it belongs to another model or optimizer: "
    for path in sorted(wanted.keys() ^ found.keys()):
        return other + (
            f"it has no {path}" if path in wanted else f"it has {path}, which this run does not have"
        )
    shapes = {path: (np.shape(found[path]), np.shape(leaf)) for path, leaf in wanted.items()}
    differing = {path: both for path, both in shapes.items() if both[0] != both[1]}
    if not differing:
        return ""
    path, (had, wants) = min(differing.items())
    if all("head" in path.split("/") and a[:-1] == b[:-1] for path, (a, b) in differing.items()):
        return f"the checkpoint's head has {had[-1]} classes, the data {wants[-1]}"
    return f"{other}its {path} has shape {had}, wanted {wants}"


def remove_after(directory: str | Path, step: int) -> None:
    """Removes the checkpoints of later steps, damaged or not."""
    for path in Path(directory).iterdir():
        if path.is_dir() and path.name.isdigit() and int(path.name) > step:
            shutil.rmtree(path)
