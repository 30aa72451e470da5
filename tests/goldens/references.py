"""Which models are compared with which reference, and how."""

from collections.abc import Mapping
from typing import Any, NamedTuple

AUXILIARY_WEIGHT = 0.3
"""What the loss of an auxiliary head adds to that of the last one."""


class Reference(NamedTuple):
    """A row of `GOLDENS`.

    Attributes:
        library: whose names the weights have, a key of the family's `RENAMES`.
        constructor: what the library calls the model.
        size: side of the images. Small, for quick runs, but each stage should keep a map of several
            pixels, and a dense layer that reads a grid should see it in full.
        images: how many of them.
        options: further arguments of the constructor.
        model: what jaxnets calls the model; None where it is the name of the row.
        overrides: the arguments of `create_model` that belong to `options`.
        quiet: see `draw.state_dict`.
        small: whether this is its family's small member, which every run of the tests checks, and of
            which `pytest -m zoo` checks gradients and statistics in training too. Not one with
            grouped convolutions: their gradients are slow on a CPU.
    """

    library: str
    constructor: str
    size: int = 64
    images: int = 4
    options: Mapping[str, Any] = {}
    model: str | None = None
    overrides: Mapping[str, Any] = {}
    quiet: str = ""
    small: bool = False


def _torchvision(*constructors: str, **settings: Any) -> dict[str, Reference]:
    """Rows of models that have the same name here and there."""
    return {name: Reference("torchvision", name, **settings) for name in constructors}


def _dilated(*constructors: str, **settings: Any) -> dict[str, Reference]:
    """torchvision's ResNets with dilation in place of the last stride or the last two."""
    replaced = {16: (False, False, True), 8: (False, True, True)}
    return {
        f"{name}_stride{stride}": Reference(
            "torchvision",
            name,
            options={"replace_stride_with_dilation": stages},
            model=name,
            overrides={"output_stride": stride},
            **settings,
        )
        for name in constructors
        for stride, stages in replaced.items()
    }


def _timm(*constructors: str, **settings: Any) -> dict[str, Reference]:
    """Rows of models that have the same name here and there."""
    return {name: Reference("timm", name, **settings) for name in constructors}


def _timm_legacy(*names: str, **settings: Any) -> dict[str, Reference]:
    """Rows of the squeeze-and-excitation nets, which are in timm under another name."""
    return {
        name: Reference("timm_legacy", f"legacy_{name}", quiet="layer[1-4].*.bn3.weight", **settings)
        for name in names
    }


_BASIC, _BOTTLENECK = {"quiet": "layer*.bn2.weight"}, {"quiet": "layer*.bn3.weight"}
_SHALLOW = {"depths": (1, 2, 2, 2)}
_PREACTIVATED = {"quiet": "stages.*.conv3.weight"}
_DUAL_PATH = {"quiet": "features.*.c1x1_c.conv.weight"}
_CELLS = {"quiet": "*.bn_sep_2.weight"}
_POLYNOMIAL = {"quiet": "stage_*.conv2d*.bn.weight"}
_ALIGNED = {"size": 96, "images": 2, "quiet": "blocks.*.stack.conv[13].bn_dw.weight"}
_KERAS = {"tf_padding": True, "epsilon": 1e-3}

