"""Label maps follow their images through all that moves pixels, to the nearest pixel."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.data import augmentation
from jaxnets.data.example import IGNORE

# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

HEIGHT, WIDTH = 26, 34
LABELS = (0, 3, 7, 250, IGNORE)
EVERY = (
    augmentation.GEOMETRY
    | augmentation.CROPS
    | {"segmentation": augmentation.PRESETS["segmentation"], "digits": augmentation.PRESETS["digits"]}
)
# So strong that much leaves the picture, where the defaults are mild.
STRONG = {
    "crop": {"padding": 14},
    "translate": {"fraction": 0.6},
    "rotate": {"degrees": 180},
    "shear": {"degrees": 40},
    "stretch": {"factor": 2},
    "lens": {"strength": 0.33},
}


@functools.cache
def compiled(name):
    return jit(EVERY[name](**STRONG.get(name, {})))


@st.composite
def label_maps(draw):
    """Rectangles and ellipses over one another, and the (height, width) of the picture that has them."""
    size = draw(st.tuples(st.integers(9, HEIGHT), st.integers(9, WIDTH)))
    labels = np.full(size, draw(st.sampled_from(LABELS)), np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    for _ in range(draw(st.integers(0, 5))):
        down, right = (draw(st.floats(0, side)) for side in size)
        high, wide = (draw(st.floats(1, side / 2)) for side in size)
        distances = np.abs(rows - down) / high, np.abs(columns - right) / wide
        power = draw(st.sampled_from([2, 100]))
        labels[distances[0] ** power + distances[1] ** power < 1] = draw(st.sampled_from(LABELS))
    return labels, size


def example_of(labels, size, boxes):
    """An image with a channel for each label, which is 1 where the label is."""
    more = ((0, HEIGHT - size[0]), (0, WIDTH - size[1]))
    channels = [np.pad(labels == label, more) for label in LABELS]
    found = {
        "image": np.stack(channels, -1).astype(np.float32),
        "size": np.array(size, np.int32),
        "segmentation": np.pad(labels, more, constant_values=IGNORE),
    }
    if boxes:
        found["box"] = np.array([[1, 1, 9, 8], [4, 2, 7, 9]], np.float32)
        found["valid"] = np.ones(2, bool)
    return found


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), drawn=label_maps())
def test_a_label_is_where_the_image_shows_it(name, seed, drawn):
    example = example_of(*drawn, boxes=name == "iou_crop")
    got = jax.tree.map(np.asarray, compiled(name)(jax.random.key(seed), example))
    labels, image = got["segmentation"], got["image"]
    assert labels.dtype == np.uint8
    height, width = got["size"]
    assert (labels[height:] == IGNORE).all()
    assert (labels[:, width:] == IGNORE).all()
    assert set(np.unique(labels)) <= {*np.unique(example["segmentation"]), IGNORE}
    for label, shown in zip(LABELS, np.moveaxis(image, -1, 0), strict=True):
        assert (labels[shown > 1 - 1e-4] == label).all()
        if label != IGNORE:
            assert not (labels[shown < 1e-4] == label).any()
    # What came from outside of the picture is black, and to be ignored.
    assert (labels[image.sum(-1) < 1e-4] == IGNORE).all()
