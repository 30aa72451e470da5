"""NASNet-A. Zoph, Vasudevan, Shlens and Le 2017, "Learning Transferable Architectures for Scalable
Image Recognition", arXiv:1707.07012, figures 2 and 4 and appendix A.

What the paper leaves open is taken from its authors' program: batch normalization's epsilon of 1e-3,
the first convolution, which is not padded, and the auxiliary classifier.

Departures: scheduled drop-path grows from cell to cell but not, as in the paper, from step to step
too (a model made anew with another `drop_path` has the same parameters). Kernels are drawn by He's
rule, by fan-in.
"""

from functools import partial
from typing import Any, Literal

from flax import linen as nn
from jax import Array

from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.nasnet_parts import (
    POOL_PADDINGS,
    Plan,
    Step,
    Sum,
    cell_renames,
    chain,
    classifier,
    stage_of_cells,
)
from jaxnets.models.settings import Count, CountOrZero, Probability, takes_fields_of

PAPER = "Zoph et al. 2017, arXiv:1707.07012"

VARIANTS = {
    "nasnet_mobile": {
        "depth": 4,
        "features": 44,
        "stem_features": 32,
        "skip_reduction": False,
        "pool_padding": "left_out",
        "image_size": 224,
        "drop_path": 0.0,
    },
    "nasnet_large": {
        "depth": 6,
        "features": 168,
        "stem_features": 96,
        "skip_reduction": True,
        "pool_padding": "in_means",
        "image_size": 331,
        "drop_path": 0.3,
    },
}

_HALVES = {"mean": published.HALVES, "std": published.HALVES}
_IN_KERAS = {"pool_padding": "zeros"}
WEIGHTS = {
    "nasnet_mobile": (
        published.cadene("nasnetamobile-7e03cead.pth", "nasnetamobile", 74.08, **_HALVES),
        published.keras("nasnet/NASNet-mobile.h5", "NASNetMobile", 74.366, "tf", settings=_IN_KERAS),
        published.slim("nasnet-a_mobile_04_10_2017.tar.gz", "nasnet_mobile", 74.0),
    ),
    "nasnet_large": (
        published.timm("nasnetalarge.tf_in1k", 82.64, size=331, crop=0.911, **_HALVES),
        published.keras(
            "nasnet/NASNet-large.h5", "NASNetLarge", 82.498, "tf", size=331, settings=_IN_KERAS
        ),
        published.slim(
            "nasnet-a_large_04_10_2017.tar.gz",
            "nasnet_large",
            82.7,
            size=331,
            settings={"pool_padding": "left_out"},
        ),
    ),
}

# The references number the cells of each stage from a multiple of 6, and have no auxiliary head.
_RENAMES = (
    ("backbone/conv0", "conv0.conv"),
    ("backbone/bn0", "conv0.bn"),
    *cell_renames(
        {
            "stem{i}": "cell_stem_{i-1}",
            "reduction{i}": "reduction_cell_{i-1}",
            "stage1_cell{i}": "cell_{i-1}",
            "stage2_cell{i}": "cell_{i+5}",
            "stage3_cell{i}": "cell_{i+11}",
        },
        previous="",
    ),
    ("auxiliary_stage2/{layer}", "aux.{layer}"),
    ("head/fc", "last_linear"),
)


def _keras(model: Classifier) -> list[tuple[str, str]]:
    """Keras names a cell in every layer, and numbers those of all stages and between them."""
    depth = model.backbone.depth
    cells = {
        "stem{i}": ("reduction", "stem_{i}"),
        "reduction1": ("reduction", f"reduce_{depth}"),
        "reduction2": ("reduction", f"reduce_{2 * depth}"),
        "stage1_cell{i}": ("normal", "{i-1}"),
        "stage2_cell{i}": ("normal", f"{{i+{depth}}}"),
        "stage3_cell{i}": ("normal", f"{{i+{2 * depth}}}"),
    }
    rules = [
        ("backbone/conv0", "stem_conv1"),
        ("backbone/bn0", "stem_bn1"),
        ("auxiliary_stage2/{layer}", "aux.{layer}"),
        ("head/fc", "predictions"),
    ]
    for ours, (kind, cell) in cells.items():
        sums = {"sum{n}_{side}": f"{kind}_{{side}}{{n}}_{cell}"}
        if kind == "reduction":
            sums = {"sum5_left": f"reduction_left4_{cell}", **sums}
        rules += [
            (f"backbone/{ours}/project_input/{{layer}}", f"{kind}_{{layer}}_1_{cell}"),
            (f"backbone/{ours}/project_previous/conv", f"adjust_conv_projection_{cell}"),
            (f"backbone/{ours}/halve_previous/path{{p}}_conv", f"adjust_conv_{{p}}_{cell}"),
            (f"backbone/{ours}/{{kind}}_previous/bn", f"adjust_bn_{cell}"),
        ]
        for part, name in sums.items():
            part = f"backbone/{ours}/{part}"
            rules.append((f"{part}/sepconv{{k}}/{{part}}", f"separable_conv_{{k}}_{name}.{{part}}"))
            rules.append((f"{part}/bn{{k}}", f"separable_conv_{{k}}_bn_{name}"))
    return rules


