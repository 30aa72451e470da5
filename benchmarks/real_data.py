"""Data of real size: long listings, large photographs, many epochs, beside torchvision.

Command: python benchmarks/real_data.py [SECTION ...] [--peer-python PYTHON]
PYTHON is an interpreter with torch and torchvision; without it they do not contend. The sections are
listing, statistics, photograph, epochs and start; together they take about a quarter of an hour, 1 GB
of disk and, for a short time, 1.3 million names of files. What is timed runs in a process of its own, in
turn with the others, after its imports.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contenders import import_torchvision
from heading import print_heading
from input_pipeline import BATCH_SIZE, SIDE, torch_batches, write_files

CLASSES, ROUNDS = 1000, 3
LISTED = {"train": 100, "val": 5}  # images a class
IMAGENET = {"train": 1231, "val": 50}
PHOTOGRAPH = 4000, 3000
EPOCH = 1024  # images
WORKERS = 2  # of torch's DataLoader

Row = Sequence[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, *words = arguments.measure
        print(json.dumps(MEASURES[name](*words)))
        return
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(unknown)}; known: {', '.join(SECTIONS)}")
    pythons = sys.executable, arguments.peer_python
    print_heading("Data of real size", "`python benchmarks/real_data.py`, measured", pythons)
    for name in arguments.sections or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n## {name.capitalize()}\n", flush=True)
            SECTIONS[name](Path(folder), arguments.peer_python)


def table(heading: str, rows: Iterator[Row]) -> None:
    columns = heading.split(" | ")
    print(f"| {heading} |\n|{'---|' * len(columns)}", flush=True)
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def in_turn(contenders: dict[str, tuple[str, ...]], peer_python: str) -> dict[str, dict[str, float]]:
    """The medians of what each contender measures, in rounds; torch's by the peer's Python.

    Args:
        contenders: the words after --measure, by the name of the contender.
        peer_python: for contenders whose measure is torchvision's; left out where it is missing.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for name, words in contenders.items():
            python = peer_python if words[0].startswith("torch") else sys.executable
            command = [python, __file__, "--measure", *words]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                found.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
            elif "ModuleNotFoundError" not in done.stderr:
                raise SystemExit(done.stderr)
    return {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }


def listing(folder: Path, peer_python: str) -> None:
    """Until the sources of 105,000 files are there."""
    write_classes(folder, LISTED, (100, 75))
    contenders = {"jaxnets": ("list", str(folder)), "torchvision": ("torch_list", str(folder))}
    found = in_turn(contenders, peer_python)
    count = f"{CLASSES * sum(LISTED.values()):,}"
    table("files | contender | seconds", ((count, n, f"{m['seconds']:.2f}") for n, m in found.items()))


def list_ours(folder: str) -> dict[str, float]:
    from jaxnets import data

    data.load("digits")  # imports what loading needs
    return timed(lambda: data.load(f"folder:{folder}"))


def list_torchvision(folder: str) -> dict[str, float]:
    from torchvision.datasets import ImageFolder

    return timed(lambda: [ImageFolder(f"{folder}/{split}") for split in LISTED])


def channel_statistics(folder: Path, peer_python: str) -> None:
    """Mean and standard deviation, as `jaxnets train` needs them before its first step."""
    write_classes(folder, LISTED, (100, 75))
    found = in_turn({"jaxnets": ("statistics", str(folder))}, peer_python)
    count = f"{CLASSES * LISTED['train']:,}"
    table("images of 100 x 75 | seconds", ((count, f"{m['seconds']:.2f}") for m in found.values()))


def statistics_ours(folder: str) -> dict[str, float]:
    from jaxnets import data

    data.channel_statistics(data.load("digits").test)
    source = data.load(f"folder:{folder}").train
    return timed(lambda: data.channel_statistics(source))


def photograph(folder: Path, peer_python: str) -> None:
    """A photograph of 12 megapixels to 224 x 224."""
    path = folder / "photograph.jpg"
    write_photograph(path)
    names = {"jaxnets": "ours", "draft": "draft", "full decode": "full"}
    contenders = {name: ("decode", str(path), way) for name, way in names.items()}
    found = in_turn(contenders, peer_python)
    scaled = found["draft"]["seconds"]
    rows = ((n, f"{m['seconds'] * 1e3:.1f}", f"{m['seconds'] / scaled:.2f}") for n, m in found.items())
    table("decoding | ms | of draft", rows)


