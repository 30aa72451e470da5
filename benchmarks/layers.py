"""Single layers, forward and backward: XLA's own operation beside the form that CPUs are given.

Command: python benchmarks/layers.py [--batch-size 8] [--precision float32]
Prints the table that is kept in benchmarks/README.md. The choices in `jaxnets.layers.choices` rest
on it: run it on an accelerator to see whether XLA's own operation is rightly
kept there. The two take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import flax.linen as nn
import jax
from heading import print_heading
from jax import lax

from jaxnets.layers import cpu_forms
from jaxnets.layers.choices import Window
from jaxnets.layers.cpu_plain_conv import NHWC, conv_as_matmul, conv_of_taps, quick_conv

Layer = tuple[str, tuple[int, ...], tuple[int, ...] | None, Callable, Callable]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="of either in each round")
    parser.add_argument("--layers", default="", help="only those in whose name this stands")
    arguments = parser.parse_args()
    about = f"batch of {arguments.batch_size}, {arguments.precision}"
    print_heading(
        f"Single layers, forward and backward, {about}", f"Measured, medians of {arguments.rounds}"
    )
    print("\n| layer | XLA's own, ms | CPU form, ms | XLA's own / CPU form |")
    print("|---|---|---|---|")
    for name, image, kernel, native, form in layers():
        if arguments.layers not in name:
            continue
        shapes = [(arguments.batch_size, *image)] + [kernel] * (kernel is not None)
        keys = jax.random.split(jax.random.key(0), 2)
        operands = [
            jax.random.normal(key, s, arguments.precision) for key, s in zip(keys, shapes, strict=False)
        ]
        runs = {"native": gradients(native), "form": gradients(in_branch(form))}
        taken = {which: [] for which in runs}
        for round_ in range(arguments.rounds + 1):
            for which, run in runs.items():
                start = time.perf_counter()
                for _ in range(arguments.steps):
                    found = run(*operands)
                jax.block_until_ready(found)
                if round_ > 0:  # the first one compiles
                    taken[which].append((time.perf_counter() - start) / arguments.steps * 1e3)
        a, b = (statistics.median(taken[which]) for which in runs)
        print(f"| {name} | {a:.3g} | {b:.3g} | {a / b:.2f} |", flush=True)


def gradients(layer: Callable) -> Callable:
    """The layer's output and the gradients of half the sum of its squares."""

    def run(*operands):
        y, pull = jax.vjp(layer, *operands)
        return y, pull(y)

    return jax.jit(run)


def in_branch(form: Callable) -> Callable:
    """The form in a branch for a platform, where `lowering` has it: XLA treats it otherwise there."""
    return partial(lax.platform_dependent, cpu=form, default=form)


def in_loop(layer: Callable) -> Callable:
    """The layer of half a batch and then of the other."""
    return lambda x, kernel: lax.map(lambda x: layer(x, kernel), x.reshape(2, -1, *x.shape[1:]))


def layers() -> Iterator[Layer]:
    """Name, image [H, W, C], kernel [F, F, in / groups, out] if it has one, XLA's own, CPU form."""
    for side, channels, out in ((56, 64, 256), (7, 512, 2048)):
        shapes = (side, side, channels), (1, 1, channels, out)
        window = Window((1, 1), ((0, 0), (0, 0)), (1, 1))
        form = partial(conv_as_matmul, strides=window.strides)
        yield f"1x1, {side} x {side}, {channels} to {out}", *shapes, native_conv(window, 1), form
    for size, stride, side, channels, out in (
        (3, 1, 224, 64, 64), (3, 1, 56, 64, 64), (3, 1, 14, 512, 512), (3, 2, 56, 128, 128),
        (7, 2, 224, 3, 64),
    ):  # fmt: skip
        shapes = (side, side, channels), (size, size, channels, out)
        window = Window((stride, stride), ((size // 2, size // 2),) * 2, (1, 1))
        name = f"{size}x{size}, stride {stride}, {side} x {side}, {channels} to {out}"
        native, form = native_conv(window, 1), partial(quick_conv, window=window)
        yield name, *shapes, native, form
        if side == 14:
            yield f"{name}, in a loop", *shapes, in_loop(native), in_loop(form)
    for side, rate, channels, out in ((65, 12, 2048, 256), (65, 36, 2048, 256), (33, 12, 2048, 256)):
        shapes = (side, side, channels), (3, 3, channels, out)
        window = Window((1, 1), ((rate, rate),) * 2, (rate, rate))
        name = f"3x3, rate {rate}, {side} x {side}, {channels} to {out}"
        yield name, *shapes, native_conv(window, 1), partial(conv_of_taps, window=window)
    for side, channels, stride in ((56, 144, 1), (112, 96, 2), (14, 384, 1), (7, 960, 1)):
        shapes = (side, side, channels), (3, 3, 1, channels)
        window = Window((stride, stride), ((1, 1), (1, 1)), (1, 1))
        name = f"depthwise 3x3, stride {stride}, {side} x {side}, {channels}"
        form = partial(cpu_forms.depthwise_conv, window=window)
        yield name, *shapes, native_conv(window, channels), form
    for side, channels in ((56, 128), (14, 512)):
        shapes = (side, side, channels), (3, 3, channels // 32, channels)
        window = Window((1, 1), ((1, 1), (1, 1)), (1, 1))
        name = f"3x3 of 32 groups, {side} x {side}, {channels}"
        form = partial(cpu_forms.merged_grouped_conv, window=window, groups=32)
        yield name, *shapes, native_conv(window, 32), form
    cut = {"strides": (2, 2), "cuts": ((1, 1), (1, 1))}
    spread = {"strides": (2, 2), "padding": ((2, 2), (2, 2)), "dimension_numbers": NHWC}
    yield (
        "transposed 4x4, stride 2, 28 x 28, 256 to 128", (28, 28, 256), (4, 4, 256, 128),
        partial(lax.conv_transpose, **spread), partial(cpu_forms.quick_conv_transpose, **cut),
    )  # fmt: skip
    for size, stride, pad, side, channels in (
        (3, 2, 1, 112, 64),
        (2, 2, 0, 112, 64),
        (3, 1, 1, 28, 192),
    ):
        window, strides, pads = (size, size), (stride, stride), ((pad, pad), (pad, pad))
        yield (
            f"max pool {size}x{size}, stride {stride}, {side} x {side}, {channels}",
            (side, side, channels), None,
            partial(nn.max_pool, window_shape=window, strides=strides, padding=pads),
            partial(cpu_forms.max_of_slices, window=window, strides=strides, pads=pads),
        )  # fmt: skip


def native_conv(window: Window, groups: int) -> Callable:
    """XLA's own convolution."""
    return partial(
        lax.conv_general_dilated,
        window_strides=window.strides,
        padding=window.pads,
        rhs_dilation=window.dilation,
        dimension_numbers=NHWC,
        feature_group_count=groups,
    )


if __name__ == "__main__":
    main()
