"""How long it takes, and how much memory, to load ResNet-152 from a local safetensors file.

Command: python benchmarks/load_pretrained.py
Prints the table that is kept in benchmarks/load_pretrained.md. The file (241 MB, of drawn weights by
timm's names) is written first. Then, each in a process of its own, so that nothing is warm but the disk:

- `load`: `jaxnets.load_pretrained("resnet152", file)`, timed after `import jaxnets` and JAX;
- `read`: reading the file's bytes, nothing else.

Memory is the growth of the process's peak resident memory over what it was before the call; pages of the
mapped file would count. The clock also counts what other programs take of a busy machine, CPU seconds do
not.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from heading import print_heading

RUNS = 5
MEASURE = """
import json, re, sys, time
from pathlib import Path
import jax, jax.numpy as jnp, jaxnets, jaxnets.pretrained

def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) * 1024

def load(path):
    return jaxnets.load_pretrained("resnet152", path)

def read(path):
    return Path(path).read_bytes()

what = {"load": load, "read": read}[sys.argv[1]]
jnp.zeros(1).block_until_ready()  # JAX starts its backend
before, cpu, start = peak(), time.process_time(), time.perf_counter()
kept = what(sys.argv[2])
seconds = time.perf_counter() - start
cpu = time.process_time() - cpu
print(json.dumps({"seconds": seconds, "cpu": cpu, "bytes": peak() - before}))
"""
WRITE = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jaxnets import weights
from jaxnets.models import create_model

model = create_model("resnet152")
shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *model.input_size)))
rng = np.random.default_rng(0)
variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)
weights.files.write_safetensors(sys.argv[1], weights.to_torch("resnet152", variables, "timm"))
print(sum(leaf.nbytes for leaf in jax.tree.leaves(variables)))
"""


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    print_heading("Loading ResNet-152", "`python benchmarks/load_pretrained.py`, measured")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        size = int(run(WRITE, path))
        found = {
            what: [json.loads(run(MEASURE, what, path)) for _ in range(RUNS)]
            for what in ("read", "load")
        }
    seconds, cpus, memory = (
        {what: statistics.median(row[key] for row in rows) for what, rows in found.items()}
        for key in ("seconds", "cpu", "bytes")
    )
    worst = max(row["seconds"] for row in found["load"]) - seconds["read"]
    print(f"- weights of {size / 1e6:.1f} MB; medians of {RUNS} processes\n")
    print("| | seconds | CPU seconds | peak memory, MB | of the weights |")
    print("|---|---|---|---|---|")
    for what in ("read", "load"):
        ratio = memory[what] / size
        times = f"{seconds[what]:.2f} | {cpus[what]:.2f}"
        print(f"| {what} | {times} | {memory[what] / 1e6:.0f} | {ratio:.2f} |")
    extra, cpu = (which["load"] - which["read"] for which in (seconds, cpus))
    print(f"\nBeyond reading the file: {extra:.2f} s in the median and {worst:.2f} s at worst by the")
    print(
        f"clock, {cpu:.2f} s of CPU, at a load of {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores.\n"
    )
    for wanted, met in (
        ("under 2 s by the clock", extra < 2),
        ("under 2 s of CPU", cpu < 2),
        ("at most 2.2 times the weights in memory", memory["load"] <= 2.2 * size),
    ):
        print(f"- {wanted}: {'met' if met else 'missed'}")


if __name__ == "__main__":
    main()
