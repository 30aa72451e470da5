"""Detectors on any backbone, and the sizes of the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_detectors import CLASSES, QUICKLY, draw, make, on_canvas, picture, truths

from jaxnets import create_model
from jaxnets.detection import create_detector
from jaxnets.errors import InputError

# torchvision 0.29.1: `sum(p.numel() for p in model.parameters())` with 91 classes and with 21; of the
# first versions less the 53,120 of normalizations that are frozen in what is published.
COUNTS = {
    "fasterrcnn_resnet50_fpn": (41_755_286, 41_396_536),
    "fasterrcnn_resnet50_fpn_v2": (43_712_278, 43_353_528),
    "maskrcnn_resnet50_fpn": (44_401_393, 44_024_653),
    "maskrcnn_resnet50_fpn_v2": (46_359_409, 45_982_669),
    "retinanet_resnet50_fpn": (34_014_999, 32_562_849),
    "retinanet_resnet50_fpn_v2": (38_198_935, 36_746_785),
    "fcos_resnet50_fpn": (32_269_600, 32_108_250),
}
BACKBONES = {
    "resnext50_32x4d": {"depths": (1, 1, 1, 1)},
    "vgg11_bn": {"depths": (1, 1, 1, 1, 1)},
    "densenet121": {"depths": (2, 2, 2, 2)},
    "mobilenet_v2_100": {},
    "resnetv2_50": {"depths": (1, 1, 1, 1)},
    "seresnet50": {"depths": (1, 1, 1, 1)},
    "googlenet": {},
    "xception": {},
}


@pytest.mark.parametrize("num_classes", [91, pytest.param(21, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", COUNTS)
def test_a_published_detector_has_the_parameters_of_torchvisions(name, num_classes):
    model = create_model(name, num_classes=num_classes)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    wanted = COUNTS[name][(91, 21).index(num_classes)]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(name, marks=[pytest.mark.deep] * (name in ("xception", "googlenet")))
        for name in BACKBONES
    ],
)
def test_a_detector_on_a_backbone_of_another_family_finds_and_learns(backbone):
    model = make("retinanet", backbone=backbone, backbone_settings=BACKBONES[backbone], norm="batch")
    side = max(64, model.min_size)
    variables = draw(model)
    images, sizes = on_canvas([picture((side - 4, side))], (side, side))
    objects = truths(model, sizes, (side, side), 3)

    def loss(params):
        terms, _ = model.apply(
            {**variables, "params": params}, images, sizes, objects, jax.random.key(1),
            method="losses", mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)},
        )  # fmt: skip
        return sum(numerator.sum() / denominator.sum() for numerator, denominator in terms.values())

    def both(variables):
        return model.apply(variables, images, sizes, method="detect"), jax.grad(loss)(
            variables["params"]
        )

    found, slopes = jax.jit(both, compiler_options=QUICKLY)(variables)
    assert found.valid.any()
    assert set(np.unique(found.labels[found.valid])) <= set(range(CLASSES))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found.boxes, slopes)))
    # Down to the first layer of the backbone.
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes) if leaf.ndim == 4)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("lenet5", "backbone: lenet5 has .* 'resnet50'"),
        ("vit_base_patch16_224", "backbone: vit_base_patch16_224 has .* 'resnet50'"),
        pytest.param(
            "inception_v3",
            "backbone: the maps of inception_v3 lack the picture's borders",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_backbone_without_maps_of_the_strides_is_refused(backbone, message):
    with pytest.raises(InputError, match=message):
        create_detector("retinanet", backbone=backbone)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("fast_rcnn", {}, "unknown kind of detector 'fast_rcnn'.*faster_rcnn"),
        ("fcos", {"num_classes": 0}, "num_classes is 0; wanted"),
        ("fcos", {"num_classes": "many"}, "num_classes is 'many'; wanted"),
        ("fcos", {"first_label": 0}, "first_label"),
        ("fcos", {"backbone": "resnet51"}, "resnet51"),
        ("fcos", {"anchor_size": 16}, "anchor_size"),
        ("retinanet", {"width": 0}, "width"),
        ("faster_rcnn", {"version": 3}, "version"),
        ("mask_rcnn", {"backbone_settings": {"depth": 3}}, "depth"),
    ],
)
def test_what_makes_no_detector_is_refused_by_its_name(kind, settings, message):
    with pytest.raises(InputError, match=message):
        create_detector(kind, **settings)


def test_labels_count_the_classes_from_0_whatever_the_kind():
    for name in ("faster_rcnn", "mask_rcnn"):
        model = make(name)
        assert (model.num_classes, model.first_label) == (CLASSES + 1, -1)
    for name in ("retinanet", "fcos"):
        model = make(name)
        assert (model.num_classes, model.first_label) == (CLASSES, 0)
