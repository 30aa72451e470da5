"""The marks of rows of goldens, which say which runs of the tests compare them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytest

# Members of a family that differ from a quicker one in depth or width alone.
_DEEPER = {
    *("resnet101", "resnet152", "resnetv2_101", "resnetv2_152", "densenet169", "densenet201", "vgg19"),
    *("nasnet_large", "pnasnet5_large", "mobilenet_v1_050", "mobilenet_v2_140"),
}
# The largest of those: rows of the first library too that a quicker or a shorter one stands for.
LARGEST = ("resnet152", "densenet201", "vgg19", "nasnet_large", "pnasnet5_large")

# Segmenters that differ from a quicker one in depth, the size of the pictures, or what is upsampled.
_SIBLINGS = {
    *("fcn_resnet101", "deeplabv3_resnet101", "deeplabv3_resnet50", "deeplabv2_resnet101"),
    *(
        "deeplabv2_vgg16",
        "deeplabv3plus_xception65",
        "fcn32s_vgg16",
        "fcn16s_vgg16",
        "fcn8s_atonce_vgg16",
    ),
    *("refinenet_resnet101", "refinenet_resnet152", "refinenet_lw_resnet101", "refinenet_lw_resnet152"),
}


def of_segmenters(names: Iterable[str], quick: Collection[str]) -> list[Any]:
    """The names of the rows for `pytest.mark.parametrize`: of the zoo all, in the default run those that
    are `quick`, in CI not those that a quicker one stands for."""
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.zoo,
                *([pytest.mark.small] if name in quick else []),
                *([pytest.mark.deep] if name in _SIBLINGS else []),
            ],
        )
        for name in names
    ]


def of_second_library(rows: Mapping[str, Any]) -> list[Any]:
    """The names of the rows for `pytest.mark.parametrize`: of the zoo all, in the default run those that
    are `small`, and of families whose nets are compared by another library's names too, not in CI the
    deeper ones."""
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.zoo,
                *([pytest.mark.small] if row.small else []),
                *([pytest.mark.deep] if name in _DEEPER else []),
            ],
        )
        for name, row in rows.items()
    ]
