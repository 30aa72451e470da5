"""How fast images come: a folder of JPEG files, beside PyTorch's DataLoader and tf.data; and who waits.

Command: python benchmarks/input_pipeline.py [--peer-python PYTHON]
PYTHON is an interpreter with torch and torchvision, and with tensorflow for tf.data; a peer that it
lacks is left out. Every reader decodes the same files of 500 x 375 pixels, scales the shorter side to
224, cuts out the middle and gives shuffled batches of 64 as uint8, in a process of its own that is
held on one core, or on all, in turn with the others. Decoding runs in the process (no workers), and in
one worker process a core.

Below that, the share of training LeNet-5 on digits, and ResNet-18 on images of CIFAR's shape, in which
the devices had nothing to do because the next batch was not there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from contenders import import_torchvision
from heading import print_heading

FILES, CLASSES, BATCH_SIZE, SIDE, ROUNDS = 512, 2, 64, 224, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--read", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        library, folder, workers, cores = arguments.read
        print(json.dumps(measure(library, folder, int(workers), int(cores))))
        return
    print_heading(
        "How fast images come",
        "`python benchmarks/input_pipeline.py`, measured",
        (sys.executable, arguments.peer_python),
    )
    print()
    all_cores = os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        print("| reader | cores | worker processes | images/s | images/s a core | ours is faster by |")
        print("|---|---|---|---|---|---|")
        for cores, workers in ((1, 0), (all_cores, 0), (all_cores, all_cores)):
            print_rates(folder, cores, workers, arguments.peer_python)
    print("\n| training | images/s | share of time that waits for data |")
    print("|---|---|---|")
    for name, epochs in (("digits", 8), ("CIFAR-shaped", 3)):
        rate, waiting = waits(name, epochs)
        print(f"| {name} | {rate:,.0f} | {waiting:.1%} |", flush=True)


def print_rates(folder: str, cores: int, workers: int, peer_python: str) -> None:
    """A row for each reader: the median of rounds in turn."""
    rates = {}
    for _ in range(ROUNDS):
        for library in READERS:
            python = sys.executable if library == "jaxnets" else peer_python
            command = [python, __file__, "--read", library, folder, str(workers), str(cores)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                rates.setdefault(library, []).append(json.loads(done.stdout.splitlines()[-1]))
            elif "ModuleNotFoundError" not in done.stderr:
                raise SystemExit(done.stderr)
    ours = statistics.median(rates["jaxnets"])
    for library, found in rates.items():
        rate = statistics.median(found)
        cells = (library, cores, workers, f"{rate:,.0f}", f"{rate / cores:,.0f}", f"{ours / rate:.2f}")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def measure(library: str, folder: str, workers: int, cores: int) -> float:
    """Images a second over an epoch after the first batch, which starts threads and processes."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    batches = iter(READERS[library](folder, workers))
    next(batches)
    start, count = time.perf_counter(), 0
    for _, batch in zip(range(FILES // BATCH_SIZE), batches, strict=False):
        count += len(batch)
    return count / (time.perf_counter() - start)


def jaxnets_batches(folder: str, workers: int) -> Iterable[np.ndarray]:
    from jaxnets import data

    source = data.load(f"folder:{folder}", size=SIDE).train
    return (batch["image"] for batch in data.train_batches(source, BATCH_SIZE, seed=0, workers=workers))


def torch_batches(folder: str, workers: int) -> Iterable[np.ndarray]:
    import torch

    torchvision = import_torchvision()
    transforms = torchvision.transforms
    fit = transforms.Compose(
        [transforms.Resize(SIDE), transforms.CenterCrop(SIDE), transforms.PILToTensor()]
    )
    files = torchvision.datasets.ImageFolder(str(Path(folder) / "train"), fit)
    loader = torch.utils.data.DataLoader(
        files,
        BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from (images for images, _ in loader)


def tf_batches(folder: str, workers: int) -> Iterable[np.ndarray]:
    """tf.data has threads, as many as it likes of the cores it is held on, and no workers."""
    import tensorflow as tf

    def read(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        scale = SIDE / tf.minimum(height, width)
        size = tf.cast(tf.round(tf.cast([height, width], tf.float64) * scale), tf.int32)
        image = tf.image.resize_with_crop_or_pad(
            tf.image.resize(image, size, antialias=True), SIDE, SIDE
        )
        return tf.cast(tf.round(image), tf.uint8)

    files = tf.data.Dataset.list_files(str(Path(folder) / "train/*/*.jpg"), shuffle=True)
    batches = files.repeat().map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH_SIZE)
    return batches.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


READERS: dict[str, Callable[[str, int], Iterable[np.ndarray]]] = {
    "jaxnets": jaxnets_batches,
    "torch": torch_batches,
    "tf.data": tf_batches,
}


def write_files(folder: Path, files: int = FILES, quality: int = 90) -> None:
    """Pieces of scikit-learn's two photographs as JPEG files of 500 x 375 pixels."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for split, count in (("train", files), ("test", 2 * CLASSES)):
        for k in range(count):
            home = folder / split / f"class{k % CLASSES}"
            home.mkdir(parents=True, exist_ok=True)
            left, top = (int(rng.integers(span)) for span in (640 - 500, 427 - 375))
            piece = photos[k % len(photos)].crop((left, top, left + 500, top + 375))
            piece.save(home / f"{k}.jpg", quality=quality)


def waits(name: str, epochs: int) -> tuple[float, float]:
    """Images a second, and the share of waiting, of the epochs of `fit` after the first."""
    import jaxnets
    from jaxnets.training import create_optimizer, fit

    if name == "digits":
        train, model = jaxnets.data.load("digits").train, jaxnets.create_model("lenet5", num_classes=10)
    else:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (640, 32, 32, 3), dtype=np.uint8)
        train = jaxnets.data.ArraySource(images, rng.integers(0, 10, 640), [str(k) for k in range(10)])
        model = jaxnets.create_model("resnet18", num_classes=10, small_input=True)
    _, history = fit(
        jaxnets.Classification(model),
        train,
        optimizer=create_optimizer("momentum", 1e-3),
        epochs=epochs,
        batch_size=64,
        stop_above=None,
        progress=False,
    )
    later = history.epochs[1:]
    rate = statistics.median(epoch["images_per_second"] for epoch in later)
    return rate, statistics.median(epoch["data_wait"] for epoch in later)


if __name__ == "__main__":
    main()
