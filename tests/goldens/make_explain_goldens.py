"""Makes tests/goldens/data/explain.npz: what captum answers, for tests/explain/test_captum.py.

Run with what README.md lists, and captum 0.9.0 with matplotlib, installed:

    pip install --no-deps captum==0.9.0 && pip install matplotlib packaging tqdm
    python tests/goldens/make_explain_goldens.py

Weights are drawn as for the other goldens; captum computes in float64. Of each attribution every
n-th pixel is kept, and the norm and two products with drawn vectors of the whole (`draw.sketch`).
"""

from pathlib import Path

import draw
import numpy as np
import torch
from explained import BASELINE, EXPLAINED, OCCLUDER, STEPS, STRIDE, Explained
from torch import nn
from torchvision_without_ops import torchvision

DATA = Path(__file__).parent / "data"


def built(name: str, reference: Explained) -> nn.Module:
    """The reference with its drawn weights and with ReLUs that captum's hooks can be put on."""
    if name == "vgg":
        import timm

        model = timm.create_model("vgg11", mlp_ratio=1 / 64, num_classes=10)
    else:
        resnet = torchvision.models.resnet
        model = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    drawn = draw.state_dict(shapes, reference.quiet)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in drawn.items()})
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model.double().eval()


class UpTo(nn.Module):
    """The first part of a network, with the maps of a layer for output."""

    def __init__(self, model: nn.Module, layer: str):
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        kept = []
        hook = self.model.get_submodule(self.layer).register_forward_hook(
            lambda module, inputs, output: kept.append(output)
        )
        self.model(images)
        hook.remove()
        return kept[0]


def attributions(model: nn.Module, reference: Explained) -> dict[str, np.ndarray]:
    """What each method of captum gives, channels last, by its name."""
    from captum import attr

    images = draw.images(2, reference.size).transpose(0, 3, 1, 2).astype(np.float64)
    images = torch.from_numpy(images)
    with torch.no_grad():
        scores = model(images)
        maps = UpTo(model, reference.reference_layer)(images)
    number = int(maps.flatten(2).max(2).values.min(0).values.argmax())  # a unit that both excite
    unit = maps[:, number]
    target = int(scores.min(0).values.argmax())  # a class that both images score well above 0
    found = {
        "class": np.int64(target),
        "unit": np.int64(number),
        "saliency": attr.Saliency(model).attribute(images, target=target),
        "guided_backprop": attr.GuidedBackprop(model).attribute(images, target=target),
        "integrated_gradients": attr.IntegratedGradients(model).attribute(
            images, baselines=BASELINE, target=target, n_steps=STEPS
        ),
        "occlusion": attr.Occlusion(model).attribute(
            images,
            sliding_window_shapes=(3, *OCCLUDER),
            strides=(3, *STRIDE),
            baselines=BASELINE,
            target=target,
        )[:, :1],
    }
    layer = model.get_submodule(reference.reference_layer)
    found["grad_cam"] = attr.LayerGradCam(model, layer).attribute(images, target=target)
    places = [divmod(int(best), unit.shape[2]) for best in unit.flatten(1).argmax(1)]
    found["positions"] = np.array(places)
    found["strengths"] = unit.flatten(1).max(1).values.numpy()
    found["deconvnet"] = attr.Deconvolution(UpTo(model, reference.reference_layer)).attribute(
        images, target=[(number, *place) for place in places]
    )
    return {
        name: value.detach().numpy().transpose(0, 2, 3, 1) if torch.is_tensor(value) else value
        for name, value in found.items()
    }


def main() -> None:
    golden = {}
    for name, reference in EXPLAINED.items():
        model = built(name, reference)
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        golden[f"{name}/tensors"] = "\n".join(
            f"{key} {' '.join(map(str, shape))}" for key, shape in shapes.items()
        )
        for method, values in attributions(model, reference).items():
            key = f"{name}/{method}"
            print(f"{key:40} {values.shape} {np.linalg.norm(values):.4g}")
            if values.ndim < 4:
                golden[key] = values
                continue
            step = -(-values.shape[1] // 16)
            golden[key] = values[:, ::step, ::step].astype(np.float32)
            golden[f"{key} sketch"] = draw.sketch({method: values})
    np.savez_compressed(DATA / "explain.npz", **golden)
    print(f"{(DATA / 'explain.npz').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
