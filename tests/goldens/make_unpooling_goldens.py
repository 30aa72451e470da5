"""Makes data/unpooling.npz: what torch's max_pool2d with indices and max_unpool2d answer.

`python make_unpooling_goldens.py`, with torch 2.14.1 from pip; for `tests/layers/test_unpooling.py`.
"""

from pathlib import Path

import draw
import numpy as np
import torch
from torch.nn.functional import max_pool2d, max_unpool2d

CASES = {
    "even": ((8, 12), (2, 2), (2, 2), (0, 0), False),
    "odd, ceil": ((7, 9), (2, 2), (2, 2), (0, 0), True),
    "odd, floor": ((7, 9), (2, 2), (2, 2), (0, 0), False),
    "45 x 60": ((45, 60), (2, 2), (2, 2), (0, 0), True),
    "padding": ((7, 10), (3, 3), (3, 3), (1, 1), True),
    "overlap": ((9, 8), (3, 3), (2, 2), (1, 1), False),
    "3 x 2": ((8, 9), (3, 2), (3, 2), (0, 0), True),
}
"""Size of the map, window, strides, padding and ceil_mode."""


def main() -> None:
    answers = {}
    for name, (size, window, strides, padding, ceil_mode) in CASES.items():
        x = np.round(draw.uniform(name, (2, *size, 3), -2, 2))  # with many equal values
        maxima, indices = max_pool2d(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            window,
            strides,
            padding,
            ceil_mode=ceil_mode,
            return_indices=True,
        )
        kept = {"x": x, "maxima": maxima, "indices": indices}
        if name != "overlap":
            kept["unpooled"] = max_unpool2d(maxima, indices, window, strides, padding, size)
        answers[f"{name} arguments"] = np.array([window, strides, padding, (ceil_mode, 0)], np.int8)
        for kind, value in kept.items():
            value = value if kind == "x" else value.numpy().transpose(0, 2, 3, 1)
            answers[f"{name} {kind}"] = value.astype(np.int16 if kind == "indices" else np.int8)
    np.savez_compressed(Path(__file__).parent / "data" / "unpooling.npz", **answers)


if __name__ == "__main__":
    main()
