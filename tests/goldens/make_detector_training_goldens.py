"""Makes data/detectors/train_*.npz: losses and gradients of torchvision's detectors.

Rows are those of `detectors.TRAINED`: `python make_detector_training_goldens.py [NAME ...]`, with what
`make_detector_goldens.py` is run with.
"""

import time

import detectors
import draw
import numpy as np
import torch
import torchvision
from detectors import DATA, TRAINED, Detector
from make_detector_goldens import PROPOSALS, as_input, built, calibrated, load, shapes_of
from rows import asked
from torch import nn

torch.randperm = lambda count, **settings: torch.arange(count)  # samplers take the first


class Noted:
    """Calls a method and keeps what `chosen` makes of its arguments and answer."""

    def __init__(self, owner, name, chosen):
        self.method, self.chosen, self.kept = getattr(owner, name), chosen, None
        setattr(owner, name, self)

    def __call__(self, *args, **settings):
        answer = self.method(*args, **settings)
        self.kept = self.chosen(args, answer)
        return answer


def watched(model: nn.Module) -> dict[str, Noted]:
    """What is kept of matching and sampling, by what it is called in the golden."""

    def arrays(tensors):
        return [tensor.detach().numpy().copy() for tensor in tensors]

    if not hasattr(model, "rpn"):  # the index of the truth, -1 background, -2 ignored
        return {"matched": Noted(model.head, "compute_loss", lambda args, _: arrays(args[3]))}
    return {
        # 1 positive, 0 negative, -1 ignored
        "matched": Noted(model.rpn, "assign_targets_to_anchors", lambda _, answer: arrays(answer[0])),
        "proposals": Noted(model.rpn, "filter_proposals", lambda _, answer: arrays(answer[0])),
        "sampled": Noted(
            model.roi_heads, "select_training_samples", lambda _, answer: arrays(answer[0])
        ),
        "sampled_labels": Noted(
            model.roi_heads, "select_training_samples", lambda _, answer: arrays(answer[2])
        ),
    }


def trained(model: nn.Module, batch, notes: dict[str, Noted], dtype) -> tuple[dict, dict]:
    """Losses, and with float64 all else that is kept of a batch."""
    images = [as_input(picture).to(dtype) for picture in detectors.training_pictures()]
    targets = [
        {
            "boxes": torch.from_numpy(truth["boxes"]).to(dtype),
            "labels": torch.from_numpy(truth["labels"]),
            "masks": torch.from_numpy(truth["masks"]).to(torch.uint8),
        }
        for truth in batch
    ]
    model.zero_grad(set_to_none=True)
    losses = model.to(dtype).train()(images, targets)
    answers = {name: np.float64(loss.item()) for name, loss in losses.items()}
    if dtype == torch.float32:
        return answers, {}
    sum(losses.values()).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    kept = {"gradients": draw.sketch(gradients), "gradient_names": "\n".join(sorted(gradients))}
    for name, note in notes.items():
        for i, value in enumerate(note.kept):
            if name == "matched":
                index = np.flatnonzero(value >= (1 if hasattr(model, "rpn") else 0))
                kept[f"positive {i}"] = index.astype(np.int32)
                kept[f"truth {i}"] = value[index].astype(np.int8)
                kept[f"ignored {i}"] = np.sum(value == (-1 if hasattr(model, "rpn") else -2))
                kept[f"anchors {i}"] = len(value)
            elif name == "proposals":
                kept[f"proposals {i}"] = value[:PROPOSALS].astype(np.float32)
                kept[f"proposals_count {i}"] = len(value)
            else:
                kept[f"{name} {i}"] = value.astype(np.int8 if name.endswith("labels") else np.float32)
    return answers, kept


def make(name: str, row: Detector) -> None:
    start = time.perf_counter()
    height, width = detectors.TRAINED_SIZE
    model = built(row, min_size=height, max_size=width)
    inputs = [as_input(picture) for picture in detectors.training_pictures()]
    shapes = shapes_of(model)
    load(model, detectors.drawn(shapes, row.seed, {}))
    kept = calibrated(model, row, inputs)
    golden = {
        "reference": f"torchvision {torchvision.__version__.partition('+')[0]}",
        "tensors": "\n".join(f"{key} {' '.join(map(str, shape))}" for key, shape in shapes.items()),
        **kept,
    }
    notes = watched(model)
    for i, batch in enumerate(detectors.training_batches()):
        single, _ = trained(model, batch, notes, torch.float32)
        losses, answers = trained(model, batch, notes, torch.float64)
        load(model, detectors.drawn(shapes, row.seed, kept))
        golden |= {f"{i} loss {key}": value for key, value in losses.items()}
        golden |= {f"{i} single {key}": value for key, value in single.items()}
        golden |= {f"{i} {key}": value for key, value in answers.items()}
        print(name, i, {k: f"{v:.4g} {abs(v - single[k]):.1g}" for k, v in losses.items()})
    path = DATA / f"train_{name}.npz"
    np.savez_compressed(path, **golden)
    print(name, f"{path.stat().st_size / 1e3:.0f} KB  {time.perf_counter() - start:.1f} s", flush=True)


def main() -> None:
    for name in asked(__doc__, "detectors.TRAINED", TRAINED):
        make(name, TRAINED[name])


if __name__ == "__main__":
    main()
