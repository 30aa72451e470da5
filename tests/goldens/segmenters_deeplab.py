"""Rows as those of `segmenters.SEGMENTERS`: DeepLab v2 and v3+ and U-Net.

The larger pictures are there because all rates of the atrous convolutions reach from one place of their
maps to another, and because a side of 208 tells how a max-pool rounds. Sides that are multiples of 16
are what segmentation_models_pytorch's DeepLab v3+ wants.
"""

from segmenters import Segmenter

_V2 = {"library": "deeplab", "quiet": "base.layer*.increase.bn.weight"}
_V2_LARGE = {**_V2, "size": (201, 208), "count": 1, "wrong": {"rates": (6, 12, 18, 23)}}
_V3_PLUS = {"library": "smp", "quiet": "encoder.layer*.bn3.weight"}
_XCEPTION = {"library": "chainercv", "quiet": "feature_extractor.*.separable[13].dw_bn.weight"}
_UNET = {"library": "smp", "quiet": "encoder.layer*.bn2.weight"}

_COUNTS = {
    "deeplabv2_resnet101": 44_048_532,
    "deeplabv2_vgg16": 37_877_652,
    "deeplabv2_vgg16_largefov": 20_505_429,
    "deeplabv3plus_resnet50": 26_682_725,
    "deeplabv3plus_xception65": 41_055_413,
    "unet_resnet34": 24_439_269,
}


def _row(model: str, **settings) -> Segmenter:
    return Segmenter(model, (_COUNTS[model],) * 2, **settings)


SEGMENTERS = {
    "deeplabv2_resnet101": _row("deeplabv2_resnet101", **_V2),
    "deeplabv2_resnet101_large": _row("deeplabv2_resnet101", **_V2_LARGE),
    "deeplabv2_vgg16": _row("deeplabv2_vgg16", **_V2),
    "deeplabv2_vgg16_large": _row("deeplabv2_vgg16", **_V2_LARGE),
    "deeplabv2_vgg16_largefov": _row("deeplabv2_vgg16_largefov", **_V2, wrong={"rates": (11,)}),
    "deeplabv3plus_resnet50": _row(
        "deeplabv3plus_resnet50", **_V3_PLUS, size=(96, 128), wrong={"backbone_settings": {}}
    ),
    "deeplabv3plus_resnet50_stride8": _row(
        "deeplabv3plus_resnet50",
        **_V3_PLUS,
        size=(304, 320),
        count=1,
        overrides={"output_stride": 8},
        wrong={"rates": (12, 24, 35)},
    ),
    "deeplabv3plus_xception65": _row(
        "deeplabv3plus_xception65", **_XCEPTION, wrong={"output_stride": 16}
    ),
    "deeplabv3plus_xception65_large": _row(
        "deeplabv3plus_xception65",
        **_XCEPTION,
        size=(305, 313),
        count=1,
        wrong={"rates": (12, 24, 35)},
    ),
    "unet_resnet34": _row("unet_resnet34", **_UNET),
}

TRAINED = {
    "deeplabv2_vgg16_largefov": (65, 73),
    "deeplabv3plus_resnet50": (64, 80),
    "unet_resnet34": (65, 73),
}
"""The rows that are trained too, and the sizes of their pictures: see `segmenters.TRAINED`."""
