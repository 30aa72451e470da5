"""The rule by which weights and images are drawn for the goldens, in NumPy alone.

`make_goldens.py` draws them for the reference program and the tests draw them again for ours, so
the weights themselves are kept nowhere. Everything comes from the raw bits of PCG64, seeded by the
CRC of a name: NumPy promises that these never change, which it does not of its distributions.

Weights must make a comparison bite: the scores must depend on the image, and every parameter must
show in them. So kernels are drawn by He's rule, but half of each filter's mean is taken away,
because what all images have in common is mostly the mean of the maps and would grow from layer to
layer until it drowns the rest. Residual nets also want their branches quiet (`quiet` below), or
their activations double with each block and later biases are too small to be seen beside them.
"""

import fnmatch
import math
import zlib
from collections.abc import Mapping

import numpy as np

PROBES = 2
"""On how many drawn vectors `sketch` projects a tensor."""

# A filter without half its mean passes on 0.76 of what a filter with it would, where its input went
# through a ReLU (1/pi of the power of a rectified Gaussian less than its mean square).
_HE_GAIN = 2 / 0.76


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Numbers between `low` and `high` that belong to a name, f32."""
    count = math.prod(shape)
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-count // 4))
    steps = bits.astype("<u8").view("<u2")[:count].astype(np.float32)  # 0 to 65535
    steps += np.float32(0.5)
    steps *= np.float32((high - low) / 2**16)
    steps += np.float32(low)
    return steps.reshape(shape)


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter or a statistic of the reference, by its name and shape there."""
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if len(shape) > 1:
        limit = math.sqrt(3 * _HE_GAIN / math.prod(shape[1:]))
        kernel = uniform(name, shape, -limit, limit)
        filters = kernel.reshape(shape[0], -1)
        filters -= filters.mean(axis=1, keepdims=True) / 2
        return kernel
    if leaf in ("weight", "running_var"):
        return uniform(name, shape, 0.7, 1.3)
    return uniform(name, shape, -0.05, 0.05)


def state_dict(shapes: Mapping[str, tuple[int, ...]], quiet: str = "") -> dict[str, np.ndarray]:
    """All parameters and statistics of a reference.

    Args:
        shapes: those of the tensors in the reference's state dict, by name.
        quiet: a shell's pattern of names whose tensors are drawn at 0.3 of their size: the last
            scale of each residual branch.
    """
    drawn = {name: tensor(name, shape) for name, shape in shapes.items()}
    for name in fnmatch.filter(drawn, quiet):
        drawn[name] *= np.float32(0.3)
    return drawn


def images(count: int, size: int) -> np.ndarray:
    """Colored blobs on a colored ground under noise, about -2 to 2: f32[count, size, size, 3]."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    drawn = []
    for i in range(count):
        image = np.broadcast_to(uniform(f"ground {i}", (3,), -1, 1), (size, size, 3))
        for blob in range(6):
            row, column, radius = uniform(f"place {i} {blob}", (3,), 0, 1)
            distance = np.hypot(y - row, x - column) / (0.05 + 0.25 * radius)
            color = uniform(f"colour {i} {blob}", (3,), -2, 2)  # the goldens were drawn by this name
            image = image + np.exp(-(distance**2) / 2)[:, :, None] * color
        drawn.append(image + uniform(f"noise {i}", (size, size, 3), -0.5, 0.5))
    return np.stack(drawn).astype(np.float32)


def labels(count: int, classes: int) -> np.ndarray:
    """Classes spread evenly over all there are: i64[count]."""
    return np.arange(count) * classes // count


def sketch(tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """What is kept of tensors too large to keep.

    Returns:
        f64[tensors, 1 + PROBES], in the order of their names: the norm of each, and its products
        with drawn vectors of variance 1, which for another tensor at a distance d differ by about d.
    """
    return np.array([_sketch(name, tensors[name]) for name in sorted(tensors)])


def _sketch(name: str, values: np.ndarray) -> list[float]:
    values = np.asarray(values, np.float64).reshape(-1)
    limit = math.sqrt(3)
    probes = (uniform(f"{name} {i}", values.shape, -limit, limit) for i in range(PROBES))
    return [float(np.linalg.norm(values)), *(float(values @ probe) for probe in probes)]


def assert_same_sketch(tensors: Mapping[str, np.ndarray], wanted: np.ndarray, tolerance: float) -> None:
    """Each tensor is as near to the reference's as `tolerance` of that one's norm.

    The gradient of a bias before a batch normalization is 0 but for rounding, so as large a part
    of the greatest norm stands for smaller ones.

    Args:
        tensors: ours, by their names there.
        wanted: the sketch of the reference's.
        tolerance: the largest error.
    """
    if not tensors:
        assert wanted.size == 0
        return
    norms = wanted[:, 0]
    scale = np.maximum(norms, tolerance * norms.max())
    errors = np.max(np.abs(sketch(tensors) - wanted), axis=1) / scale
    worst = np.argmax(errors)
    assert errors[worst] <= tolerance, (sorted(tensors)[worst], errors[worst])
