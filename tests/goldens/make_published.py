"""Writes what the libraries say of the weights they published: `python make_published.py`.

The answer is `data/published.json`, with which `test_published.py` compares the rows of the families'
`WEIGHTS`. It needs what README.md says, and jaxnets beside it for the list of the sources. Nothing is
fetched: torchvision and timm carry these tables with them, and Cadene's collection too. Keras carries
URLs and preprocessing; what it claims is written down here.
"""

import functools
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
    return torchvision_says_of_a_segmenter(file)


def torchvision_says_of_a_segmenter(file: str) -> dict:
    from torchvision_without_ops import torchvision

    for name in torchvision.models.list_models(module=torchvision.models.segmentation):
        for weights in torchvision.models.get_model_weights(name):
            if weights.url.endswith(f"/{file}"):
                images = weights.transforms()
                measured = weights.meta["_metrics"]["COCO-val2017-VOC-labels"]
                names = {"miou": "mIoU", "pixel_acc": "pixel accuracy"}
                return {
                    "architecture": name,
                    "claims": {names[key]: value for key, value in measured.items()},
                    "resize": images.resize_size[0],
                    "size": None,
                    "interpolation": images.interpolation.value,
                    "mean": images.mean,
                    "std": images.std,
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


# What the README of the keras-applications package (1.0.8) claims: side of the images, and top-1.
KERAS_CLAIMS = {
    "VGG16": (224, 71.268),
    "VGG19": (224, 71.256),
    "ResNet50": (224, 74.928),
    "ResNet101": (224, 76.420),
    "ResNet152": (224, 76.604),
    "ResNet50V2": (299, 75.960),
    "ResNet101V2": (299, 77.234),
    "ResNet152V2": (299, 78.032),
    "InceptionV3": (299, 77.898),
    "InceptionResNetV2": (299, 80.256),
    "Xception": (299, 79.006),
    "MobileNet alpha=0.25": (224, 51.582),
    "MobileNet alpha=0.5": (224, 64.292),
    "MobileNet alpha=1.0": (224, 70.424),
    "MobileNetV2 alpha=1.0": (224, 71.336),
    "MobileNetV2 alpha=1.4": (224, 75.230),
    "DenseNet121": (224, 74.972),
    "DenseNet169": (224, 76.176),
    "DenseNet201": (224, 77.320),
    "NASNetLarge": (331, 82.498),
    "NASNetMobile": (224, 74.366),
}


class FoundError(Exception):
    """The URL of a file that Keras would have fetched."""


@functools.cache
def keras_files() -> dict[str, str]:
    """The keys of `KERAS_CLAIMS` by the URLs that Keras itself fetches."""
    import keras
    from keras.src.utils import file_utils

    def get_file(name, origin, **others):
        raise FoundError(origin)

    file_utils.get_file = get_file
    found = {}
    for key in KERAS_CLAIMS:
        name, _, alpha = key.partition(" alpha=")
        options = {"alpha": float(alpha)} if alpha else {}
        try:
            getattr(keras.applications, name)(weights="imagenet", **options)
        except FoundError as error:
            found[str(error)] = key
    return found


def keras_says(file: str) -> dict:
    import sys

    import keras
    import numpy as np

    key = next(key for url, key in keras_files().items() if url.endswith(f"/keras-applications/{file}"))
    size, top1 = KERAS_CLAIMS[key]
    architecture = key.partition(" ")[0]
    module = getattr(keras.applications, architecture).__module__
    prepare = sys.modules[module].preprocess_input
    black, white, red = (
        prepare(np.full((1, 1, 3), color, np.float64)).ravel() for color in (0, 255, (255, 0, 0))
    )
    std = 1 / (white - black)
    return {
        "architecture": architecture,
        "top1": top1,
        "size": size,
        "mean": list(-black * std),
        "std": list(std),
        "order": "RGB" if red[0] > black[0] else "BGR",
    }


# What the README of TF-Slim claims: side of the images, and top-1. The images are those of its
# `preprocessing_factory`, but for ResNet v2, of which the README says otherwise.
SLIM_CLAIMS = {
    "inception_v1_2016_08_28.tar.gz": ("inception_v1", 224, 69.8),
    "inception_v2_2016_08_28.tar.gz": ("inception_v2", 224, 73.9),
    "inception_v3_2016_08_28.tar.gz": ("inception_v3", 299, 78.0),
    "inception_v4_2016_09_09.tar.gz": ("inception_v4", 299, 80.2),
    "inception_resnet_v2_2016_08_30.tar.gz": ("inception_resnet_v2", 299, 80.4),
    "resnet_v1_50_2016_08_28.tar.gz": ("resnet_v1_50", 224, 75.2),
    "resnet_v1_101_2016_08_28.tar.gz": ("resnet_v1_101", 224, 76.4),
    "resnet_v1_152_2016_08_28.tar.gz": ("resnet_v1_152", 224, 76.8),
    "resnet_v2_50_2017_04_14.tar.gz": ("resnet_v2_50", 299, 75.6),
    "resnet_v2_101_2017_04_14.tar.gz": ("resnet_v2_101", 299, 77.0),
    "resnet_v2_152_2017_04_14.tar.gz": ("resnet_v2_152", 299, 77.8),
    "vgg_16_2016_08_28.tar.gz": ("vgg_16", 224, 71.5),
    "vgg_19_2016_08_28.tar.gz": ("vgg_19", 224, 71.1),
    "mobilenet_v1_1.0_224.tgz": ("mobilenet_v1", 224, 70.9),
    "mobilenet_v1_0.5_160.tgz": ("mobilenet_v1_050", 160, 59.1),
    "mobilenet_v1_0.25_128.tgz": ("mobilenet_v1_025", 128, 41.5),
    "mobilenet_v2_1.4_224.tgz": ("mobilenet_v2_140", 224, 74.9),
    "mobilenet_v2_1.0_224.tgz": ("mobilenet_v2", 224, 71.9),
    "nasnet-a_mobile_04_10_2017.tar.gz": ("nasnet_mobile", 224, 74.0),
    "nasnet-a_large_04_10_2017.tar.gz": ("nasnet_large", 331, 82.7),
    "pnasnet-5_large_2017_12_13.tar.gz": ("pnasnet_large", 331, 82.9),
    "pnasnet-5_mobile_2017_12_13.tar.gz": ("pnasnet_mobile", 224, 74.2),
}


def slim_says(path: str) -> dict:
    architecture, size, top1 = SLIM_CLAIMS[path.rpartition("/")[2]]
    mean, std = [0.5] * 3, [0.5] * 3
    if architecture.startswith(("vgg", "resnet_v1")):  # `vgg_preprocessing` subtracts means
        mean, std = [value / 255 for value in (123.68, 116.78, 103.94)], [1 / 255] * 3
    return {
        "architecture": architecture,
        "top1": top1,
        "size": size,
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": mean,
        "std": std,
        "license": "apache-2.0",
    }


def main() -> None:
    from jaxnets.models import list_models, published_weights

    say = {
        "torchvision": torchvision_says,
        "cadene": cadene_says,
        "keras": keras_says,
        "slim": slim_says,
    }
    said = {}
    for name in list_models(pretrained=True):
        for row in published_weights(name):
            kind, _, file = row.source.partition(":")
            said[row.source] = say[kind](file) if kind in say else timm_says(row.source)
    (DATA / "published.json").write_text(json.dumps(said, indent=1) + "\n")
    print(f"{len(said)} sets of weights")


if __name__ == "__main__":
    main()
