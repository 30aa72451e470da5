"""Makes data/segmenters/*.npz: what torchvision's segmenters answer.

`python make_segmenter_goldens.py [NAME ...]`, with torch 2.14.1 and torchvision 0.29.1 from pip. All is
computed in float64, so that what is kept is the function and not its rounding. Auxiliary scores are
those of evaluation, in which batch normalization uses the running statistics: they are a function of
the weights and one picture, as the others are. Names with `train_` before them are those of `TRAINED`.
"""

import time

import draw
import numpy as np
import segmenters
import torch
import torchvision
from rows import asked
from segmenters import DATA, SEGMENTERS, TRAINED
from torch import nn
from torch.nn.functional import cross_entropy


def built(name: str) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    """The reference with its drawn weights, and the shapes of its tensors."""
    row = SEGMENTERS[name]
    auxiliary = {} if row.model.startswith("lraspp") else {"aux_loss": True}
    model = torchvision.models.get_model(
        row.model, weights=None, weights_backbone=None, num_classes=21, **auxiliary
    )
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    drawn = draw.state_dict(shapes, row.quiet)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in drawn.items()})
    return model.double(), shapes


def as_input(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))


def evaluated(name: str) -> dict[str, np.ndarray]:
    """Scores, and those of the auxiliary head."""
    model, shapes = built(name)
    row = SEGMENTERS[name]
    with torch.inference_mode():
        outputs = model.eval()(as_input(segmenters.images(row.size, row.count)))
    golden = {
        "reference": f"torchvision {torchvision.__version__.partition('+')[0]}",
        "tensors": segmenters.tensors_text(shapes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    for ours, theirs in (("logits", "out"), ("auxiliary", "aux")):
        if theirs in outputs:
            golden |= segmenters.kept(ours, outputs[theirs].permute(0, 2, 3, 1).numpy())
    return golden


def trained(name: str) -> dict[str, np.ndarray]:
    """Loss, gradients and changed statistics in training, with nothing random in it."""
    model, shapes = built(name)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    outputs = model(as_input(segmenters.images(segmenters.TRAINED_SIZE)))
    labels = torch.from_numpy(segmenters.labels())

    def entropy(scores: torch.Tensor) -> torch.Tensor:
        return cross_entropy(scores, labels, ignore_index=segmenters.IGNORED)

    loss = entropy(outputs["out"])
    if "aux" in outputs:
        loss = loss + segmenters.AUXILIARY_WEIGHT * entropy(outputs["aux"])
    loss.backward()
    after = model.state_dict()
    changes = {key: (after[key] - before[key]).numpy() for key in after if "running_" in key}
    gradients = {key: parameter.grad.numpy() for key, parameter in model.named_parameters()}
    return {
        "reference": f"torchvision {torchvision.__version__.partition('+')[0]}",
        "tensors": segmenters.tensors_text(shapes),
        "loss": np.float64(loss.item()),
        "gradients": draw.sketch(gradients),
        "changes": draw.sketch(changes),
    }


def written(name: str, golden: dict[str, np.ndarray]) -> str:
    """Writes a golden, and says what it is like."""
    DATA.mkdir(exist_ok=True)
    path = DATA / f"{name}.npz"
    np.savez_compressed(path, **golden)
    told = [f"{path.stat().st_size / 1e3:.0f} KB"]
    for key in ("logits", "auxiliary"):
        if key in golden:
            told.append(f"{key} {golden[key].std():.2g}, bite {golden[f'{key} bite']:.2f}")
    if "loss" in golden:
        told.append(f"loss {golden['loss']:.4f}")
    return "  ".join([f"{name:36}", *told])


def main() -> None:
    rows = dict.fromkeys(SEGMENTERS, evaluated) | {f"train_{name}": trained for name in TRAINED}
    for name in asked(__doc__, "segmenters.SEGMENTERS", rows):
        start = time.perf_counter()
        told = written(name, rows[name](name.removeprefix("train_")))
        print(told, f"{time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