# Figure 4.
NORMAL = Plan(
    sums=(
        Sum("separable5", 0, "separable3", 1),
        Sum("separable5", 1, "separable3", 1),
        Sum("avg3", 0, "identity", 1),
        Sum("avg3", 1, "avg3", 1),
        Sum("separable3", 0, "identity", 0),
    ),
    outputs=(1, 2, 3, 4, 5, 6),
)
REDUCTION = Plan(
    sums=(
        Sum("separable5", 0, "separable7", 1),
        Sum("max3", 0, "separable7", 1),
        Sum("avg3", 0, "separable5", 1),
        Sum("identity", 3, "avg3", 2),
        Sum("separable3", 2, "max3", 0),
    ),
    outputs=(3, 4, 5, 6),
)


def _slim(model: Classifier) -> list[tuple[str, ...]]:
    plans = {"stem": REDUCTION, "reduction": REDUCTION, "stage": NORMAL}
    return slim_names.nasnet(plans, model.backbone.depth)


RENAMES = {"timm": _RENAMES, "cadene": _RENAMES, "keras": _keras, "slim": _slim}


class NASNet(nn.Module):
    """A convolution, two reduction cells, and three stages of normal cells with a reduction cell
    between each two of them (figure 2, right).

    Attributes:
        depth: normal cells in each stage (the paper's N).
        features: channels of each state in the cells of the first stage; they double with each
            stage. The last maps have 24 times as many. At least 4, since the stem's first cell has a
            quarter.
        stem_features: channels of the first convolution.
        skip_reduction: whether the cell behind a reduction cell reads, beside it, the one but last
            cell before it, instead of the last.
        pool_padding: how pools that halve the maps see their padding: "left_out" (by the authors'
            program and Cadene's collection), "in_means" (averages count it as zeros, as in timm) or
            "zeros" (for maxima too, as in Keras).
        drop_path: probability of dropping an operation of the last cell; it grows linearly from the
            first cell. For the large net 0.3, as the authors had at the end of training.
    """

    depth: Count
    features: Count
    stem_features: Count
    skip_reduction: bool
    pool_padding: Literal[POOL_PADDINGS]
    drop_path: Probability

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv0` (stride 2), `stem1` (4), `stem2`, `stage1` (8), `stage2` (16)
        and `stage3` (32). Only the last has passed a ReLU."""
        reduction = partial(Step, REDUCTION, strides=2)
        steps = [
            reduction("stem1", scale=1 / 4, feature="stem1"),
            reduction("stem2", scale=1 / 2, feature="stem2"),
        ]
        for stage, scale in enumerate((1, 2, 4), start=1):
            if stage > 1:
                steps.append(
                    reduction(f"reduction{stage - 1}", scale=scale, skipped=self.skip_reduction)
                )
            steps += stage_of_cells(NORMAL, stage, scale, self.depth)
        return chain(self, steps, images, train, self.pool_padding)


@takes_fields_of(NASNet)
def build(
    *,
    num_classes: CountOrZero = 1000,
    image_size: Count,
    aux: bool = False,
    dropout: Probability = 0.5,
    **settings: Any,
) -> Classifier:
    """A NASNet-A; accepts any images of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        image_size: side of the images it is made for.
        aux: whether there is an auxiliary classifier on `stage2`.
        dropout: rate before the dense layer.
        **settings: see `NASNet`.

    Raises:
        InputError: fewer than 4 features, or an auxiliary classifier without classes.
    """
    return classifier(NASNet(**settings), num_classes, image_size, aux, dropout)
