"""What `remat=True` saves of memory and costs in products, told by the compiler for TPUs.

Command: python benchmarks/remat.py [NET ...] [--batch-size 8] [--topology v5e:1x1]
Prints the table that is kept in benchmarks/remat.md. Needs libtpu (`pip install 'jaxnets[tpu]'`) and no
TPU: the train steps are compiled, not run, in float32 and at the least effort of the compiler. XLA's
compiler for CPUs takes most of the recomputation away again, and saves nothing.
"""

import argparse
from functools import partial

import jax
from heading import print_heading
from tpu_programs import task_of
from tpu_topology import TOPOLOGIES, devices_of, lower

from jaxnets.training import DataParallel, create_optimizer, create_state, make_train_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NET", default=["resnet50"])
    parser.add_argument("--topology", choices=TOPOLOGIES, default="v5e:1x1")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    devices = devices_of(arguments.topology)
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    print_heading(f"Rematerialization, compiled for {arguments.topology}", "Train steps in float32.")
    print(
        "\n| network | batch | remat | peak, MiB | of it temporary | TFLOP |\n|---|---|---|---|---|---|"
    )
    for network in arguments.networks:
        for remat in (False, True):
            compiled = step_of(network, arguments.batch_size, remat, devices).compile()
            memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
            row = [network, arguments.batch_size, "yes" if remat else "no"]
            row += [f"{memory.peak_memory_in_bytes / 2**20:.0f}"]
            row += [f"{memory.temp_size_in_bytes / 2**20:.0f}", f"{costs['flops'] / 1e12:.3f}"]
            print(f"| {' | '.join(map(str, row))} |", flush=True)


def step_of(network: str, batch_size: int, remat: bool, devices: tuple) -> jax.stages.Lowered:
    parallel = DataParallel.create("single", devices)
    task, batch = task_of(network, batch_size)
    optimizer = create_optimizer("momentum", 0.1, weight_decay=1e-4)
    state = jax.eval_shape(partial(create_state, task, optimizer), jax.random.key(0), batch)
    step = parallel.compile_train_step(make_train_step(task, optimizer, remat=remat))
    return lower(step, parallel, state, batch)


if __name__ == "__main__":
    main()
