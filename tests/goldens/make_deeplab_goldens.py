"""Makes data/segmenters/*.npz of the rows of `segmenters_deeplab.py`.

`python make_deeplab_goldens.py [NAME ...]`, with torch 2.14.1, timm 1.0.31 and
segmentation_models_pytorch 0.6.0 from pip. U-Net and DeepLab v3+ on ResNet-50 are those of the last; the
others have no program that can be installed, so `deeplab_reference.py` has them. Names with `train_`
before them are those of `TRAINED`.
"""

import time

import draw
import numpy as np
import segmentation_models_pytorch as smp
import segmenters
import torch
from deeplab_reference import DeepLabV2ResNet, DeepLabV2VGG, DeepLabV3Plus
from make_segmenter_goldens import as_input, written
from rows import asked
from segmenters_deeplab import SEGMENTERS, TRAINED
from torch import nn
from torch.nn.functional import cross_entropy


def _unet() -> nn.Module:
    model = smp.Unet("resnet34", encoder_weights=None, classes=21)
    model.requires_divisible_input_shape = False
    return model


def _v3_plus(output_stride: int = 16) -> nn.Module:
    settings = {"encoder_weights": None, "encoder_output_stride": output_stride, "classes": 21}
    return smp.DeepLabV3Plus("resnet50", **settings)


RATES = (6, 12, 18, 24)
VGG16 = (2, 2, 3, 3, 3)
REFERENCES = {
    "deeplabv2_resnet101": lambda: DeepLabV2ResNet((3, 4, 23, 3), RATES, 21),
    "deeplabv2_vgg16": lambda: DeepLabV2VGG(VGG16, RATES, 21),
    "deeplabv2_vgg16_largefov": lambda: DeepLabV2VGG(VGG16, (12,), 21),
    "deeplabv3plus_resnet50": _v3_plus,
    "deeplabv3plus_xception65": lambda: DeepLabV3Plus((12, 24, 36), 21),
    "unet_resnet34": _unet,
}


def built(name: str) -> tuple[nn.Module, dict[str, object]]:
    """The reference with its drawn weights, and what a golden says of it."""
    row = SEGMENTERS[name]
    model = REFERENCES[row.model](**row.overrides)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    drawn = draw.state_dict(shapes, row.quiet)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in drawn.items()})
    library = f"segmentation_models_pytorch {smp.__version__}"
    golden = {
        "reference": library if row.library == "smp" else "deeplab_reference.py",
        "tensors": segmenters.tensors_text(shapes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    return model.double(), golden


def evaluated(name: str) -> dict[str, object]:
    model, golden = built(name)
    row = SEGMENTERS[name]
    with torch.inference_mode():
        scores = model.eval()(as_input(segmenters.images(row.size, row.count)))
    return golden | segmenters.kept("logits", scores.permute(0, 2, 3, 1).numpy())


def trained(name: str) -> dict[str, object]:
    """Loss, gradients and changed statistics in training, with nothing random in it."""
    model, golden = built(name)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    size = TRAINED[name]
    scores = model(as_input(segmenters.images(size)))
    labels = torch.from_numpy(segmenters.labels(size))
    loss = cross_entropy(scores, labels, ignore_index=segmenters.IGNORED)
    loss.backward()
    after = model.state_dict()
    changes = {key: (after[key] - before[key]).numpy() for key in after if "running_" in key}
    gradients = {key: parameter.grad.numpy() for key, parameter in model.named_parameters()}
    return golden | {
        "loss": np.float64(loss.item()),
        "gradients": draw.sketch(gradients),
        "changes": draw.sketch(changes),
    }


def main() -> None:
    rows = dict.fromkeys(SEGMENTERS, evaluated) | {f"train_{name}": trained for name in TRAINED}
    for name in asked(__doc__, "segmenters_deeplab.SEGMENTERS", rows):
        start = time.perf_counter()
        told = written(name, rows[name](name.removeprefix("train_")))
        print(told, f"{time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
