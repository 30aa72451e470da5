"""Makes data/detectors/*.npz: what torchvision's detectors answer.

`python make_detector_goldens.py [NAME ...]`, with torch 2.14.1 and torchvision 0.29.1 from pip. The
answers are in float32, as everybody runs them. Printed is how near they are to being others: an answer
whose labels or order change when all after the resizing is computed in float64, or when the backbone's
maps have twice the noise of float32, is refused; another `seed` or mean of the row will do.
"""

import time
from copy import deepcopy

import detectors
import draw
import numpy as np
import torch
import torchvision
from detectors import DATA, DETECTORS, Detector
from rows import asked
from torch import nn
from torchvision.models.detection import roi_heads
from torchvision.ops import FrozenBatchNorm2d

PROPOSALS = 300
"""How many of the best proposals are kept."""


class Given(nn.Module):
    """Stands for the backbone and answers what is known already."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, images):
        return dict(self.features[tuple(images.shape[-2:])])


def frozen(module: nn.Module, epsilon: float) -> None:
    """Replaces every batch normalization inside by a frozen one."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, epsilon))
        else:
            frozen(child, epsilon)


def built(row: Detector, **settings) -> nn.Module:
    model = torchvision.models.get_model(
        row.model, weights=None, weights_backbone=None, num_classes=detectors.NUM_CLASSES, **settings
    )
    if row.epsilon is not None:
        frozen(model, row.epsilon)
    return model.eval()


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def load(model: nn.Module, state: dict[str, np.ndarray]) -> None:
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})


