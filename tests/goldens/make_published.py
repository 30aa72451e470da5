"""Writes what the libraries say of the weights they published: `python make_published.py`.

The answer is `data/published.json`, with which `test_published.py` compares the rows of the families'
`WEIGHTS`. It needs what README.md says, and jaxnets beside it for the list of the sources. Nothing is
fetched: torchvision and timm carry these tables with them, and Cadene's collection too.
"""

import importlib
import json
from pathlib import Path

DATA = Path(__file__).parent / "data"


def torchvision_says(file: str) -> dict:
    from torchvision_without_ops import torchvision

    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            if weights.url.endswith(f"/{file}"):
                images = weights.transforms()
                return {
                    "architecture": name,
                    "top1": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
                    "resize": images.resize_size[0],
                    "size": images.crop_size[0],
                    "interpolation": images.interpolation.value,
                    "mean": images.mean,
                    "std": images.std,
                    "transform_input": name in ("googlenet", "inception_v3"),
                }
    return torchvision_says_of_a_detector(file)


def torchvision_says_of_a_detector(file: str) -> dict:
    from torchvision_without_ops import torchvision

    for name in torchvision.models.list_models(module=torchvision.models.detection):
        for weights in torchvision.models.get_model_weights(name):
            if weights.url.endswith(f"/{file}"):
                images = torchvision.models.get_model(name, weights_backbone=None).transform
                measured = weights.meta["_metrics"]["COCO-val2017"]
                names = {"box_map": "box AP", "mask_map": "mask AP"}
                return {
                    "architecture": name,
                    "claims": {names[key]: value for key, value in measured.items()},
                    "resize": images.min_size[0],
                    "longest": images.max_size,
                    "size": None,
                    "mean": images.image_mean,
                    "std": images.image_std,
                }
    raise LookupError(file)


def timm_says(source: str) -> dict:
    from torchvision_without_ops import torchvision  # noqa: F401 (timm imports it)

    timm = importlib.import_module("timm")
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        if f"hf:{config.hf_hub_id}" == source or (config.url or "").endswith(source.partition(":")[2]):
            wanted = timm.data.resolve_data_config(pretrained_cfg=config.to_dict(), use_test_size=True)
            return {
                "architecture": name.partition(".")[0],
                "size": wanted["input_size"][1],
                "crop_pct": wanted["crop_pct"],
                "interpolation": wanted["interpolation"],
                "mean": wanted["mean"],
                "std": wanted["std"],
                "license": config.license,
            }
    raise LookupError(source)


def cadene_says(file: str) -> dict:
    from torchvision_without_ops import torchvision  # noqa: F401

    for module in ("bninception", "polynet", "nasnet_mobile"):
        module = importlib.import_module(f"pretrainedmodels.models.{module}")
        for architecture, settings in module.pretrained_settings.items():
            about = settings["imagenet"]
            if about["url"].endswith(f"/{file}"):
                return {
                    "architecture": architecture,
                    "size": about["input_size"][1],
                    "order": about["input_space"],
                    "mean": [value / about["input_range"][1] for value in about["mean"]],
                    "std": [value / about["input_range"][1] for value in about["std"]],
                }
    raise LookupError(file)


def main() -> None:
    from jaxnets.models import list_models, published_weights

    say = {"torchvision": torchvision_says, "cadene": cadene_says}
    said = {}
    for name in list_models(pretrained=True):
        for row in published_weights(name):
            kind, _, file = row.source.partition(":")
            said[row.source] = say[kind](file) if kind in say else timm_says(row.source)
    (DATA / "published.json").write_text(json.dumps(said, indent=1) + "\n")
    print(f"{len(said)} sets of weights")


if __name__ == "__main__":
    main()
