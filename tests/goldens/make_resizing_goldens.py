"""Makes data/resizing.npz: what torch's `interpolate` answers, and its gradients.

`python make_resizing_goldens.py`, with torch 2.14.1 from pip. Maps grow and shrink, from one position
and to one, in float32 and float64; gradients are those of float64. See `tests/layers/test_resizing.py`.
"""

from pathlib import Path

import draw
import numpy as np
import torch
from torch.nn.functional import interpolate

DATA = Path(__file__).parent / "data"

SIZES = (
    *(((1, 1), (5, 7)), ((9, 6), (1, 1)), ((1, 8), (6, 1)), ((33, 17), (65, 33))),
    *(((65, 33), (33, 17)), ((97, 13), (13, 97)), ((13, 15), (97, 40)), ((6, 7), (6, 3))),
)
"""(before, after), each (height, width)."""


def answered(before: tuple[int, int], after: tuple[int, int], align: bool, dtype: torch.dtype) -> tuple:
    """The resized maps [1, H, W, 1], and the gradient of their sum weighted by drawn numbers."""
    maps = torch.from_numpy(draw.uniform(f"maps {before}", (1, *before, 1), -1, 1)).to(dtype)
    weights = torch.from_numpy(draw.uniform(f"weights {after}", (1, *after, 1), -1, 1)).to(dtype)
    maps.requires_grad_()
    resized = interpolate(maps.permute(0, 3, 1, 2), after, mode="bilinear", align_corners=align)
    resized = resized.permute(0, 2, 3, 1)
    (resized * weights).sum().backward()
    return resized.detach().numpy(), maps.grad.numpy()


def main() -> None:
    torch.set_num_threads(1)
    golden = {"reference": f"torch {torch.__version__.partition('+')[0]}", "sizes": np.array(SIZES)}
    for i, (before, after) in enumerate(SIZES):
        for align in (False, True):
            key = f"{i} {'aligned' if align else 'borders'}"
            for dtype in (torch.float32, torch.float64):
                resized, gradient = answered(before, after, align, dtype)
                golden[f"{key} {str(dtype)[6:]}"] = resized
            golden[f"{key} gradient"] = gradient
    np.savez_compressed(DATA / "resizing.npz", **golden)
    print(f"{(DATA / 'resizing.npz').stat().st_size / 1e3:.0f} KB")


if __name__ == "__main__":
    main()