def as_input(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


@torch.inference_mode()
def calibrated(model: nn.Module, row: Detector, inputs: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """Scales and biases of the last layers, stage by stage; loads what is drawn with them."""
    kept, shapes = {}, shapes_of(model)
    for stage in detectors.last_layers(row):
        load_heads(model, shapes, row, kept)
        answers = {name: [] for name in stage}
        hooks = [
            model.get_submodule(name).register_forward_hook(
                lambda module, _, answer, into=answers[name]: into.append(
                    (answer - per_channel(module.bias, answer)).transpose(0, 1).flatten(1).double()
                )
            )
            for name in stage
        ]
        for image in inputs:
            model([image])
        for hook in hooks:
            hook.remove()
        for name, (mean, deviation) in stage.items():
            means = torch.stack([answer.mean(1) for answer in answers[name]]).mean(0)
            squares = torch.stack([(answer**2).mean(1) for answer in answers[name]]).mean(0)
            scale = deviation / (squares - means**2).sqrt().numpy()
            kept[f"scale {name}"] = scale.astype(np.float32)
            kept[f"bias {name}"] = (mean - means.numpy() * scale).astype(np.float32)
    load_heads(model, shapes, row, kept)
    return kept


def per_channel(bias: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    return bias.reshape(-1, *[1] * (answer.ndim - 2))


def load_heads(model, shapes, row, kept) -> None:
    """Loads all but the backbone, which may be a `Given` one."""
    names = set(shapes_of(model))
    state = detectors.drawn({n: s for n, s in shapes.items() if n in names}, row.seed, kept)
    load(model, state)


def with_maps(model: nn.Module, maps: dict) -> nn.Module:
    model.backbone = Given(maps)
    return model


def with_noise(value: torch.Tensor, seed: str) -> torch.Tensor:
    """With more noise than float32 leaves in the maps of a backbone."""
    noise = torch.from_numpy(draw.uniform(seed, tuple(value.shape), -1, 1))
    return value + 5e-6 * noise * (value.std() + abs(value))


class Watched:
    """Notes what goes through a model's parts in a call."""

    def __init__(self, model):
        self.notes = {}
        self.hooks = [model.transform.register_forward_hook(self.transformed)]
        if hasattr(model, "rpn"):
            self.hooks.append(model.rpn.register_forward_hook(self.proposed))

    def transformed(self, module, args, answer):
        self.notes["images"] = answer[0]

    def proposed(self, module, args, answer):
        self.notes["proposals"] = answer[0][0]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()


@torch.inference_mode()
def detected(model: nn.Module, image: torch.Tensor) -> dict[str, np.ndarray]:
    """What a model finds in a picture, with the masks' probabilities before they are pasted, and
    proposals and resized image."""
    raw, infer = [], roi_heads.maskrcnn_inference

    def inference(logits, labels):
        raw.append(infer(logits, labels)[0])
        return [raw[-1]]

    roi_heads.maskrcnn_inference = inference
    try:
        with Watched(model) as watched:
            (found,) = model([image])
    finally:
        roi_heads.maskrcnn_inference = infer
    found = {name: value.numpy() for name, value in found.items()}
    if raw:
        found["masks"], found["small"] = found["masks"][:, 0], raw[0][:, 0].numpy()
    if "proposals" in watched.notes:
        found["proposals"] = watched.notes["proposals"].numpy()
    found["resized"] = watched.notes["images"].tensors[0].numpy()
    found["size"] = np.array(watched.notes["images"].image_sizes[0], np.int32)
    return found


def in_double(model: nn.Module) -> nn.Module:
    """A copy in float64 that goes on from what was resized in float32."""
    copy = deepcopy(model).double()
    forward = copy.transform.forward

    def transform(images, targets=None):
        images, targets = forward(images, targets)
        images.tensors = images.tensors.double()
        return images, targets

    copy.transform.forward = transform
    return copy


@torch.inference_mode()
def maps_of(backbone: nn.Module, canvases: list[torch.Tensor]) -> dict:
    """A backbone's maps, by the sizes of the canvases, which all differ."""
    return {tuple(canvas.shape[-2:]): backbone(canvas) for canvas in canvases}


def margins(found, other) -> dict[str, float]:
    """How far apart two answers of one function are, of the same detections in the same order."""
    same = np.array_equal(found["labels"], other["labels"])
    same = same and np.max(abs(found["boxes"] - other["boxes"])) < 0.5
    if not same:
        return {"same": False, "count": len(found["labels"]), "other": len(other["labels"])}
    gaps = -np.diff(found["scores"])
    apart = {
        "same": True,
        "count": len(found["scores"]),
        "labels": len(set(found["labels"])),
        "high": found["scores"].max(),
        "low": found["scores"].min(),
        "gap": gaps.min(),
        "score": np.max(abs(found["scores"] - other["scores"])),
        "box": np.max(abs(found["boxes"] - other["boxes"])),
    }
    if "masks" in found:
        a, b = found["masks"] >= 0.5, other["masks"] >= 0.5
        apart["iou"] = np.min((a & b).sum((1, 2)) / np.maximum((a | b).sum((1, 2)), 1))
        apart["mask"] = np.max(abs(found["small"] - other["small"]))
    if "proposals" in found:
        a, b = found["proposals"], other["proposals"]
        near = np.min(np.max(abs(a[:, None] - b[None]), -1), 1) if len(a) and len(b) else np.ones(1)
        apart["strangers"] = float(np.sum(near > 0.1))
    return apart


def make(name: str, row: Detector) -> None:
    start = time.perf_counter()
    model = built(row)
    shapes = shapes_of(model)
    load(model, detectors.drawn(shapes, row.seed, {}))
    pictures = detectors.pictures()
    inputs = [as_input(picture) for picture in pictures]
    with torch.inference_mode():
        canvases = [model.transform([image])[0].tensors for image in inputs]
    backbone = model.backbone
    features = maps_of(backbone, canvases)
    print(name, "features", f"{time.perf_counter() - start:.1f} s", flush=True)
    model.backbone = Given(features)
    kept = calibrated(model, row, inputs)
    print(name, "calibrated", f"{time.perf_counter() - start:.1f} s", flush=True)
    golden = {
        "reference": f"torchvision {torchvision.__version__.partition('+')[0]}",
        "tensors": "\n".join(f"{key} {' '.join(map(str, shape))}" for key, shape in shapes.items()),
        **kept,
    }
    answers = [detected(model, image) for image in inputs]
    counts = [len(found["scores"]) for found in answers]
    print(name, counts, f"{time.perf_counter() - start:.1f} s", flush=True)
    exact = maps_of(deepcopy(backbone).double(), [canvas.double() for canvas in canvases])
    noisy = {
        shape: {key: with_noise(value, "noise") for key, value in maps.items()}
        for shape, maps in features.items()
    }
    trials = {
        "float64": with_maps(in_double(model), exact),
        "noise": with_maps(deepcopy(model), noisy),
    }
    refused = False
    for trial, other in trials.items():
        for i, image in enumerate(inputs):
            apart = margins(answers[i], detected(other, image))
            refused |= not apart["same"]
            print(name, trial, i, "  ".join(f"{k} {v:.3g}" for k, v in apart.items()), flush=True)
    if refused:
        print(name, "REFUSED", f"{time.perf_counter() - start:.1f} s")
        return
    for i, found in enumerate(answers):
        (maps,) = [m for shape, m in features.items() if shape == found["resized"].shape[-2:]]
        golden |= kept_of(i, found, maps)
    DATA.mkdir(exist_ok=True)
    np.savez_compressed(DATA / f"{name}.npz", **golden)
    size = (DATA / f"{name}.npz").stat().st_size
    print(name, f"{size / 1e3:.0f} KB", f"{time.perf_counter() - start:.1f} s", flush=True)


def kept_of(i: int, found: dict, maps: dict) -> dict[str, np.ndarray]:
    """What is kept of a picture's answer."""
    height, width = found["size"]
    resized = found["resized"][:, :height, :width].astype(np.float64)
    kept = {
        "boxes": found["boxes"].astype(np.float32),
        "scores": found["scores"].astype(np.float32),
        "labels": found["labels"].astype(np.int32),
        "size": found["size"],
        "canvas": np.array(found["resized"].shape[1:], np.int32),
        "resized": np.array([resized.mean((1, 2)), resized.std((1, 2))]),
        "maps": draw.sketch({f"level {k}": m[0].numpy() for k, m in enumerate(maps.values())}),
    }
    if "proposals" in found:
        kept["proposals"] = found["proposals"][:PROPOSALS].astype(np.float32)
        kept["proposals_count"] = len(found["proposals"])
    if "masks" in found:
        kept["masks"] = np.packbits(found["masks"] >= 0.5, axis=-1)
        kept["small"] = np.round(255 * found["small"][:8]).astype(np.uint8)
    return {f"{key} {i}": value for key, value in kept.items()}


def main() -> None:
    for name in asked(__doc__, "detectors.DETECTORS", DETECTORS):
        make(name, DETECTORS[name])


if __name__ == "__main__":
    main()
