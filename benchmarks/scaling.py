"""What it costs to spread the same batch over several devices, by each way of doing it.

Command: JAX_NUM_CPU_DEVICES=8 python benchmarks/scaling.py [--network resnet18] [--batch-size 32]
Prints the table that is kept in benchmarks/README.md. The whole batch is the same in every row, and so
is the processor that the virtual devices of one CPU share: what a row takes beyond the first is the
cost of the spreading. Programs of a core each may also share it better than one of all cores. The
steps are the library's own, and take turns.
"""

import argparse
import statistics
import time

import jax
import numpy as np
from heading import print_heading
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxnets
from jaxnets.training import DataParallel, create_optimizer, create_state, make_train_step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    side = arguments.size
    about = f"batch of {arguments.batch_size}, {side} x {side}, {jax.device_count()} devices"
    print_heading(f"{arguments.network}, {about}", f"Measured, medians of {arguments.rounds}")
    print()
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (arguments.batch_size, side, side, 3), np.uint8),
        "label": rng.integers(0, 10, arguments.batch_size),
    }
    task = jaxnets.Classification(jaxnets.create_model(arguments.network, num_classes=10))
    optimizer = create_optimizer("sgd", 0.01)
    state = jax.device_get(create_state(task, optimizer, jax.random.key(0), batch))
    step = make_train_step(task, optimizer)

    runs = {}
    for strategy in ("single", "pmap", "shard_map"):
        parallel = DataParallel.create(strategy)
        place = parallel.replicate(state), parallel.put(batch)
        runs[strategy] = [parallel.compile_train_step(step), *place]
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    whole, cut = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("batch")))
    runs["jit with shardings"] = [
        jax.jit(step, donate_argnums=0, out_shardings=whole),
        jax.device_put(state, whole),
        jax.device_put(batch, cut),
    ]

    def take(name: str) -> tuple[float, float]:
        run, state, batch = runs[name]
        start, work = time.perf_counter(), time.process_time()
        state, _ = jax.block_until_ready(run(state, batch))
        runs[name][1] = state
        return time.perf_counter() - start, time.process_time() - work

    taken = {name: [] for name in runs}
    for round_ in range(arguments.rounds + 1):
        for name in runs:
            seconds = take(name)
            if round_ > 0:  # the first one compiles
                taken[name].append(seconds)
    print("| strategy | step, s | of single | step, processor s | of single |")
    print("|---|---|---|---|---|")
    medians = {
        name: [statistics.median(kind) for kind in zip(*each, strict=True)]
        for name, each in taken.items()
    }
    for name, found in medians.items():
        cells = [f"{a:.3f} | {a / b:.2f}" for a, b in zip(found, medians["single"], strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
