"""Data parallelism: the only module that uses `pmap`, meshes and `jax.distributed`.

A step of `training.step` is written over a mapped axis named "batch". `DataParallel` compiles it for
the available devices: with `jax.pmap` and the state unstacked (`in_axes=(None, 0), out_axes=None`),
with `jax.shard_map` over a mesh, or for a single device with plain `jax.jit`; the results are the
same. The state is replicated, and the batch is split along its first axis. On several hosts each
process feeds its own devices, and the collectives of the step span the devices of all processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnets.errors import InputError, unknown_name
from jaxnets.layers import DATA_AXIS
from jaxnets.training.step import EvalStep, TrainStep
from jaxnets.training.task import Batch

STRATEGIES = ("auto", "pmap", "shard_map", "single")
_GROUP_AXIS = "group"  # not "batch": steps reduce over that axis


def initialize_distributed(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Connects the processes of a multi-host run. Call it once, before any other JAX function.

    No arguments are needed in environments that JAX detects (SLURM, Open MPI, Kubernetes, TPU pods).
    Elsewhere, pass the address of process 0, the number of processes and the index of this one.

    Args:
        coordinator: "host:port" of process 0.
        processes: number of processes.
        process: index of this process, from 0.

    Raises:
        InputError: if only some of the three are given, or the run cannot be joined.
    """
    given = (coordinator, processes, process)
    if any(v is None for v in given) and any(v is not None for v in given):
        raise InputError(
            f"coordinator={coordinator}, processes={processes}, process={process}: give all three, "
            "or none of them on a cluster that JAX detects"
        )
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"could not join the run at {coordinator or 'the coordinator'}: {str(error).splitlines()[0]}"
        ) from error


@dataclass(frozen=True)
class DataParallel:
    """How the steps of a run are compiled for its devices.

    Attributes:
        strategy: "pmap", "shard_map" or "single".
        devices: this process's devices.
    """

    strategy: str
    devices: tuple[jax.Device, ...]

    @classmethod
    def create(cls, strategy: str = "auto", devices: Any = None) -> "DataParallel":
        """Uses all available devices, with `pmap` if there is more than one.

        Args:
            strategy: "auto", "pmap", "shard_map" or "single".
            devices: this process's devices; None for all of them. Multi-host runs always use all.

        Raises:
            InputError: for an unknown strategy, or "single" with several processes.
        """
        if strategy not in STRATEGIES:
            raise unknown_name("strategy", strategy, STRATEGIES)
        devices = tuple(jax.local_devices() if devices is None else devices)
        alone = len(devices) == 1 and jax.process_count() == 1
        if strategy == "auto":
            strategy = "single" if alone else "pmap"
        if strategy == "single":
            if jax.process_count() > 1:
                raise InputError("strategy is 'single' in a run with several processes; use 'pmap'")
            devices = devices[:1]
        return cls(strategy, devices)

    @property
    def replicas(self) -> int:
        """The number of devices that share a batch, over all processes."""
        return len(self.devices) * jax.process_count()

    def local_batch_size(self, batch_size: int) -> int:
        """The size of this process's part of a global batch.

        Raises:
            InputError: if the batch size is not divisible by the number of devices.
        """
        if batch_size < 1 or batch_size % self.replicas:
            lower = batch_size // self.replicas * self.replicas
            near = " or ".join(str(n) for n in (lower, lower + self.replicas) if n > 0)
            raise InputError(
                f"batch_size is {batch_size}, which is not divisible by {self.replicas} devices; "
                f"use {near}"
            )
        return batch_size // jax.process_count()

    def compile_train_step(self, step: TrainStep) -> TrainStep:
        """Compiles a train step. The input state is donated: use only the returned state."""
        return self._compile(step, donate=(0,))

    def compile_eval_step(self, step: EvalStep) -> EvalStep:
        """Compiles an eval step; the returned sums are those over all devices."""
        return self._compile(step, donate=())

    def compile_predict(self, predict: Callable) -> Callable:
        """Compiles `predict(variables, batch)`, whose outputs have a row for each example, in order."""
        mapped = self._compile(predict, donate=(), rows=True)
        if self.strategy != "pmap":
            return mapped
        return lambda variables, batch: jax.tree.map(
            lambda a: np.asarray(a).reshape(-1, *a.shape[2:]), mapped(variables, batch)
        )

    def compile_group(self, function: Callable, donate: tuple[int, ...] = ()) -> Callable:
        """Compiles `function(group, batch)`, which processes every entry of a group independently.

        The group and the result are split among the devices along their first axis, whose size must be
        a multiple of the number of devices; each device has the whole batch, and none waits for another.
        """
        if len(self.devices) == 1:
            return jax.jit(function, donate_argnums=donate)
        mesh = Mesh(np.array(self.devices), (_GROUP_AXIS,))
        cut, whole = PartitionSpec(_GROUP_AXIS), PartitionSpec()
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=(cut, whole), out_specs=cut, check_vma=False
        )
        shardings = NamedSharding(mesh, cut), NamedSharding(mesh, whole)
        return jax.jit(mapped, in_shardings=shardings, out_shardings=shardings[0], donate_argnums=donate)

    def replicate(self, tree: Any) -> Any:
        """Copies a state or variables to every device. Arrays keep their shapes: no replica axis."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def put(self, batch: Batch) -> Batch:
        """Splits this process's part of a batch among its devices."""
        if self.strategy == "single":
            return jax.device_put(batch, self.devices[0])
        cut = NamedSharding(self._mesh, PartitionSpec(DATA_AXIS))
        if self.strategy == "pmap":
            count = len(self.devices)
            batch = jax.tree.map(lambda a: np.reshape(a, (count, -1, *np.shape(a)[1:])), batch)
            return jax.device_put(batch, cut)
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(cut, a), batch)

    def _compile(self, step: Callable, donate: tuple[int, ...], rows: bool = False) -> Callable:
        if self.strategy == "single":
            return jax.jit(step, donate_argnums=donate)
        if self.strategy == "pmap":
            devices = None if jax.process_count() > 1 else self.devices
            return jax.pmap(
                step,
                axis_name=DATA_AXIS,
                in_axes=(None, 0),
                out_axes=0 if rows else None,
                donate_argnums=donate,
                devices=devices,
            )
        mapped = jax.shard_map(
            step,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), PartitionSpec(DATA_AXIS)),
            out_specs=PartitionSpec(DATA_AXIS) if rows else PartitionSpec(),
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donate)

    @property
    def _mesh(self) -> Mesh:
        # pmap takes each process's own arrays, shard_map takes arrays that span all processes.
        spans_all = self.strategy == "shard_map" and jax.process_count() > 1
        return Mesh(np.array(jax.devices() if spans_all else self.devices), (DATA_AXIS,))


def is_main_process() -> bool:
    """Whether this process writes the logs."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once every process of the run has reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
