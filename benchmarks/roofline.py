"""How near a train step comes to what the machine can do, by kind of layer.

Command: python benchmarks/roofline.py [NETWORK ...] [--batch-size 8] [--size 224]
Prints the table that is kept in benchmarks/roofline.md. Two ceilings are measured first: a product of
large matrices, and a change in place of an array that no cache holds. Then a compiled train step (SGD
with momentum) is traced by JAX's profiler, and the seconds of each of its kernels go to the layer whose
work it is, forward and backward. A kernel that XLA fused of several layers' work goes to the last of
them.

Kernels run side by side on several cores: their seconds are scaled to add up to those of the step.

Products are those of the forward pass three times, as each convolution has two gradients. Bytes are
what the kernels read and write, each operand and result once; caches may save some of them.
"""

import argparse
import re
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
from heading import print_heading
from machine import ceilings

import jaxnets
from jaxnets.training import create_optimizer, create_state, make_train_step

STEPS = 5
_INSTRUCTION = re.compile(
    r"\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<result>.+?) (?P<code>[\w-]+)\((?P<rest>.*)"
)
_OPERAND = re.compile(r"%([\w.-]+)")
_ARRAY = re.compile(r"([a-z]+)(\d+)\[([\d,]*)\]")
_SOURCE = re.compile(r'op_name="([^"]*)"')
_CONTAINERS = {"call", "while", "conditional"}  # their kernels are counted themselves


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=["resnet50", "mobilenet_v2_100"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()
    side = arguments.size
    about = f"batch of {arguments.batch_size}, {side} x {side}"
    print_heading(
        f"A train step beside the machine's ceilings, {about}",
        "`python benchmarks/roofline.py`, measured",
    )
    matmul, memory = ceilings().values()
    print(
        f"- ceilings: {matmul / 1e9:.0f} GFLOP/s (product of matrices), {memory / 1e9:.1f} GB/s (memory)"
    )
    for network in arguments.networks:
        seconds, kinds = measure(network, arguments.batch_size, side)
        traced = sum(kind["seconds"] for kind in kinds.values())
        flops = sum(kind["flops"] for kind in kinds.values())
        print(f"\n## {network}\n")
        print(f"A step takes {seconds:.3f} s, its kernels {traced:.3f} s side by side;")
        print(f"its products reach {flops / seconds / matmul:.0%} of their ceiling over all of it.\n")
        print("| layers | ms | share | GFLOP | GFLOP/s | of ceiling | GB | GB/s | of ceiling |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name, kind in sorted(kinds.items(), key=lambda item: -item[1]["seconds"]):
            share = kind["seconds"] / traced
            cells = [name, f"{share * seconds * 1e3:.1f}", f"{share:.1%}"]
            for what, ceiling in (("flops", matmul), ("bytes", memory)):
                rate = kind[what] / (share * seconds)
                cells += [f"{kind[what] / 1e9:.2f}", f"{rate / 1e9:.1f}", f"{rate / ceiling:.0%}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def measure(network: str, batch_size: int, side: int) -> tuple[float, dict[str, Counter]]:
    """The median seconds of a step, and `seconds`, `flops` and `bytes` of each kind of layer."""
    task = jaxnets.Classification(jaxnets.create_model(network))
    optimizer = create_optimizer("momentum", 0.001)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (batch_size, side, side, 3), np.uint8),
        "label": rng.integers(0, 1000, batch_size),
    }
    state = create_state(task, optimizer, jax.random.key(0), batch)
    step = jax.jit(make_train_step(task, optimizer), donate_argnums=0).lower(state, batch).compile()
    taken = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        taken.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(STEPS):
                state, _ = jax.block_until_ready(step(state, batch))
        kernels = kernel_seconds(next(Path(directory).rglob("*.xplane.pb")))

    rows = jaxnets.summary(network, (batch_size, side, side, 3)).rows
    layers = {row.path: kind_of(row.kind) for row in rows}
    found = {}
    for name, (source, size) in instructions(step.as_text()).items():
        if name in kernels:
            kind = found.setdefault(layer_of(source, layers), Counter())
            kind["seconds"] += kernels[name] / STEPS
            kind["bytes"] += size
    for row in rows:
        if layers[row.path] in found and row.kind.startswith(("Conv", "Dense")):
            found[layers[row.path]]["flops"] += 3 * 2 * row.multiply_adds
    return statistics.median(taken[1:]), found


def kernel_seconds(trace: Path) -> Counter:
    """Seconds of each instruction in a trace, from its beginning to its end, over all its runs."""
    begun, ended, names = {}, {}, {}
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    begun[stats["_p"]], names[stats["_p"]] = event.start_ns, stats["hlo_op"]
                elif event.name.startswith("end: "):
                    ended[stats["_c"]] = event.start_ns
    seconds = Counter()
    for number, start in begun.items():
        seconds[names[number]] += (ended[number] - start) / 1e9
    return seconds


def instructions(program: str) -> dict[str, tuple[str, int]]:
    """By name what each instruction of a compiled program is for, and how many bytes it touches."""
    sizes, found = {}, {}
    for line in program.splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        name, rest = match["name"], match["rest"]
        sizes[name] = sum(
            int(bits) // 8 * int(np.prod([int(n) for n in shape.split(",") if n]))
            for _, bits, shape in _ARRAY.findall(match["result"])
        )
        if match["code"] not in _CONTAINERS:
            source = _SOURCE.search(rest)
            operands = _OPERAND.findall(rest.split("), ")[0])
            size = sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
            found[name] = (source[1] if source else "", size)
    return found


def kind_of(kind: str) -> str:
    """The kind of layer that a row of a summary is counted with."""
    if "groups" in kind:
        return "depthwise and grouped convolutions"
    if kind.startswith("Conv 1x1"):
        return "1x1 convolutions"
    if kind.startswith("Conv"):
        return "larger convolutions"
    if kind == "BatchNorm":
        return "batch norm, with what is fused into it"
    return "head" if kind in ("Dense", "LinearHead") else "activations, sums, pooling"


def layer_of(source: str, layers: dict[str, str]) -> str:
    """The kind of the innermost layer in whose name an instruction was traced."""
    _, found, path = source.partition("backbone/")
    if not found:
        _, found, path = source.partition("head/")
    if not found:
        return "loss, optimizer, copies"
    parts = (found + path).split("/")
    for end in range(len(parts), 0, -1):
        kind = layers.get("/".join(parts[:end]))
        if kind:
            return kind
    return "loss, optimizer, copies"


if __name__ == "__main__":
    main()
