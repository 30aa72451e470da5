"""Writes what the references make of two JPEG files: `python make_preprocessing.py`.

The pictures (drawn here, with edges, fine stripes and noise, which tell one filter from another) go to
`data/tall.jpg` and `data/wide.jpg`. Each set of sizes and filters of the public weights has the images
that torchvision's and timm's own transforms make of them, as 8-bit pixels' sketches, and the
probabilities of a torchvision ResNet-18 with weights by the rule of `draw.py`. It needs what README.md
says.
"""

from pathlib import Path

import draw
import numpy as np
import torch
from PIL import Image
from references import PREPROCESSED

DATA = Path(__file__).parent / "data"


def picture(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    stripes = 40 * np.sin(x * x / 300) + 40 * np.sin(y * y / 500)
    disc = 90 * (np.hypot(y - height / 3, x - width / 2) < height / 5)
    channels = [120 + stripes, 90 + disc + stripes / 2, 60 + 120 * (x > width / 3)]
    image = np.stack(channels, axis=2) + draw.uniform("noise", (height, width, 3), -25, 25)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def transform(library: str, about: dict):
    """The reference's own."""
    from torchvision_without_ops import torchvision

    if library == "torchvision":
        from torchvision.transforms._presets import ImageClassification

        return ImageClassification(
            crop_size=about["size"],
            resize_size=about["resize"],
            interpolation=torchvision.transforms.InterpolationMode(about["interpolation"]),
        )
    import timm

    return timm.data.create_transform(
        (3, about["size"], about["size"]),
        crop_pct=about["crop"],
        interpolation=about["interpolation"],
        mean=about["mean"],
        std=about["std"],
    )


def main() -> None:
    from torchvision_without_ops import torchvision

    model = torchvision.models.resnet18(weights=None)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    drawn = draw.state_dict(shapes, "layer*.bn2.weight")
    model.load_state_dict({name: torch.from_numpy(value) for name, value in drawn.items()})
    model = model.double().eval()
    golden = {}
    for name, (height, width) in {"tall": (500, 333), "wide": (270, 480)}.items():
        picture(height, width).save(DATA / f"{name}.jpg", quality=92)
        with Image.open(DATA / f"{name}.jpg") as file:
            image = file.convert("RGB")
        for case, (library, about) in PREPROCESSED.items():
            made = transform(library, about)(image)
            with torch.inference_mode():
                probabilities = model(made[None].double()).softmax(1)[0]
            golden[f"{name} {case} image"] = draw.sketch({case: made.numpy()})
            golden[f"{name} {case} probabilities"] = probabilities.numpy().astype(np.float32)
            print(name, case, tuple(made.shape), f"top {probabilities.topk(5).values.numpy().round(4)}")
    np.savez_compressed(DATA / "preprocessing.npz", **golden)


if __name__ == "__main__":
    main()
