"""RetinaNet. Lin, Goyal, Girshick, He and Dollar 2017, "Focal Loss for Dense Object Detection",
arXiv:1708.02002.

As torchvision has it: the loss of boxes is L1, not smooth L1; pictures are normalized by the positives
of each image. Version 2 (Zhang et al. 2020, arXiv:1912.02424, and torchvision's recipe) has group
normalization in its heads, P6 from C5 and a loss of generalized IoU.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.detection import losses
from jaxnets.detection.boxes import decode, encode, giou, iou
from jaxnets.detection.building import Settings, shared_parts, torchvision_rules
from jaxnets.detection.coco_names import class_names  # noqa: F401  (what public weights score)
from jaxnets.detection.detector import (
    Detector,
    Found,
    Pyramid,
    Truths,
    anchors_of,
    dense_search,
    flattened,
)
from jaxnets.detection.fpn import FPN
from jaxnets.detection.heads import NORMAL, PRIOR, ConvTower
from jaxnets.detection.matching import BETWEEN, match
from jaxnets.layers import Conv
from jaxnets.models import published
from jaxnets.models.settings import Count, takes_fields_of
from jaxnets.training.terms import Terms

PAPER = "Lin et al. 2017, arXiv:1708.02002"

VARIANTS = {
    "retinanet": {"norm": "batch"},
    "retinanet_resnet50_fpn": {"backbone": "resnet50"},
    "retinanet_resnet50_fpn_v2": {"backbone": "resnet50", "norm": "batch", "version": 2},
    "retinanet_resnet101_fpn": {"backbone": "resnet101"},
    "retinanet_resnext101_32x8d_fpn": {"backbone": "resnext101_32x8d"},
    "retinanet_resnext101_64x4d_fpn": {"backbone": "resnext101_64x4d"},
}

WEIGHTS = {
    "retinanet_resnet50_fpn": (
        published.torchvision_detector(
            "retinanet_resnet50_fpn_coco-eeacb38b.pth",
            "retinanet_resnet50_fpn",
            36.4,
            library="torchvision_v1",
            settings={"epsilon": 0.0},
        ),
    ),
    "retinanet_resnet50_fpn_v2": (
        published.torchvision_detector(
            "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth", "retinanet_resnet50_fpn_v2", 41.5
        ),
    ),
}

RATIOS = (0.5, 1.0, 2.0)


class DenseHead(nn.Module):
    """Four convolutions and one that gives the outputs of each anchor (section 4, figure 3c, d).

    Attributes:
        outputs: channels.
        norm: of the four; None for none.
        prior: the bias of the outputs at first.
    """

    outputs: int
    norm: Literal[None, "group"] = None
    prior: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [N, H, W, C] to [N, H, W, outputs]."""
        x = ConvTower(4, norm=self.norm, name="tower")(x)
        bias = nn.initializers.constant(self.prior)
        return Conv(self.outputs, 3, padding=1, kernel_init=NORMAL, bias_init=bias, name="outputs")(x)


