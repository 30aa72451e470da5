"""Convolutions on either side of the thresholds in `jaxnets.layers.choices`, each in two or more forms.

Command: python benchmarks/thresholds.py
Prints the processor milliseconds of the forward pass and of both gradients, on one core: medians of
rounds in which the forms take turns; and of the first call, which compiles, the seconds. The comments in
`jaxnets.layers.choices` quote them.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")
os.environ["JAX_PLATFORMS"] = "cpu"

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

import jax
from heading import print_heading

from jaxnets.layers import cpu_forms
from jaxnets.layers.choices import Window
from jaxnets.layers.cpu_plain_conv import conv_of_neighbors, quick_conv

Case = tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Callable]]
ROUNDS = 5


def main() -> None:
    print_heading("Convolutions on either side of a threshold", f"Processor ms, medians of {ROUNDS}")
    for name, image, kernel, forms in (*many_taps(), *merged_groups(), *few_pixels()):
        keys = jax.random.split(jax.random.key(0), 2)
        operands = jax.random.normal(keys[0], image), jax.random.normal(keys[1], kernel)
        runs = {form: gradients(run) for form, run in forms.items()}
        taken = {form: [] for form in runs}
        for _ in range(ROUNDS + 1):
            for form, run in runs.items():
                start = time.process_time()
                jax.block_until_ready(run(*operands))
                taken[form].append(time.process_time() - start)
        found = (
            f"{form} {statistics.median(times) * 1e3:.3g} (first {first:.2f} s)"
            for form, (first, *times) in taken.items()
        )
        print(f"{name}: {', '.join(found)}", flush=True)


def gradients(form: Callable) -> Callable:
    """The output and the gradients of half the sum of its squares."""

    def run(image, kernel):
        y, pull = jax.vjp(form, image, kernel)
        return y, pull(y)

    return jax.jit(run)


def instead(choice: str, made: Callable, form: Callable) -> Callable:
    """The form, with another choice made in it."""

    def run(image, kernel):
        with mock.patch.object(cpu_forms, choice, made):
            return form(image, kernel)

    return run


def many_taps() -> Iterator[Case]:
    """Maps smaller than the window: one matrix product of neighbors, or XLA's own convolution."""
    for size, stride, side, channels, out in (
        (3, 1, 2, 512, 512), (5, 1, 4, 256, 256), (7, 1, 4, 128, 128), (11, 4, 32, 3, 96),
        (16, 16, 224, 3, 768),
    ):  # fmt: skip
        pad = size // 2 if stride == 1 else 0
        window = Window((stride, stride), ((pad, pad), (pad, pad)), (1, 1))
        forms = {
            "neighbors": partial(conv_of_neighbors, window=window),
            "XLA": partial(quick_conv, window=window),
        }
        name = f"{size}x{size}, stride {stride}, {side} x {side}, {channels} to {out}"
        yield name, (8, side, side, channels), (size, size, channels, out), forms


def merged_groups() -> Iterator[Case]:
    """Grouped convolutions: how many groups share a plain one."""
    window = Window((1, 1), ((1, 1), (1, 1)), (1, 1))
    for side, channels, groups in ((56, 4, 32), (28, 8, 32), (14, 16, 32), (7, 32, 32)):
        form = partial(cpu_forms.merged_grouped_conv, window=window, groups=groups)
        forms = {
            f"{merged} merged": instead("groups_to_merge", lambda *_, merged=merged: merged, form)
            for merged in (1, 2, 4, 8, 16, 32)
        }
        name = f"3x3 of {groups} groups of {channels} channels, {side} x {side}"
        yield name, (8, side, side, groups * channels), (3, 3, channels, groups * channels), forms


def few_pixels() -> Iterator[Case]:
    """Transposed convolutions: XLA's own forward, or by whole strides."""
    cuts = ((1, 1), (1, 1))
    for images, side, channels, out in (
        (1, 8, 512, 256), (8, 4, 1024, 512), (8, 8, 512, 256), (4, 16, 256, 128), (8, 16, 256, 128),
        (8, 28, 256, 128),
    ):  # fmt: skip
        form = partial(cpu_forms.quick_conv_transpose, strides=(2, 2), cuts=cuts)
        forms = {
            label: instead("has_few_pixels", lambda *_, few=few: few, form)
            for label, few in (("XLA", True), ("whole strides", False))
        }
        name = f"transposed 4x4, stride 2, {images} images, {side} x {side}, {channels} to {out}"
        yield name, (images, side, side, channels), (4, 4, channels, out), forms


if __name__ == "__main__":
    main()