GOLDENS = {
    "alexnet_owt": Reference("torchvision", "alexnet", size=224, images=2, small=True),
    **_torchvision("resnet18", **_BASIC, small=True),
    **_torchvision("resnet34", **_BASIC),
    "resnet18_timm": Reference("timm", "resnet18", model="resnet18", **_BASIC),
    **_torchvision("resnet50", "resnet101", "resnet152", **_BOTTLENECK),
    **_torchvision("wide_resnet50_2", "wide_resnet101_2", **_BOTTLENECK),
    **_torchvision("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", **_BOTTLENECK),
    "resnext101_32x4d": Reference("timm", "resnext101_32x4d", **_BOTTLENECK),
    **_dilated("resnet50", "resnet101", "resnext50_32x4d", **_BOTTLENECK),
    "resnet50_dilated_shallow": Reference(
        "torchvision",
        "shortened_resnet",
        options={**_SHALLOW, "replace_stride_with_dilation": (False, True, True)},
        model="resnet50",
        overrides={**_SHALLOW, "output_stride": 8},
        **_BOTTLENECK,
        small=True,
    ),
    "resnet50_group_norm_shallow": Reference(
        "torchvision",
        "shortened_resnet",
        options={**_SHALLOW, "norm": "group"},
        model="resnet50",
        overrides={**_SHALLOW, "norm": "group"},
        **_BOTTLENECK,
        small=True,
    ),
    "resnet50_frozen_shallow": Reference(
        "torchvision",
        "shortened_resnet",
        options={**_SHALLOW, "norm": "frozen"},
        model="resnet50",
        overrides={**_SHALLOW, "norm": "frozen"},
        **_BOTTLENECK,
    ),
    **_torchvision("vgg11", "vgg13", "vgg16", "vgg19", size=224, images=2),
    **_torchvision("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", size=224, images=2),
    "vgg11_bn_narrow": Reference(
        "timm",
        "vgg11_bn",
        options={"mlp_ratio": 1 / 64},
        model="vgg11_bn",
        overrides={"hidden": (64, 4096)},
        small=True,
    ),
    **_timm("resnetv2_50", "resnetv2_101", "resnetv2_152", **_PREACTIVATED),
    "resnetv2_200": Reference(
        "timm", "resnetv2_152", options={"layers": (3, 24, 36, 3)}, **_PREACTIVATED
    ),
    "resnetv2_50_shallow": Reference(
        "timm",
        "resnetv2_50",
        options={"layers": (1, 2, 1, 1)},
        model="resnetv2_50",
        overrides={"depths": (1, 2, 1, 1)},
        **_PREACTIVATED,
        small=True,
    ),
    "wrn_16_8_large_input": Reference(  # timm has no stem for small images
        "timm",
        "resnetv2_50",
        options={
            "num_classes": 10,
            "basic": True,
            "bottle_ratio": 1.0,
            "layers": (2, 2, 2),
            "channels": (128, 256, 512),
            "stem_chs": 16,
        },
        model="wrn_16_8",
        overrides={"small_input": False},
        quiet="stages.*.conv2.weight",
    ),
    **_timm_legacy("seresnet50", "seresnext50_32x4d", "seresnext101_32x4d", "senet154"),
    "seresnet50_shallow": Reference(
        "timm_legacy",
        "legacy_seresnet50",
        options={"layers": (1, 2, 1, 1), "drop_rate": 0.0},
        model="seresnet50",
        overrides={"depths": (1, 2, 1, 1)},
        quiet="layer[1-4].*.bn3.weight",
        small=True,
    ),
    "seresnet50_padded": Reference(
        "timm",
        "seresnet50",
        model="seresnet50",
        overrides={"padded_pool": True, "stride_in_1x1": False},
        **_BOTTLENECK,
    ),
    "senet154_padded": Reference(
        "timm", "senet154", model="senet154", overrides={"padded_pool": True}, **_BOTTLENECK
    ),
    **_torchvision("densenet121", "densenet161", "densenet169", "densenet201"),
    "densenet264": Reference("timm", "densenet201", options={"block_config": (6, 12, 64, 48)}),
    "densenet121_shallow": Reference(
        "timm",
        "densenet121",
        options={"block_config": (2, 3, 2, 2)},
        model="densenet121",
        overrides={"depths": (2, 3, 2, 2)},
        small=True,
    ),
    **_timm("dpn68", "dpn92", "dpn98", "dpn107", "dpn131", **_DUAL_PATH),
    "dpn68_shallow": Reference(
        "timm",
        "dpn68",
        options={"k_sec": (1, 2, 1, 1), "k_r": 32, "groups": 1},
        model="dpn68",
        overrides={"depths": (1, 2, 1, 1), "bottleneck_width": 32, "groups": 1},
        **_DUAL_PATH,
        small=True,
    ),
    "googlenet": Reference(
        "torchvision",
        "googlenet",
        options={"aux_logits": True, "init_weights": False},
        overrides={"aux": True},
        small=True,
    ),
    "inception_v2": Reference("cadene", "bninception", small=True),
    "inception_v3": Reference(
        "torchvision",
        "inception_v3",
        size=107,
        options={"aux_logits": False, "init_weights": False},
        small=True,
    ),
    "inception_v3_aux": Reference(
        "torchvision",
        "inception_v3",
        size=107,
        options={"aux_logits": True, "init_weights": False},
        model="inception_v3",
        overrides={"aux": True},
    ),
    "inception_v3_timm": Reference("timm", "inception_v3", size=107, model="inception_v3"),
    "inception_v4": Reference("timm", "inception_v4", size=107, small=True),
    "inception_resnet_v2": Reference("timm", "inception_resnet_v2", size=107, small=True),
    "squeezenet1_0": Reference("torchvision", "squeezenet1_0"),
    "squeezenet1_1": Reference("torchvision", "squeezenet1_1", small=True),
    "mobilenet_v1_100": Reference("timm", "mobilenetv1_100", small=True),
    "mobilenet_v1_100_keras": Reference(
        "keras", "MobileNet", model="mobilenet_v1_100", overrides=_KERAS
    ),
    "mobilenet_v1_050": Reference("keras", "MobileNet", options={"alpha": 0.5}, overrides=_KERAS),
    "mobilenet_v1_025": Reference("keras", "MobileNet", options={"alpha": 0.25}, overrides=_KERAS),
    "mobilenet_v2_100": Reference(
        "torchvision", "mobilenet_v2", quiet="features.*[02468].conv.3.weight"
    ),
    "mobilenet_v2_100_timm": Reference(
        "timm", "mobilenetv2_100", model="mobilenet_v2_100", quiet="blocks.*.[02].bn3.weight"
    ),
    "mobilenet_v1_100_stride8": Reference(
        "timm",
        "mobilenetv1_100",
        options={"output_stride": 8},
        model="mobilenet_v1_100",
        overrides={"output_stride": 8},
    ),
    "mobilenet_v2_100_stride8": Reference(
        "timm",
        "mobilenetv2_100",
        options={"output_stride": 8},
        model="mobilenet_v2_100",
        overrides={"output_stride": 8},
        quiet="blocks.*.[02].bn3.weight",
    ),
    "mobilenet_v2_140": Reference("timm", "mobilenetv2_140", quiet="blocks.*.[02].bn3.weight"),
    "mobilenet_v2_narrow": Reference(
        "torchvision",
        "mobilenet_v2",
        options={"width_mult": 0.25},
        model="mobilenet_v2_100",
        overrides={"width": 0.25},
        quiet="features.*[02468].conv.3.weight",
        small=True,
    ),
    **_torchvision("mobilenet_v3_large", quiet="features.*.block.3.1.weight"),
    **_torchvision("mobilenet_v3_small", small=True),
    "xception": Reference(
        "timm",
        "legacy_xception",
        size=96,
        quiet="block*.rep.[458].weight",
        small=True,
    ),
    "xception_keras": Reference(
        "keras",
        "Xception",
        size=96,
        model="xception",
        overrides=_KERAS,
        quiet="block*_sepconv[23]_bn.weight",
    ),
    **_timm("xception41", "xception65", "xception71", **_ALIGNED),
    "xception41_stride8": Reference(
        "timm",
        "xception41",
        options={"output_stride": 8},
        model="xception41",
        overrides={"output_stride": 8},
        **_ALIGNED,
    ),
    "vit_base_patch16_224": Reference("timm", "vit_base_patch16_224", size=224, images=2),
    "vit_tiny": Reference(
        "timm",
        "vit_base_patch16_224",
        options={"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3},
        model="vit_base_patch16_224",
        overrides={"depth": 2, "width": 48, "heads": 3, "image_size": 64},
        small=True,
    ),
    "nasnet_mobile": Reference("cadene", "nasnetamobile", size=96, **_CELLS),
    "nasnet_mobile_keras": Reference(
        "keras",
        "NASNetMobile",
        size=96,
        model="nasnet_mobile",
        overrides={"pool_padding": "zeros"},
        quiet="separable_conv_2_bn_*.weight",
    ),
    "nasnet_large": Reference("timm", "nasnetalarge", size=107, **_CELLS),
    "nasnet_large_short": Reference(
        "timm",
        "shortened_nasnetalarge",
        options={"features": 8, "stem_features": 8},
        model="nasnet_large",
        overrides={"depth": 1, "features": 8, "stem_features": 8, "num_classes": 10},
        **_CELLS,
        small=True,
    ),
    "pnasnet5_large": Reference("timm", "pnasnet5large", size=107, **_CELLS),
    "pnasnet5_large_short": Reference(
        "timm",
        "shortened_pnasnet5large",
        options={"features": 8, "stem_features": 8},
        model="pnasnet5_large",
        overrides={"depth": 1, "features": 8, "stem_features": 8, "num_classes": 10},
        **_CELLS,
        small=True,
    ),
    "polynet": Reference("cadene", "polynet", size=107, **_POLYNOMIAL),
    "polynet_short": Reference(
        "cadene",
        "shortened_polynet",
        size=75,
        options={"depths": (1, 2, 2)},
        model="polynet",
        overrides={"depths": (1, 2, 2)},
        small=True,
        **_POLYNOMIAL,
    ),
}
"""By the name of a file in `data/`: the model's own, or another where it has several rows."""

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
PREPROCESSED = {
    "v1": ("torchvision", {"resize": 256, "size": 224, "interpolation": "bilinear", **_IMAGENET}),
    "v2": ("torchvision", {"resize": 232, "size": 224, "interpolation": "bilinear", **_IMAGENET}),
    "inception": ("torchvision", {"resize": 342, "size": 299, "interpolation": "bilinear", **_IMAGENET}),
    "bicubic": ("timm", {"crop": 0.875, "size": 224, "interpolation": "bicubic", **_IMAGENET}),
    "whole": ("timm", {"crop": 1.0, "size": 288, "interpolation": "bicubic", **_IMAGENET}),
    "halves": ("timm", {"crop": 0.8975, "size": 299, "interpolation": "bicubic", **_HALVES}),
}
"""Transforms of pictures that `make_preprocessing.py` runs: whose, and with what."""