class RetinaNet(Detector):
    """A one-stage detector of nine anchors at each place. Further parameters: `scores` and `deltas`.

    Attributes:
        scores: gives logits [N, H, W, 9 * num_classes].
        deltas: gives regression outputs [N, H, W, 9 * 4].
        box_loss: "l1" of the regression outputs, or "giou" of the boxes.
        anchor_size: of the smallest anchors, in pixels; each level doubles it.
    """

    scores: nn.Module | None = None
    deltas: nn.Module | None = None
    box_loss: Literal["l1", "giou"] = "l1"
    anchor_size: int = 32

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The sizes of the anchors of each level, three in an octave (section 4), truncated."""
        sides = (self.anchor_size * 2**level for level in range(5))
        return tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in sides)

    def search(self, pyramid: Pyramid, score: Any, iou: Any, k: int) -> Found:
        logits, deltas = self._outputs(pyramid)
        scores, anchors = list(map(jax.nn.sigmoid, logits)), anchors_of(pyramid, self.sizes, RATIOS)
        return dense_search(pyramid, scores, deltas, anchors, decode, (score, iou, k))

    def losses(
        self,
        images: Array,
        sizes: Array | None,
        truths: Truths,
        key: Array,
        train: bool = True,
    ) -> Terms:
        """The terms of the loss: `classification` and `box` (section 4.1).

        Args:
            images, sizes: as for `detect`.
            truths: what there is to find; labels as users see them.
            key: not used, as nothing is drawn.
            train: whether batch normalization uses the statistics of the batch.
        """
        pyramid = self.pyramid(images, sizes, train)
        joined = partial(jnp.concatenate, axis=1)
        logits, deltas = map(joined, self._outputs(pyramid))
        anchors, inside = map(joined, anchors_of(pyramid, self.sizes, RATIOS))

        def of_picture(logits, deltas, anchors, inside, boxes, labels, valid):
            overlaps = jnp.where(inside[None], iou(boxes, anchors), -1)
            matched = match(overlaps, 0.4, 0.5, valid=valid, keep_best=True)
            positive = (matched >= 0) & inside
            truth = jnp.maximum(matched, 0)
            channels = jax.nn.one_hot(labels[truth] - self.first_label, self.num_classes)
            wanted = jnp.where(positive[:, None], channels, 0)
            focal = losses.sigmoid_focal(logits, wanted)
            aims = jnp.where(positive[:, None], boxes[truth], anchors)
            if self.box_loss == "giou":
                off = 1 - giou(decode(deltas, anchors), aims)
            else:
                off = jnp.abs(deltas - encode(aims, anchors))
            count = jnp.maximum(positive.sum(), 1).astype(jnp.float32)
            return (
                losses.summed(focal, inside & (matched != BETWEEN)) / count,
                losses.summed(off, positive) / count,
            )

        classification, box = jax.vmap(of_picture)(logits, deltas, anchors, inside, *truths[:3])
        ones = jnp.ones(len(box), jnp.float32)
        return {"classification": (classification, ones), "box": (box, ones)}

    def _outputs(self, pyramid: Pyramid) -> tuple[list[Array], list[Array]]:
        """Logits [N, A, K] and regression outputs [N, A, 4] of each level."""
        return (
            [flattened(x, self.num_classes) for x in self.head(self.scores, pyramid)],
            [flattened(x, 4) for x in self.head(self.deltas, pyramid)],
        )


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 91,
    version: Literal[1, 2] = 1,
    width: Count = 256,
    anchor_size: Count = 32,
    **settings: Any,
) -> RetinaNet:
    """A RetinaNet for pictures of any size.

    Args:
        num_classes: channels of scores; torchvision's count the background, whose channel is not used.
        version: 2 for group normalization in the heads, P6 from C5 and a loss of generalized IoU.
        width: channels of the pyramid and the heads.
        anchor_size: side of the smallest anchors, in pixels.
        **settings: see `building.Settings`.
    """
    head_norm = "group" if version == 2 else None
    return RetinaNet(
        **shared_parts((8, 16, 32), num_classes, Settings(**settings)),
        fpn=FPN(width, top="convs_of_last" if version == 2 else "convs"),
        scores=DenseHead(9 * num_classes, head_norm, PRIOR),
        deltas=DenseHead(9 * 4, head_norm),
        box_loss="giou" if version == 2 else "l1",
        anchor_size=anchor_size,
        k=300,
    )


def _heads(within: tuple[str, ...]) -> list[tuple[str, str]]:
    """The names of the heads; `within` is where a convolution of the tower is, by its number from 1."""
    named = {"scores": ("classification", "cls_logits"), "deltas": ("regression", "bbox_reg")}
    return [
        rule
        for ours, (head, outputs) in named.items()
        for rule in (
            *(
                (f"{ours}/tower/conv{i + 1}", f"head.{head}_head.conv.{at}")
                for i, at in enumerate(within)
            ),
            (f"{ours}/tower/norm{{i}}", f"head.{head}_head.conv.{{i-1}}.1"),
            (f"{ours}/outputs", f"head.{head}_head.{outputs}"),
        )
    ]


RENAMES = {
    "torchvision": torchvision_rules(3, *_heads(("0.0", "1.0", "2.0", "3.0"))),
    "torchvision_v1": torchvision_rules(3, *_heads(("0", "2", "4", "6")), old=True),
}
