"""Makes the rows of `segmenters_refinenet.py`: what the published RefineNets answer.

`python make_segmenter_refinenet_goldens.py REFINENET LIGHT [NAME ...]`, with torch 2.14.1 from pip, and
the folders of github.com/DrSleep/refinenet-pytorch (commit 8f25c07) and
github.com/DrSleep/light-weight-refinenet (commit 538fe8b). All is computed in float64. Names with
`train_` before them are those of `TRAINED`.

Their networks end at a quarter of the size. The scores are enlarged as in the training program of the
second (src/train.py), which is without aligned corners, unlike the enlarging within.
"""

import importlib
import sys
import time

import draw
import numpy as np
import segmenters
import torch
import torch.nn.functional as F  # noqa: N812
from make_segmenter_goldens import as_input, written
from rows import asked
from segmenters_refinenet import DEPTHS, SEGMENTERS, TRAINED, drawn
from torch import nn

REFERENCE = {
    False: "DrSleep/refinenet-pytorch 8f25c07",
    True: "DrSleep/light-weight-refinenet 538fe8b",
}


def built(name: str, folders: tuple[str, str]) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    """The reference with its drawn weights, and the shapes of its tensors."""
    light = "_lw_" in name
    for module in [m for m in sys.modules if m.partition(".")[0] in ("models", "utils")]:
        del sys.modules[module]  # both programs have modules of these names
    sys.path.insert(0, folders[light])
    program = importlib.import_module("models.resnet")
    sys.path.pop(0)
    kind = program.ResNetLW if light else program.RefineNet
    depths = DEPTHS[name.rpartition("_")[2].removeprefix("resnet")]
    model = kind(program.Bottleneck, list(depths), num_classes=21)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    state = drawn(shapes)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return model.double(), shapes


def evaluated(name: str, folders: tuple[str, str]) -> dict[str, np.ndarray]:
    model, shapes = built(name, folders)
    row = SEGMENTERS[name]
    with torch.inference_mode():
        scores = model.eval()(as_input(segmenters.images(row.size, row.count)))
        scores = F.interpolate(scores, row.size, mode="bilinear", align_corners=False)
    return {
        "reference": REFERENCE["_lw_" in name],
        "tensors": segmenters.tensors_text(shapes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **segmenters.kept("logits", scores.permute(0, 2, 3, 1).numpy()),
    }


def trained(name: str, folders: tuple[str, str]) -> dict[str, np.ndarray]:
    """Loss, gradients and changed statistics in training, without dropout."""
    model, shapes = built(name, folders)
    model.train()
    model.do.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    size = segmenters.TRAINED_SIZE
    scores = model(as_input(segmenters.images(size)))
    scores = F.interpolate(scores, size, mode="bilinear", align_corners=False)
    labels = torch.from_numpy(segmenters.labels())
    loss = F.cross_entropy(scores, labels, ignore_index=segmenters.IGNORED)
    loss.backward()
    after = model.state_dict()
    changes = {key: (after[key] - before[key]).numpy() for key in after if "running_" in key}
    gradients = {key: parameter.grad.numpy() for key, parameter in model.named_parameters()}
    return {
        "reference": REFERENCE["_lw_" in name],
        "tensors": segmenters.tensors_text(shapes),
        "loss": np.float64(loss.item()),
        "gradients": draw.sketch(gradients),
        "changes": draw.sketch(changes),
    }


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folders = sys.argv[1], sys.argv[2]
    del sys.argv[1:3]
    rows = dict.fromkeys(SEGMENTERS, evaluated) | {f"train_{name}": trained for name in TRAINED}
    for name in asked(__doc__, "segmenters_refinenet.SEGMENTERS", rows):
        start = time.perf_counter()
        told = written(name, rows[name](name.removeprefix("train_"), folders))
        print(told, f"{time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
