"""Makes data/augmentation.npz: what torchvision's operations and policies of augmentation answer.

`python make_augmentation_goldens.py`, with torch 2.14.1 and torchvision 0.29.1 from pip. One picture of
uint8, and one gray; every operation at the strengths of the policies, single and in pairs, and the
strengths of every policy in each bin. See `tests/data/test_policies.py`.
"""

from pathlib import Path

import numpy as np
import torch
import torchvision
from augmented import HEIGHT, MOVING, SIGMAS, STRENGTHS, WIDTH, picture
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

DATA = Path(__file__).parent / "data"

NAMES = {
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize",
    "autocontrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip
"""Ours and torchvision's."""

POLICIES = {
    "randaugment": v2.RandAugment(),
    "trivialaugment": v2.TrivialAugmentWide(),
    "augmix": v2.AugMix(),
}
PAIRS = 24  # of operations in a row


def applied(
    image: torch.Tensor, name: str, strength: float, interpolation: str = "nearest"
) -> torch.Tensor:
    """The image after one operation, as a policy applies it."""
    policy, mode = POLICIES["randaugment"], InterpolationMode(interpolation)
    return policy._apply_image_or_video_transform(image, NAMES[name], strength, mode, policy._fill)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def table(policy: v2.Transform) -> np.ndarray:
    """Strengths f64[operations, bins]; 0 where there are none, NaN where the operation is not in it."""
    bins = getattr(policy, "num_magnitude_bins", None) or policy._PARAMETER_MAX
    rows = []
    for name in NAMES.values():
        of, _ = policy._AUGMENTATION_SPACE.get(name, (lambda *_: torch.full((bins,), torch.nan), False))
        found = of(bins, HEIGHT, WIDTH)
        rows.append(torch.zeros(bins) if found is None else found.double())
    return torch.stack([row.double() for row in rows]).numpy()


def main() -> None:
    torch.set_num_threads(1)
    versions = (torch.__version__, torchvision.__version__)
    golden = {"reference": " ".join(own.partition("+")[0] for own in versions)}
    for channels in (3, 1):
        image = tensor(picture(channels))
        for k, (name, strength) in enumerate(STRENGTHS):
            golden[f"{channels} {k}"] = array(applied(image, name, strength))
    image = tensor(picture(3))
    for k, (name, strength) in enumerate(STRENGTHS):
        if name in MOVING:
            golden[f"bilinear {k}"] = array(applied(image, name, strength, "bilinear"))
    rng = np.random.default_rng(0)
    pairs = golden["pairs"] = rng.integers(0, len(STRENGTHS), (PAIRS, 2))
    for k, pair in enumerate(pairs):
        both = image
        for own in pair:
            both = applied(both, *STRENGTHS[own])
        golden[f"pair {k}"] = array(both)
    for name, policy in POLICIES.items():
        golden[name] = table(policy)
    for k, sigma in enumerate(SIGMAS):
        golden[f"blur {k}"] = array(functional.gaussian_blur(image, [13, 13], [sigma, sigma]))
    golden["invert"] = array(functional.invert(image))
    corners = [[3, 2], [WIDTH - 6, 5], [WIDTH - 2, HEIGHT - 4], [7, HEIGHT - 1]]
    whole = [[0, 0], [WIDTH - 1, 0], [WIDTH - 1, HEIGHT - 1], [0, HEIGHT - 1]]
    golden["corners"] = np.array(corners)
    golden["perspective"] = array(
        functional.perspective(image, whole, corners, InterpolationMode.BILINEAR)
    )
    np.savez_compressed(DATA / "augmentation.npz", **golden)
    print(f"{(DATA / 'augmentation.npz').stat().st_size / 1e3:.0f} KB")


if __name__ == "__main__":
    main()