def decode(path: str, way: str) -> dict[str, float]:
    """The median of one way to decode: ours, the decoder's own scaling as far as it goes, or neither."""
    from PIL import Image, ImageOps

    from jaxnets.data import decoding

    def plain(scaled: bool) -> np.ndarray:
        with Image.open(path) as image:
            if scaled:
                image.draft("RGB", (SIDE, SIDE))
            return np.asarray(ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BILINEAR))

    ways = {
        "ours": partial(decoding.decode, path, SIDE, 3),
        "draft": partial(plain, scaled=True),
        "full": partial(plain, scaled=False),
    }
    taken = [timed(ways[way])["seconds"] for _ in range(10)]
    return {"seconds": statistics.median(taken)}


def epochs(folder: Path, peer_python: str) -> None:
    """Files of 500 x 375, and the same prepared at 256 pixels, as shuffled batches of 224 x 224."""
    from jaxnets.data.preparing import prepare

    rows = []
    for quality in (90, 97):
        pictures, records = folder / f"pictures{quality}", folder / f"records{quality}"
        write_files(pictures, EPOCH, quality)
        begin = time.perf_counter()
        prepare(f"folder:{pictures}", records, size=256)
        prepared = EPOCH / (time.perf_counter() - begin)
        prepare(f"folder:{pictures}", f"{records}-{SIDE}", size=SIDE)
        sizes = [path.stat().st_size for path in pictures.glob("train/*/*")]
        contenders = {
            "jaxnets, folder:": ("batches", f"folder:{pictures}"),
            "jaxnets, records: of 256": ("batches", f"records:{records}"),
            f"jaxnets, records: of {SIDE}": ("batches", f"records:{records}-{SIDE}"),
            f"torch, {WORKERS} workers": ("torch_batches", str(pictures)),
        }
        found = in_turn(contenders, peer_python)
        slow = found["jaxnets, folder:"]
        for name, measured in found.items():
            wall, work = (measured[key] / slow[key] for key in ("rate", "rate_of_work"))
            numbers = (
                f"{measured['rate']:,.0f}",
                f"{wall:.2f}",
                f"{measured['rate_of_work']:,.0f}",
                f"{work:.2f}",
            )
            rows.append((f"{np.mean(sizes) / 1e3:.0f} kB", name, *numbers))
        rows.append(
            (f"{np.mean(sizes) / 1e3:.0f} kB", "`jaxnets prepare`", f"{prepared:,.0f}", "", "", "")
        )
    heading = "mean file | reader | images/s | of folder: | images/s of processor time | of folder:"
    table(heading, iter(rows))


def batches_ours(spec: str) -> dict[str, float]:
    from jaxnets import data

    source = data.load(spec, size=SIDE).train
    batches = data.train_batches(source, BATCH_SIZE, seed=0)
    return rate(batch["image"] for batch in batches)


def batches_torch(folder: str) -> dict[str, float]:
    return rate(torch_batches(folder, WORKERS))


