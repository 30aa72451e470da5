"""TPUs to compile for, without one: JAX's descriptions of their topologies, by libtpu's compiler.

libtpu (`pip install 'jaxnets[tpu]'`) compiles for chips that are not there. The process computes on its
CPU all the while: programs are lowered and compiled for the devices of a topology, and never run.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxnets.layers import DATA_AXIS
from jaxnets.training import DataParallel


class Topology(NamedTuple):
    """What compiling for a machine of TPUs needs.

    Attributes:
        accelerator: libtpu's name of the machine.
        bounds: chips of the machine along each axis.
        chip: JAX's name of its chips.
    """

    accelerator: str
    bounds: tuple[int, int, int]
    chip: str


TOPOLOGIES = {
    "v2:2x2x1": Topology("v2-8", (2, 2, 1), "v2"),
    "v5e:1x1": Topology("v5litepod-1", (1, 1, 1), "v5e"),
    "v5e:2x2": Topology("v5litepod-4", (2, 2, 1), "v5e"),
    "v6e:1x1": Topology("v6e-1", (1, 1, 1), "v6e"),
}


def figures_of(name: str) -> pltpu.TpuInfo:
    """Memory, its bandwidth and products a second of one device of a topology, which on v2 is one of the
    two cores of a chip: JAX's own (`docs.jax.dev/en/latest/pallas/tpu/hardware.html`)."""
    return pltpu.get_tpu_info_for_chip(pltpu.ChipVersion(TOPOLOGIES[name].chip), 1)


def devices_of(name: str) -> tuple[Any, ...]:
    """The devices of a topology of `TOPOLOGIES`, to lower and compile for.

    They go where JAX takes devices: to `DataParallel.create(devices=)`, to `jax.pmap` and to meshes.
    The process itself computes on its CPU, from here on too.

    Raises:
        RuntimeError: no libtpu.
    """
    machine = TOPOLOGIES[name]
    jax.config.update("jax_platforms", "cpu")
    # libtpu reads them when it is loaded: it is not to ask Google's cloud about the machine, and several
    # processes may load it, as none of them computes with it.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ["TPU_ACCELERATOR_TYPE"] = machine.accelerator
    os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=name, chips_per_host_bounds=machine.bounds
    )
    return tuple(topology.devices)


def lower(function: Callable, parallel: DataParallel, whole: Any, batch: Any) -> jax.stages.Lowered:
    """Lowers a step for the devices of `parallel`.

    Args:
        function: a step, of `parallel.compile_train_step` or `compile_eval_step`.
        parallel: of devices of `devices_of`.
        whole: shapes of what every device has: the state or the variables.
        batch: shapes of the batch of all devices together.
    """
    devices = parallel.devices
    if parallel.strategy == "pmap":
        count = len(devices)
        batch = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (count, leaf.shape[0] // count, *leaf.shape[1:]), leaf.dtype
            ),
            batch,
        )
        return function.lower(whole, batch)
    if parallel.strategy == "single":
        everywhere = cut = SingleDeviceSharding(devices[0])
    else:
        mesh = Mesh(np.array(devices), (DATA_AXIS,))
        everywhere, cut = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (DATA_AXIS,)))
    return function.lower(_placed(whole, everywhere), _placed(batch, cut))


def _placed(shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
