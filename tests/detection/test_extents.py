"""Padding changes nothing: neither a larger canvas, nor a picture beside, nor empty rows of boxes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_detectors import QUICKLY, SMALL, draw, make, on_canvas, picture, truths

from jaxnets.detection.extents import bounded, extent_of
from jaxnets.layers import Conv

SIZE = (90, 150)  # 96 x 160 in multiples of 32; P6 and P7 then have odd sides
ALONE = ([picture(SIZE)], (96, 160), 3)
TOGETHER = ([picture(SIZE), picture((120, 100), seed=1)], (128, 256), 6)


def doubled(tree):
    """Floats as float64, in which a difference is not one of rounding."""
    return jax.tree.map(lambda x: np.float64(x) if np.asarray(x).dtype == np.float32 else x, tree)


def both(model, variables, images, sizes, objects):
    found = model.apply(variables, images, sizes, method="detect")
    key = jax.random.key(1)
    return found, model.apply(variables, images, sizes, objects, key, train=False, method="losses")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    # Mask R-CNN has all that Faster R-CNN has, and RetinaNet's versions differ in norms and losses.
    [
        pytest.param(name, marks=[pytest.mark.deep] * (name in ("faster_rcnn", "retinanet_v2")))
        for name in SMALL
    ],
)
def test_neither_a_larger_canvas_nor_another_picture_nor_empty_boxes_change_a_number(
    name, double_precision
):
    model = make(name)
    run = jax.jit(partial(both, model), compiler_options=QUICKLY)
    variables = doubled(draw(model))

    def first_of(pictures, canvas, most):
        images, sizes = on_canvas(pictures, canvas)
        objects = truths(model, sizes, canvas, most, masks=name == "mask_rcnn")
        arguments = doubled((images, sizes, objects))
        return jax.tree.map(lambda x: x[0], jax.device_get(run(variables, *arguments)))

    (found, terms), (again, terms_again) = first_of(*ALONE), first_of(*TOGETHER)
    assert found.valid.sum() > 10
    np.testing.assert_array_equal(again.valid, found.valid)
    np.testing.assert_array_equal(again.labels, found.labels)
    np.testing.assert_allclose(again.boxes, found.boxes, atol=1e-8)
    np.testing.assert_allclose(again.scores, found.scores, atol=1e-8)
    if found.masks is not None:
        own = found.valid
        np.testing.assert_allclose(again.masks[own], found.masks[own], atol=1e-8)
    assert all(np.sum(numerator) > 0 for numerator, _ in terms.values())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8), terms_again, terms)


def test_what_belongs_to_a_picture_shrinks_with_its_map_and_is_rounded_up():
    _, extent = extent_of(jnp.zeros((2, 90, 250, 3)), jnp.array([[90, 150], [40, 250]]))
    assert extent.canvas == (96, 256)
    assert extent.padded.tolist() == [[96, 160], [64, 256]]
    assert extent.of_map((3, 8)).tolist() == [[3, 5], [2, 8]]
    assert extent.of_map((1, 2)).tolist() == [[1, 2], [1, 2]]
    assert extent.mask((2, 4))[:, :, 2].tolist() == [[True, True], [True, False]]


def test_a_convolution_reads_zeros_beyond_a_picture():
    conv, images = Conv(2, 3, padding=1), jnp.ones((1, 64, 96, 1))
    variables = conv.init(jax.random.key(0), images)
    _, extent = extent_of(images, jnp.array([[32, 64]]))
    with bounded(extent):
        found = conv.apply(variables, images)
    alone = conv.apply(variables, images[:, :32, :64])
    np.testing.assert_allclose(found[:, :32, :64], alone, atol=1e-6)
    assert np.abs(conv.apply(variables, images)[:, :32, :64] - alone).max() > 0.01
