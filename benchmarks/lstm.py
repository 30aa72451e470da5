"""An LSTM's forward and backward pass: ours, Flax's `nn.RNN`, and torch's, in one run.

Command: python benchmarks/lstm.py [--peer-python PYTHON]
Prints the table that is kept in benchmarks/lstm.md. PYTHON is an interpreter that has torch, which
need not be this one; it runs on the GPU if it finds one, as JAX does. 512 inputs and 512 units, float32,
gradients for weights and inputs; medians of rounds in which the programs take turns.
"""

import argparse
import statistics
import subprocess
import sys
import time

from heading import print_heading

UNITS, ROUNDS, REPEATS = 512, 9, 3
SHAPES = ((64, 20), (64, 50), (64, 100), (16, 20))  # batch, length

TORCH = f"""
import sys, time, torch
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
finish = torch.cuda.synchronize if device == "cuda" else lambda: None
nets = {{}}
for line in sys.stdin:
    shape = tuple(map(int, line.split()))
    if shape not in nets:
        net = torch.nn.LSTM({UNITS}, {UNITS}, batch_first=True)
        nets[shape] = net.to(device), torch.randn(*shape, {UNITS}, device=device)
    net, x = nets[shape]
    for repeat in range({REPEATS} + 1):
        if repeat == 1:
            start, cpu = time.perf_counter(), time.process_time()
        net.zero_grad()
        x = x.detach().requires_grad_()
        net(x)[0].square().sum().backward()
        finish()
    seconds = time.perf_counter() - start, time.process_time() - cpu
    print(*(s / {REPEATS} for s in seconds), flush=True)
"""


def jax_programs() -> dict:
    """Name to a function from (batch, length) to the seconds of a step, wall-clock and CPU."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from jaxnets import layers

    flax = nn.RNN(nn.OptimizedLSTMCell(UNITS))
    ours = layers.LSTM(UNITS)
    reads = {
        "ours": lambda p, x: ours.apply({"params": {"layer0": p}}, x)[0],
        "nn.RNN": lambda p, x: flax.apply({"params": {"cell": p}}, x),
    }
    params = ours.init(jax.random.key(0), jnp.zeros((1, 1, UNITS)))["params"]["layer0"]

    def program(read):
        gradient = jax.jit(jax.grad(lambda p, x: jnp.sum(read(p, x) ** 2), argnums=(0, 1)))

        def run(shape):
            x = jax.random.normal(jax.random.key(1), (*shape, UNITS))
            jax.block_until_ready(gradient(params, x))
            start, cpu = time.perf_counter(), time.process_time()
            for _ in range(REPEATS):
                jax.block_until_ready(gradient(params, x))
            return (
                (time.perf_counter() - start) / REPEATS,
                (time.process_time() - cpu) / REPEATS,
            )

        return run

    return {name: program(read) for name, read in reads.items()}


def torch_program(interpreter: str):
    """The same of torch, in a process of its own."""
    process = subprocess.Popen(
        [interpreter, "-c", TORCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(shape):
        process.stdin.write(f"{shape[0]} {shape[1]}\n")
        process.stdin.flush()
        wall, cpu = map(float, process.stdout.readline().split())
        return wall, cpu

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="an interpreter that has torch")
    options = parser.parse_args()
    programs = jax_programs()
    pythons = [sys.executable]
    if options.peer_python:
        programs["torch"] = torch_program(options.peer_python)
        pythons.append(options.peer_python)
    print_heading(
        f"LSTM of {UNITS} units, forward and backward",
        "`python benchmarks/lstm.py --peer-python PYTHON`, measured",
        pythons,
    )
    print()
    others = [name for name in programs if name != "ours"]
    print("| batch x length | " + " | ".join(f"{name}, ms (CPU ms)" for name in programs), end=" | ")
    print(" | ".join(f"{name} / ours, wall (CPU)" for name in others) + " |")
    print("|---" * (1 + len(programs) + len(others)) + "|")
    for shape in SHAPES:
        found = {name: [] for name in programs}
        for _ in range(ROUNDS):
            for name, run in programs.items():
                found[name].append(run(shape))
        median = {
            name: [statistics.median(column) * 1e3 for column in zip(*times, strict=True)]
            for name, times in found.items()
        }
        cells = [f"{wall:.3g} ({cpu:.3g})" for wall, cpu in median.values()]
        ratios = [[a / b for a, b in zip(median[name], median["ours"], strict=True)] for name in others]
        cells += [f"{wall:.2f} ({cpu:.2f})" for wall, cpu in ratios]
        print(f"| {shape[0]} x {shape[1]} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
