"""Boxes, masks and label maps move as the image does, in every geometric augmentation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.data import augmentation, movement
from jaxnets.data.augmentation import IGNORE, move, moving, on_image
from jaxnets.errors import InputError

# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

HEIGHT, WIDTH, OBJECTS = 24, 30, 3
EVERY = augmentation.GEOMETRY | augmentation.PRESETS
# So strong that objects leave, where the defaults are mild.
STRONG = {
    "crop": {"padding": 14},
    "translate": {"fraction": 0.6},
    "rotate": {"degrees": 180},
    "shear": {"degrees": 40},
    "stretch": {"factor": 2},
    "lens": {"strength": 0.33},
}
BENDING = {"rotate", "shear", "lens", "digits"}  # the others move each axis by itself


@functools.cache
def compiled(name):
    """The augmentation of a whole example and of one without masks; and of the image alone."""
    augment = EVERY[name](**STRONG.get(name, {}))

    def both(key, example):
        bare = {part: example[part] for part in ("image", "box", "valid")}
        return augment(key, example), augment(key, bare)

    return jit(both), jit(lambda key, image: augment(key, {"image": image}))


@st.composite
def shapes(draw):
    """The mask of a rectangle or ellipse, and whether it is a rectangle."""
    left, top = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    width, height = draw(st.integers(1, WIDTH - left)), draw(st.integers(1, HEIGHT - top))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    down, right = (rows - top) / height * 2 - 1, (columns - left) / width * 2 - 1
    rectangle = draw(st.booleans())
    inside = np.maximum(abs(down), abs(right)) < 1 if rectangle else down**2 + right**2 < 1
    return inside, rectangle


def painted(mask, inside):
    """The label map of objects, of which later ones lie above."""
    labels = np.zeros(mask.shape[1:], np.int32)
    for number, own in enumerate(mask):
        labels[own] = number + 1
    return np.where(inside, labels, IGNORE)


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0] * 4


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    objects=st.lists(shapes(), min_size=OBJECTS, max_size=OBJECTS),
    valid=st.lists(st.sampled_from([True, True, False]), min_size=OBJECTS, max_size=OBJECTS),
)
def test_all_that_an_example_holds_moves_together(name, seed, objects, valid):
    key, valid = jax.random.key(seed), np.array(valid)
    mask = np.stack([own for own, _ in objects])
    # A channel is an object's mask, and the last tells what lies inside the picture.
    image = np.concatenate([mask, np.ones_like(mask[:1])]).transpose(1, 2, 0).astype(np.float32)
    example = {
        "image": image,
        "box": np.array([box_of(own) for own in mask], np.float32),
        "valid": valid,
        "mask": mask,
        "segmentation": painted(mask, True),
        "label": np.arange(OBJECTS),
    }
    together, alone = compiled(name)
    got, bare = jax.tree.map(np.asarray, together(key, example))
    for part, value in example.items():
        assert got[part].shape == value.shape
        assert got[part].dtype == jnp.asarray(value).dtype
    for image in (bare["image"], alone(key, example["image"])["image"]):
        np.testing.assert_array_equal(got["image"], image)
    np.testing.assert_array_equal(got["label"], example["label"])

    # Masks are where the image shows the object, and are not where it shows nothing of it.
    *seen, inside = got["image"].transpose(2, 0, 1)
    for own, shown in zip(got["mask"], seen, strict=True):
        assert own[shown > 1 - 1e-5].all()
        assert not own[shown < 1e-5].any()
    # The label map is that of the moved masks, and what came from outside is to be ignored.
    ignored = got["segmentation"] == IGNORE
    assert not ignored[inside > 1 - 1e-5].any()
    assert ignored[inside < 1e-5].all()
    assert not got["mask"][:, ignored].any()
    np.testing.assert_array_equal(got["segmentation"], painted(got["mask"], ~ignored))

    for number, (own, box) in enumerate(zip(got["mask"], bare["box"], strict=True)):
        wanted = np.array(box_of(own))
        # With masks, boxes are theirs, and what has none has left.
        assert got["valid"][number] == (valid[number] and own.any())
        np.testing.assert_array_equal(got["box"][number], wanted if got["valid"][number] else 0)
        # Without masks, they hold all pixels whose centers they moved: to half a pixel.
        if not valid[number] or not bare["valid"][number]:
            assert not bare["valid"][number]
            assert not box.any()
            sides = wanted[2:] - wanted[:2]
            assert not valid[number] or sides.min() <= 1
        elif own.any():
            beyond = np.array([1, 1, -1, -1]) * (box - wanted)
            assert beyond.max() < 0.501
            if name not in BENDING and objects[number][1]:
                assert beyond.min() > -0.501


@pytest.mark.parametrize("name", augmentation.GEOMETRY)
def test_large_masks_cover_what_the_image_shows(name):
    """To the corners, which bilinear reading rounds off; half a pixel aside they would not."""
    mask = np.zeros((OBJECTS, HEIGHT, WIDTH), bool)
    mask[0, 4:13, 4:14] = mask[1, 8:20, 12:24] = mask[2, 2:22, 10:20] = True
    image = np.concatenate([mask, mask[:1]]).transpose(1, 2, 0).astype(np.float32)
    example = {
        "image": image,
        "box": np.zeros((OBJECTS, 4), np.float32),
        "valid": np.ones(OBJECTS, bool),
        "mask": mask,
        "segmentation": painted(mask, True),
        "label": np.arange(OBJECTS),
    }
    for seed in range(12):
        got, _ = compiled(name)[0](jax.random.key(seed), example)
        shown, own = np.asarray(got["image"]).transpose(2, 0, 1)[:3] > 0.5, np.asarray(got["mask"])
        print(name, seed, [(round((a & b).sum() / max((a | b).sum(), 1), 3), b.sum()) for a, b in zip(shown, own)])
