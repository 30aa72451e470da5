"""What XLA makes of the train steps for an NVIDIA GPU, compiled here without one and never run.

Command: python benchmarks/cuda_compile.py [NET ...] [--batch-size 256] [--peers flax]
Prints the rows of benchmarks/cuda_compile.md; needs JAX's CUDA plugin, which `pip install
'jaxnets[cuda]'` brings, and no driver. Each train step is that of `tpu_compile.py` on one device, in
bfloat16. Without a card nothing is timed, so that cuDNN's algorithms are not chosen and the memory of
their workspaces does not count. XLA's GPU compiler does not tell its costs to JAX; the columns are:

- compile: processor seconds.
- memory: arguments and temporary arrays, without what is given away and written again.
- kernels: instructions of the compiled program that are launched, and how many of them are convolutions
  or products by a library of NVIDIA's.
- GB: the arrays that each kernel reads and those that it writes, whole, summed over the kernels. Caches
  may spare some of it.
"""

import argparse
import contextlib
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import jax
import jax_plugins.xla_cuda13
from contenders import plain_flax
from heading import print_heading
from jax._src import xla_bridge
from jax.experimental import topologies
from tpu_compile import print_row
from tpu_programs import ours, task_of

COLUMNS = ("network", "contender", "batch", "compile, s", "memory, GiB", "kernels", "of libraries", "GB")
# An H100, as OpenXLA describes cards (`xla/tools/hlo_opt/gpu_specs/` there).
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  core_count: 132 fpus_per_core: 128 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%(?P<name>\S+) = (?P<type>.+?) (?P<kind>[\w-]+)\((?P<operands>.*)"
)
_ARRAY = re.compile(r"\b(?P<dtype>pred|bf16|[fsu]\d+)\[(?P<shape>[\d,]*)\]")
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"}  # no kernels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NET", default=["resnet50"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--peers", nargs="+", choices=("flax",), default=[], help="beside ours")
    arguments = parser.parse_args()
    print_heading("Compiled for an H100, bfloat16", "train steps: compiled, not run")
    print()
    print_row(COLUMNS)
    print("|---" * len(COLUMNS) + "|")
    devices = devices_of(H100)
    for network in arguments.networks:
        for contender in ("ours", *arguments.peers):
            task, batch = task_of(network, arguments.batch_size)
            with plain_flax() if contender == "flax" else contextlib.nullcontext():
                lowered = ours(network, task, batch, False, devices)
            start = time.process_time()
            compiled = lowered.compile()
            seconds = time.process_time() - start
            held = compiled.memory_analysis()
            made = held.output_size_in_bytes - held.alias_size_in_bytes + held.temp_size_in_bytes
            memory = (held.argument_size_in_bytes + made) / 2**30
            kernels, of_libraries, moved = counted(compiled.as_text())
            cells = [
                f"{seconds:.0f}",
                f"{memory:.3g}",
                str(kernels),
                str(of_libraries),
                f"{moved / 1e9:.3g}",
            ]
            print_row([network, contender, str(arguments.batch_size), *cells])


def devices_of(card: str) -> tuple[Any, ...]:
    """One GPU to lower and compile for, of a description of OpenXLA's."""
    jax.config.update("jax_platforms", "cpu")
    # Without a card no kernel can be timed.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    jax.devices()  # JAX registers its plugins, but not those that find no driver
    if "cuda" not in xla_bridge._topology_factories:
        library = Path(jax_plugins.xla_cuda13.__file__).parent / "xla_cuda_plugin.so"
        xla_bridge.register_plugin("cuda", library_path=str(library))
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", topology="1x1x1", target_config=card
    )
    return tuple(topology.devices)


def counted(text: str) -> tuple[int, int, int]:
    """The kernels of a compiled program, those of NVIDIA's libraries, and bytes read and written by all;
    the body of a loop counts once."""
    parts = [part for part in text.split("\n\n") if part.startswith(("%", "ENTRY"))]
    computations = {re.search(r"%([\w.-]+)", part)[1]: part for part in parts}
    kernels = of_libraries = moved = 0
    left = [name for name, part in computations.items() if part.startswith("ENTRY")]  # and its loops
    while left:
        sizes: dict[str, int] = {}
        for line in computations[left.pop()].splitlines():
            found = _INSTRUCTION.match(line)
            if not found:
                continue
            sizes[found["name"]] = size_of(found["type"])
            left += re.findall(r"(?:body|condition)=%([\w.-]+)", line)
            if found["kind"] in _FREE:
                continue
            operands = re.findall(r"%([\w.-]+)", found["operands"].partition(")")[0])
            of_library = 'custom_call_target="__cu' in line
            # The second array that a library's kernel returns is its workspace.
            written = found["type"].partition(", ")[0] if of_library else found["type"]
            moved += size_of(written) + sum(sizes[name] for name in operands)
            kernels += 1
            of_libraries += of_library
    return kernels, of_libraries, moved


def size_of(type_text: str) -> int:
    """Bytes of a type as XLA writes it, of a tuple those of all its arrays."""
    total = 0
    for array in _ARRAY.finditer(type_text):
        shape = [int(side) for side in array["shape"].split(",") if side]
        width = 1 if array["dtype"] == "pred" else int(re.sub(r"\D", "", array["dtype"])) / 8
        total += math.ceil(math.prod(shape) * width)
    return total


if __name__ == "__main__":
    main()
