"""Runs the references once and writes what they answer: `python make_goldens.py [NAME ...]`.

See README.md for what must be installed. Without names, every row of `references.GOLDENS` is made.
The references compute in float64, so that what is kept is the function and not its rounding (in
float32 torch's own gradients are off by up to 1e-2, where a ReLU falls on the other side of 0).
"""

import time
from pathlib import Path

import draw
import numpy as np
import shortened
import torch
from references import AUXILIARY_WEIGHT, GOLDENS, Reference
from rows import asked
from torch import nn
from torch.nn.functional import cross_entropy

DATA = Path(__file__).parent / "data"


def built(reference: Reference) -> tuple[nn.Module, str]:
    """The reference with its drawn weights, and the version of its library."""
    from torchvision_without_ops import torchvision  # the others import torchvision too

    short = None
    if hasattr(shortened, reference.constructor):
        short = getattr(shortened, reference.constructor)(**reference.options)
    if reference.library == "torchvision":
        model = short or torchvision.models.get_model(
            reference.constructor, weights=None, **reference.options
        )
        version = torchvision.__version__
    elif reference.library == "keras":
        import keras_reference

        model = keras_reference.KerasModel(reference.constructor, reference.size, reference.options)
        version = keras_reference.keras.__version__
    elif reference.library == "cadene":
        import pretrainedmodels
        import pretrainedmodels.models as cadene

        model = short or getattr(cadene, reference.constructor)(1000, pretrained=None)
        # Theirs is made for images of one size; it goes by either name.
        model.avg_pool = model.global_pool = nn.AdaptiveAvgPool2d(1)
        version = pretrainedmodels.__version__
    else:
        import timm

        model = short or timm.create_model(reference.constructor, **reference.options)
        version = timm.__version__
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    drawn = draw.state_dict(shapes, reference.quiet)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in drawn.items()})
    return model.double(), f"{reference.library} {version.partition('+')[0]}"


def trained(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    """Loss, gradients and changed statistics in training, with nothing random in it."""
    model.train()
    for module in model.modules():
        if "drop" in type(module).__name__.lower() or type(module).__name__ == "StochasticDepth":
            module.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = model(images)
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = cross_entropy(logits, labels)
    for other in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * cross_entropy(other, labels)
    loss.backward()
    changes = {
        name: (value - before[name]).numpy()
        for name, value in model.state_dict().items()
        if "running_" in name
    }
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return {
        "loss": np.float64(loss.item()),
        "gradients": draw.sketch(gradients),
        "changes": draw.sketch(changes),
    }


def make(name: str, reference: Reference) -> str:
    """Writes the golden of a row, and says how it went."""
    start = time.perf_counter()
    model, version = built(reference)
    tensors = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    images = draw.images(reference.images, reference.size)
    images = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))
    with torch.inference_mode():
        logits = model.eval()(images).numpy()
    golden = {
        "reference": version,
        "tensors": "\n".join(f"{name} {' '.join(map(str, shape))}" for name, shape in tensors.items()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "size": reference.size,
        "logits": logits.astype(np.float32),
        "bite": np.linalg.norm(logits - logits.mean(0)) / np.linalg.norm(logits - logits.mean()),
    }
    if reference.small:
        labels = torch.from_numpy(draw.labels(*logits.shape))
        golden |= trained(model, images, labels)
    np.savez_compressed(DATA / f"{name}.npz", **golden)
    return (
        f"{name:24} {version:20} {golden['parameters']:11,} parameters  {reference.size:3} px  "
        f"bite {golden['bite']:.2f}  scores {logits.std():8.2g}  {time.perf_counter() - start:5.1f} s"
    )


def main() -> None:
    for name in asked(__doc__, "references.GOLDENS", GOLDENS):
        print(make(name, GOLDENS[name]), flush=True)


if __name__ == "__main__":
    main()
