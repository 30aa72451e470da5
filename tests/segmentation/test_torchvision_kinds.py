"""FCN, DeepLabV3 and LR-ASPP on any backbone. That they equal torchvision's is in tests/goldens."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.segmentation.building import VOC_CLASSES
from jaxnets.segmentation.creating import create_segmenter
from jaxnets.weights import to_torch

BACKBONES = {
    "resnext50_32x4d": {"depths": (1, 1, 1, 1)},
    "densenet121": {"depths": (2, 2, 2, 2)},
    "mobilenet_v2_100": {},
    "mobilenet_v3_small": {},
    "vgg11_bn": {"depths": (1, 1, 1, 1, 1)},
    "xception": {},
}
ROWS = (
    "fcn_resnet50",
    "deeplabv3_resnet50",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)
SMALL = {"backbone": "resnet18", "backbone_settings": {"depths": (1, 1, 1, 1)}}


def images_of(*size, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((2, *size, 3), dtype)


def shapes_of(model):
    return jax.eval_shape(model.init, jax.random.key(0), images_of(65, 73))


@pytest.mark.parametrize("kind", ["fcn", "deeplabv3", "lraspp"])
@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(name, marks=[] if name in ("densenet121", "vgg11_bn") else [pytest.mark.slow])
        for name in BACKBONES
    ],
)
def test_any_backbone_scores_every_pixel(kind, backbone):
    settings = {"backbone_settings": BACKBONES[backbone], "num_classes": 5}
    model = create_segmenter(kind, backbone=backbone, **settings)
    variables = shapes_of(model)
    assert not [part for part in variables["params"] if part.startswith("auxiliary")]
    for size in ((65, 73), (97, 120)):
        scores = jax.eval_shape(model.apply, variables, images_of(*size))
        assert (scores.shape, scores.dtype) == ((2, *size, 5), jnp.float32)
    coarse = create_segmenter(kind, backbone=backbone, output_stride=32, **settings)
    assert shapes_of(coarse) == variables


@pytest.mark.parametrize(("output_stride", "rows"), [(8, 9), (16, 5), (32, 3)])
def test_output_stride_is_that_of_the_map_that_is_scored(output_stride, rows):
    for kind in ("fcn", "deeplabv3", "lraspp"):
        model = create_segmenter(kind, output_stride=output_stride, **SMALL)
        name = model.decoder.high if kind == "lraspp" else model.decoder.map
        assert name == "stage4"
        run = partial(model.backbone.init_with_output, jax.random.key(0))
        maps = jax.eval_shape(lambda images: run(images)[0], images_of(65, 73))  # noqa: B023
        assert maps[name].shape[1] == rows


@pytest.mark.parametrize("name", ROWS)
def test_auxiliary_scores_are_sown_in_training_alone(name):
    model = create_model(name)
    variables = shapes_of(model)
    apply = partial(
        model.apply, mutable=["batch_stats", "auxiliary"], rngs={"dropout": jax.random.key(1)}
    )
    scores, _ = jax.eval_shape(apply, variables, images_of(65, 73))
    _, evaluated = jax.eval_shape(partial(apply, train=False), variables, images_of(65, 73))
    trained, updated = jax.eval_shape(partial(apply, train=True), variables, images_of(65, 73))
    assert trained == scores
    assert "auxiliary" not in evaluated
    maps = {"fcn_resnet50": "stage3", "deeplabv3_resnet50": "stage3", ROWS[2]: "stage3_block1"}
    assert {key: (value.shape, value.dtype) for key, value in updated.get("auxiliary", {}).items()} == (
        {maps[name]: (scores.shape, jnp.float32)} if name in maps else {}
    )
    assert model.class_names == VOC_CLASSES
    assert create_model(name, 7).class_names == ()


def test_rates_of_deeplabv3_follow_the_output_stride_unless_they_are_given():
    def rates(name="deeplabv3", **settings):
        return create_model(name, **settings).decoder.rates

    assert rates("deeplabv3_resnet101") == rates(output_stride=8) == rates() == (12, 24, 36)
    assert rates("deeplabv3_resnet50", output_stride=16) == (6, 12, 18)
    assert rates(output_stride=32) == rates(backbone="googlenet") == (3, 6, 9)
    assert rates(rates=[2, 4]) == (2, 4)
    assert rates("deeplabv3_mobilenet_v3_large") == (12, 24, 36)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("deeplabv3", {"aux": True, "aux_map": "layer3"}, "unknown map of resnet50 'layer3'; did you"),
        ("lraspp", {"low_map": "stage22"}, "unknown map of resnet50 'stage22'; did you mean"),
        ("fcn", {"backbone": "googlenet", "output_stride": 8}, "output_stride: googlenet cannot be dil"),
        (
            "fcn",
            {"backbone": "lenet5", "aux": True},
            "lenet5 has maps of strides 1, 2, 4 and none of 16",
        ),
        ("fcn", {"backbone": "fcn_resnet50"}, "fcn_resnet50 is a model of segmentation; wanted one of"),
        ("deeplabv3", {"rates": ()}, "rates: wanted"),
    ],
)
def test_what_does_not_fit_is_refused(kind, settings, message):
    with pytest.raises(InputError, match=message):
        create_segmenter(kind, **settings)


def test_a_batch_of_one_trains_all_but_deeplabv3_which_says_why_not():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    for kind in ("fcn", "deeplabv3", "lraspp"):
        model = create_segmenter(kind, **SMALL)
        train = partial(
            model.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
        )
        if kind == "deeplabv3":
            with pytest.raises(InputError, match="give a larger batch"):
                jax.eval_shape(train, shapes_of(model), images)
        else:
            jax.eval_shape(train, shapes_of(model), images)


@pytest.mark.slow
def test_there_are_no_names_of_torchvision_for_other_backbones():
    model = create_segmenter("lraspp", backbone="mobilenet_v2_100")
    with pytest.raises(InputError, match="library: torchvision has no names for a segmenter on Mobile"):
        to_torch("lraspp", shapes_of(model), backbone="mobilenet_v2_100")


@pytest.mark.parametrize("name", ROWS)
def test_bfloat16_computes_in_bfloat16_and_scores_in_float32(name):
    model = create_model(name)
    variables = shapes_of(model)
    params = jax.tree.map(lambda leaf: leaf.update(dtype=jnp.bfloat16), variables["params"])
    variables = {**variables, "params": params}
    images = images_of(65, 73, dtype=jnp.bfloat16)
    apply = partial(model.apply, train=True, mutable=["batch_stats", "auxiliary"])
    apply = partial(apply, rngs={"dropout": jax.random.key(0)})
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        scores, updated = jax.eval_shape(apply, variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves((scores, updated))} == {jnp.dtype(jnp.float32)}
    maps = jax.eval_shape(
        partial(model.apply, method=lambda model, x: model.backbone(x)), variables, images
    )
    assert {leaf.dtype for leaf in maps.values()} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fcn", "deeplabv3", "lraspp"])
def test_gradients_of_an_ensemble_reach_every_parameter(kind):
    settings = {} if kind == "lraspp" else {"aux": True, "dropout": 0.0, "aux_dropout": 0.0}
    model = create_segmenter(kind, num_classes=3, output_stride=16, **SMALL, **settings)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 49, 33, 3)), jnp.float32)
    member = model.init(jax.random.key(0), images)
    ensemble = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[..., ::-1]]), member)
    params = ensemble.pop("params")
    weights = jnp.asarray(rng.normal(size=(2, 49, 33, 3)), jnp.float32)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0))
    def gradients(params, statistics):
        def loss(params):
            scores, updated = model.apply(
                {"params": params, **statistics},
                images,
                train=True,
                mutable=["batch_stats", "auxiliary"],
            )
            heads = [scores, *updated.get("auxiliary", {}).values()]
            return sum(jnp.sum(weights * jax.nn.log_softmax(head)) for head in heads)

        return jax.grad(loss)(params)

    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients(params, ensemble)):
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient, axis=tuple(range(1, gradient.ndim))).all(), path