def rate(batches: Iterator[np.ndarray]) -> dict[str, float]:
    """Images a second by the clock and by the processors' time, after the first batch."""
    next(batches)
    begin, work, count = time.perf_counter(), processor_seconds(), 0
    for images in itertools.islice(batches, 2 * EPOCH // BATCH_SIZE):
        count += len(images)
    taken, worked = time.perf_counter() - begin, processor_seconds() - work
    return {"rate": count / taken, "rate_of_work": count / worked}


def start(folder: Path, peer_python: str) -> None:
    """Until the first step on as many files as ImageNet has: links to a hundred tiny JPEGs."""
    write_classes(folder, IMAGENET, (64, 48), links=True)
    contenders = {"jaxnets": ("start", str(folder)), "torch": ("torch_start", str(folder))}
    found = in_turn(contenders, peer_python)
    keys = "listed", "batch", "step"
    rows = (
        (name, *(f"{m[key]:.1f}" for key in keys), f"{m['imports']:,.0f}", f"{m['peak']:,.0f}")
        for name, m in found.items()
    )
    heading = "contender | listed, s | first batch, s | first step, s | MiB after imports | peak MiB"
    table(heading, rows)


def start_ours(folder: str) -> dict[str, float]:
    """What `jaxnets train` does: listing, statistics, batches, LeNet-5."""
    import jax

    import jaxnets
    from jaxnets import data
    from jaxnets.training import DataParallel, create_optimizer, create_state, make_train_step

    parallel = DataParallel.create()
    clock = Clock()
    dataset = data.load(f"folder:{folder}", size=32)
    clock.stop("listed")
    mean, std = data.channel_statistics(dataset.train)
    batches = data.train_batches(dataset.train, 256, seed=0)
    first = next(batches)
    batch = jax.block_until_ready(parallel.put(first))
    clock.stop("batch")
    model = jaxnets.create_model("lenet5", num_classes=dataset.num_classes)
    task = jaxnets.Classification(model, tuple(mean.tolist()), tuple(std.tolist()))
    optimizer = create_optimizer("momentum", 0.01)
    state = parallel.replicate(create_state(task, optimizer, jax.random.key(0), first))
    step = parallel.compile_train_step(make_train_step(task, optimizer))
    jax.block_until_ready(step(state, batch))
    clock.stop("step")
    batches.close()
    return clock.found()


def start_torch(folder: str) -> dict[str, float]:
    """ImageFolder, DataLoader, and a step of the same size."""
    import torch

    torchvision = import_torchvision()
    transforms = torchvision.transforms
    clock = Clock()
    fit = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor()])
    files = [torchvision.datasets.ImageFolder(f"{folder}/{split}", fit) for split in IMAGENET]
    clock.stop("listed")
    loader = torch.utils.data.DataLoader(files[0], 256, shuffle=True, num_workers=WORKERS)
    images, labels = next(iter(loader))
    clock.stop("batch")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 5, padding=2), torch.nn.Tanh(), torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(6, 16, 5), torch.nn.Tanh(), torch.nn.AvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(576, 120), torch.nn.Tanh(), torch.nn.Linear(120, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    clock.stop("step")
    return clock.found()


class Clock:
    """Seconds since it was made, and the peak of memory, of this process and its workers."""

    def __init__(self):
        self._begin = time.perf_counter()
        self._found = {"imports": peak_memory()}

    def stop(self, name: str) -> None:
        self._found[name] = time.perf_counter() - self._begin

    def found(self) -> dict[str, float]:
        return {**self._found, "peak": peak_memory()}


def peak_memory() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def processor_seconds() -> float:
    """Of this process and its living children, of all cores."""
    own = Path("/proc/self/task").glob("*/children")
    children = [pid for path in own for pid in path.read_text().split()]
    ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in children]
    worked = sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")
    return time.process_time() + worked


def timed(function: Callable[[], Any]) -> dict[str, float]:
    begin = time.perf_counter()
    function()
    return {"seconds": time.perf_counter() - begin}


def write_classes(
    folder: Path, images: dict[str, int], size: tuple[int, int], links: bool = False
) -> None:
    """JPEG files in class folders of some splits: copies of, or links to, a hundred different ones."""
    from PIL import Image

    rng = np.random.default_rng(0)
    home = folder / ".originals"
    home.mkdir()
    originals = []
    for k in range(100):
        pixels = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        originals.append(home / f"{k}.jpg")
        pixels.resize(size, Image.Resampling.BICUBIC).save(originals[-1], quality=90)
    contents = [original.read_bytes() for original in originals]
    numbers = itertools.count()
    for split, count in images.items():
        for k in range(CLASSES):
            place = folder / split / f"n{k:08}"
            place.mkdir(parents=True)
            for number in itertools.islice(numbers, count):
                path = f"{place}/{number:08}.JPEG"
                if links:
                    os.link(originals[number % 100], path)
                else:
                    Path(path).write_bytes(contents[number % 100])


def write_photograph(path: Path) -> None:
    """One of scikit-learn's photographs, enlarged, with the noise of a sensor."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photo = Image.fromarray(load_sample_images().images[0]).resize(PHOTOGRAPH, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 4, (PHOTOGRAPH[1], PHOTOGRAPH[0], 1))
    pixels = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=92)


SECTIONS: dict[str, Callable[[Path, str], None]] = {
    "listing": listing,
    "statistics": channel_statistics,
    "photograph": photograph,
    "epochs": epochs,
    "start": start,
}
MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "list": list_ours,
    "torch_list": list_torchvision,
    "statistics": statistics_ours,
    "decode": decode,
    "batches": batches_ours,
    "torch_batches": batches_torch,
    "start": start_ours,
    "torch_start": start_torch,
}

if __name__ == "__main__":
    main()
