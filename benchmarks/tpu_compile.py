"""What TPUs would do with the models, told by their own compiler: compiled here, never run.

Command: python benchmarks/tpu_compile.py [NET ...] [--topology v5e:1x1] [--batch-size 64]
         [--peers flax keras] [--effort -1]
Prints the rows of benchmarks/tpu_compile.md; needs libtpu, which `pip install 'jaxnets[tpu]'` brings,
and for its rows Keras. NET is any name of `jaxnets.list_models()`, or a captioner. Of each the train
step (SGD with momentum, data parallel by `pmap` over the devices of the topology, for classifiers the
augmentation of ImageNet within it) and the forward pass, from bytes to what `predict` returns, are
compiled at the model's own size in bfloat16. What the compiler says is of one device:

- compile: processor seconds.
- memory: arguments and temporary arrays, without what is given away and written again.
- TFLOP and GB: of one step, as XLA counts them. GB are those that its kernels read and write, whether
  the memory of the device holds them or one on the chip, so that a copy from the one to the other counts
  twice.
- products, bytes: the times that they take at the figures of the device. A step can hardly be quicker
  than the longer of the two; images a second are those of a device at that bound.
- fits: the largest batch, estimated: that of the row, scaled as if all memory but the parameters' and
  the optimizer's grew with the batch; too large where it is all on the chip. It was not compiled itself.

Each row is a process of its own, on one core mostly. The compiler takes minutes for a train step; a row
that takes more than `--limit` says so, as one does that fails, and the rest goes on. With `--effort -1`
the compiler optimizes least: it is several times quicker, and its program another one.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from heading import print_heading
from jax.experimental.pallas import tpu as pltpu
from tpu_topology import TOPOLOGIES, figures_of

HERE = Path(__file__).parent
PROGRAMS = {"train": "train step", "forward": "forward pass"}
COLUMNS = (
    "network", "what", "contender", "batch", "compile, s", "memory, GiB", "TFLOP", "GB", "products, ms",
    "bytes, ms", "images/s at the bound", "fits",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NET", default=["resnet50", "mobilenet_v2_100"])
    parser.add_argument("--topology", choices=TOPOLOGIES, default="v5e:1x1")
    parser.add_argument("--batch-size", type=int, default=64, help="of a device")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--peers", nargs="+", choices=("flax", "keras"), default=[], help="beside ours")
    parser.add_argument("--effort", type=float, default=0.0, help="of the compiler, -1 to 1")
    parser.add_argument("--limit", type=float, default=1800, help="of a row, seconds")
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"  # where libtpu is installed, JAX would look for a TPU
    name, figures = arguments.topology, figures_of(arguments.topology)
    command = " ".join(["python", f"benchmarks/{Path(__file__).name}", *sys.argv[1:]])
    print_heading(f"Compiled for {name}, bfloat16", f"`{command}`: compiled, not run")
    print(
        f"- a device: {figures.bf16_ops_per_second / 1e12:g} TFLOP/s, "
        f"{figures.mem_bw_bytes_per_second / 1e9:g} GB/s, {figures.hbm_capacity_bytes / 2**30:.3g} GiB "
        "(`jax.experimental.pallas.tpu.TpuInfo`)"
    )
    print()
    print_row(COLUMNS)
    print("|---" * len(COLUMNS) + "|")
    options = ["--topology", name, "--batch-size", str(arguments.batch_size)]
    options += ["--effort", str(arguments.effort)]
    for network in arguments.networks:
        for what in arguments.programs:
            for contender in ("ours", *arguments.peers):
                program = [contender, network, PROGRAMS[what], *options]
                try:
                    told = compiled(program, arguments.limit)
                except ChildProcessError as error:
                    cells = [str(error), *["-"] * (len(COLUMNS) - 5)]
                else:
                    cells = cells_of(told, figures, arguments.batch_size)
                print_row([network, PROGRAMS[what], contender, str(arguments.batch_size), *cells])


def print_row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def compiled(program: list[str], limit: float) -> dict[str, float]:
    """What `tpu_programs.py` tells of a program.

    Raises:
        ChildProcessError: why there is nothing to tell, for a cell of the table.
    """
    try:
        process = subprocess.run(
            [sys.executable, HERE / "tpu_programs.py", *program],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise ChildProcessError(f"not within {limit:g} s") from None
    if process.returncode:
        print(process.stderr, file=sys.stderr)
        last = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        oom = "RESOURCE_EXHAUSTED" in process.stderr
        raise ChildProcessError("does not fit" if oom else f"failed: {last.replace('|', '/')[:80]}")
    return json.loads(process.stdout.splitlines()[-1])


def cells_of(told: dict[str, float], figures: pltpu.TpuInfo, batch_size: int) -> list[str]:
    products = told["flops"] / figures.bf16_ops_per_second
    moving = told["moved"] / figures.mem_bw_bytes_per_second
    room = figures.hbm_capacity_bytes - told["kept"]
    return [
        f"{told['seconds']:.0f}",
        *(
            f"{number:.3g}"
            for number in (
                told["held"] / 2**30,
                told["flops"] / 1e12,
                told["moved"] / 1e9,
                products * 1e3,
                moving * 1e3,
            )
        ),
        f"{batch_size / max(products, moving):,.0f}",
        f"{batch_size * room / (told['held'] - told['kept']):,.0f}",
    ]


if __name__ == "__main__":
    main()
