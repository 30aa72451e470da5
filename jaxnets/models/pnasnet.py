"""PNASNet-5. Liu et al. 2017, "Progressive Neural Architecture Search", arXiv:1712.00559, figure 1
and section 3.1.

There is one kind of cell; with a stride of 2 it takes the place of NASNet's reduction cells. What
the paper leaves open is taken from its authors' program, as for NASNet, with the same departures.
"""

from typing import Any

from flax import linen as nn
from jax import Array

from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.nasnet_parts import (
    Plan,
    Step,
    Sum,
    cell_renames,
    chain,
    classifier,
    stage_of_cells,
)
from jaxnets.models.settings import Count, CountOrZero, Probability, takes_fields_of

PAPER = "Liu et al. 2017, arXiv:1712.00559"

VARIANTS = {
    "pnasnet5_mobile": {
        "depth": 3,
        "features": 54,
        "stem_features": 32,
        "image_size": 224,
        "drop_path": 0.0,
    },
    "pnasnet5_large": {
        "depth": 4,
        "features": 216,
        "stem_features": 96,
        "image_size": 331,
        "drop_path": 0.4,
    },
}

WEIGHTS = {
    "pnasnet5_large": (
        published.timm(
            "pnasnet5large.tf_in1k",
            82.81,
            size=331,
            crop=0.911,
            mean=published.HALVES,
            std=published.HALVES,
        ),
        published.slim("pnasnet-5_large_2017_12_13.tar.gz", "pnasnet_large", 82.9, size=331),
    ),
    "pnasnet5_mobile": (published.slim("pnasnet-5_mobile_2017_12_13.tar.gz", "pnasnet_mobile", 74.2),),
}


def _timm(model: Classifier) -> tuple[tuple[str, str], ...]:
    """timm numbers the cells of all stages through, and has no auxiliary head."""
    depth = model.backbone.depth
    return (
        ("backbone/conv0", "conv_0.conv"),
        ("backbone/bn0", "conv_0.bn"),
        *cell_renames(
            {
                "stem{i}": "cell_stem_{i-1}",
                "stage1_cell{i}": "cell_{i-1}",
                "stage2_cell{i}": f"cell_{{i+{depth - 1}}}",
                "stage3_cell{i}": f"cell_{{i+{2 * depth - 1}}}",
            },
            previous="conv_prev_1x1.",
        ),
        ("auxiliary_stage2/{layer}", "aux.{layer}"),
        ("head/fc", "last_linear"),
    )


# Figure 1, left.
CELL = Plan(
    sums=(
        Sum("separable5", 1, "max3", 1),
        Sum("separable7", 0, "max3", 0),
        Sum("separable5", 0, "separable3", 0),
        Sum("separable3", 4, "max3", 0),
        Sum("separable3", 1, "identity", 0),
    ),
    outputs=(2, 3, 4, 5, 6),
)


def _slim(model: Classifier) -> list[tuple[str, ...]]:
    return slim_names.nasnet({"stem": CELL, "stage": CELL}, model.backbone.depth)


RENAMES = {"timm": _timm, "slim": _slim}


class PNASNet(nn.Module):
    """A convolution, two cells of stride 2, and three stages of cells, of which the second and third
    begin with a stride of 2.

    Attributes:
        depth: cells in each stage (the paper's N).
        features: channels of each state in the cells of the first stage (the paper's F); they double
            with each stage. The last maps have 20 times as many. At least 4.
        stem_features: channels of the first convolution.
        drop_path: probability of dropping an operation of the last cell; it grows linearly from the
            first cell. For the large net 0.4, as the authors had at the end of training.
    """

    depth: Count
    features: Count
    stem_features: Count
    drop_path: Probability

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv0` (stride 2), `stem1` (4), `stem2`, `stage1` (8), `stage2` (16)
        and `stage3` (32). Only the last has passed a ReLU."""
        steps = [
            Step(CELL, "stem1", scale=1 / 4, strides=2, feature="stem1"),
            Step(CELL, "stem2", scale=1 / 2, strides=2, feature="stem2"),
            *stage_of_cells(CELL, 1, 1, self.depth),
            *stage_of_cells(CELL, 2, 2, self.depth, strides=2),
            *stage_of_cells(CELL, 3, 4, self.depth, strides=2),
        ]
        return chain(self, steps, images, train)


@takes_fields_of(PNASNet)
def build(
    *,
    num_classes: CountOrZero = 1000,
    image_size: Count,
    aux: bool = False,
    dropout: Probability = 0.5,
    **settings: Any,
) -> Classifier:
    """A PNASNet-5; accepts any images of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        image_size: side of the images it is made for.
        aux: whether there is an auxiliary classifier on `stage2`.
        dropout: rate before the dense layer.
        **settings: see `PNASNet`.

    Raises:
        InputError: fewer than 4 features, or an auxiliary classifier without classes.
    """
    return classifier(PNASNet(**settings), num_classes, image_size, aux, dropout)
