"""Checkpoints of a run, by Orbax: asynchronous, atomic, the last few and the best.

A process that is killed while it saves leaves the earlier checkpoints whole; the half-written one is
ignored. Arrays are stored unsharded, so that a run may resume on another number of devices.
"""

import contextlib
import re
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
        directory: where they are, one folder a step.
        keep: how many of the last to keep; the best by score is kept besides.
        read_only: do not create the directory.
    """

    def __init__(self, directory: str | Path, keep: int = 2, read_only: bool = False):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        self.directory = Path(directory).absolute()
        self._ocp = ocp
        if read_only and not self.directory.is_dir():
            raise CheckpointError(f"{self.directory} holds no checkpoints")

        def score(metrics):
            return metrics[SCORE]

        best = BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "position": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
                best_fn=score,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The newest whole checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The checkpoint with the highest score, or None where none has one."""
        return self._manager.best_step()

    def save(self, state: TrainState, position: dict, score: float | None = None) -> None:
        """Starts to save, and returns as soon as the state is copied to the host.

        Args:
            state: the state after some step.
            position: where the data iterator is, and whatever else the loop needs to go on: JSON.
            score: higher is better; None for a checkpoint that cannot be the best.

        Raises:
            CheckpointError: if this or the previous save failed, a full disk say. Earlier checkpoints
                are whole.
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
        """Returns when all that was started is on disk.

        Raises:
            CheckpointError: if a save failed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict]:
        """Reads a checkpoint (the newest one where `step` is None) into a state of the shape of `like`.

        Returns:
            The state as host arrays, and the position that was saved with it.

        Raises:
            CheckpointError: if there is none, or it belongs to another model or optimizer: the first
                difference is named.
        """
        arrays, position = self._read(step)
        wanted = flax.serialization.to_state_dict(like)
        difference = _first_difference(wanted, arrays)
        if difference:
            raise CheckpointError(
                f"the checkpoint in {self.directory} is of another model or optimizer: {difference}; "
                "resume with what it was trained with, or choose another run directory"
            )
        return flax.serialization.from_state_dict(like, arrays), position

    def restore_variables(self, step: int | None = None) -> Variables:
        """The variables to predict with, whatever optimizer they were trained by: host arrays."""
        arrays, _ = self._read(step)
        params = arrays["params"] if arrays["ema"] is None else arrays["ema"]
        return {"params": params, **arrays["collections"]}

    def close(self) -> None:
        """Waits for what was started and ends the background threads; never raises."""
        with contextlib.suppress(Exception):  # `save` and `wait` are where failures are told
            self._manager.close()

    def _read(self, step: int | None) -> tuple[dict, dict]:
        step = self.latest_step if step is None else step
        steps = self._manager.all_steps()
        if step not in steps:
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            have = f"; there are {', '.join(map(str, steps))}" if steps else ""
            raise CheckpointError(f"{self.directory} holds {what}{have}")
        args = self._ocp.args
        try:
            read = self._manager.restore(
                step,
                args=args.Composite(
                    state=args.StandardRestore(self._host_arrays(step)),
                    position=args.JsonRestore(),
                ),
            )
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self.directory} cannot be read: {_first_line(error)}"
            ) from error
        return read["state"], read["position"]

    def _host_arrays(self, step: int) -> Any:
        """Placeholders that make Orbax read NumPy arrays, whatever devices wrote them."""
        saved = self._manager.item_metadata(step)["state"].tree
        return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), saved)

    def _failed(self, error: Exception) -> CheckpointError:
        steps = self._manager.all_steps()
        kept = f"the checkpoint of step {steps[-1]} is whole" if steps else "none was saved before"
        return CheckpointError(
            f"could not save a checkpoint in {self.directory}: {_first_line(error)}; {kept}. "
            "Free some space and go on with --resume"
        )


def _first_line(error: Exception) -> str:
    system = re.search(r"([^:]+) \[os_error_code", str(error))  # how TensorStore reports a full disk
    if system:
        return system[1].strip()
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _first_difference(wanted: dict, found: dict) -> str:
    """Names the first leaf that is missing, left over or of another shape; "" if there is none."""
    wanted, found = (
        flax.traverse_util.flatten_dict(tree, sep="/", keep_empty_nodes=True) for tree in (wanted, found)
    )
    for path in sorted(wanted.keys() | found.keys()):
        if path not in found:
            return f"it has no {path}"
        if path not in wanted:
            return f"it has {path}, which this one has not"
        shapes = [getattr(tree[path], "shape", None) for tree in (found, wanted)]
        if shapes[0] != shapes[1]:
            return f"its {path} has shape {shapes[0]}, wanted {shapes[1]}"
    return ""
