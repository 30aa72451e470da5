"""Boxes, masks and label maps move as the image does, in every geometric augmentation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.data import augmentation, color, movement
from jaxnets.data.augmentation import IGNORE, move, moving, on_image
from jaxnets.errors import InputError

# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

HEIGHT, WIDTH, OBJECTS = 24, 30, 3
# All, and presets for what is not in them: all at once, and two in a row.
PRESETS = {name: augmentation.PRESETS[name] for name in ("digits", "cifar")}
EVERY = augmentation.GEOMETRY | PRESETS | {"scale_jitter": augmentation.CROPS["scale_jitter"]}
# So strong that objects leave, where the defaults are mild.
STRONG = {
    "crop": {"padding": 14},
    "translate": {"fraction": 0.6},
    "rotate": {"degrees": 180},
    "shear": {"degrees": 40},
    "stretch": {"factor": 2},
    "lens": {"strength": 0.33},
}
BENDING = {"rotate", "shear", "lens", "perspective", "digits"}  # the others move each axis by itself


@functools.cache
def compiled(name):
    """The augmentation of a whole example and of one without masks; and of the image alone."""
    augment = EVERY[name](**STRONG.get(name, {}))

    def both(key, example):
        bare = {part: example[part] for part in ("image", "box", "valid", "size") if part in example}
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
    """But for a few corners, which bilinear reading rounds off; half a pixel aside they would not."""
    mask = np.zeros((OBJECTS, HEIGHT, WIDTH), bool)
    mask[0, 4:13, 4:14] = mask[1, 8:20, 12:24] = mask[2, 2:22, 10:20] = True
    example = {
        "image": np.concatenate([mask, mask[:1]]).transpose(1, 2, 0).astype(np.float32),
        "box": np.zeros((OBJECTS, 4), np.float32),
        "valid": np.ones(OBJECTS, bool),
        "mask": mask,
        "segmentation": painted(mask, True),
        "label": np.arange(OBJECTS),
    }
    both = either = 0
    for seed in range(10):
        got, _ = compiled(name)[0](jax.random.key(seed), example)
        shown = np.asarray(got["image"])[..., :OBJECTS].transpose(2, 0, 1) > 0.5
        both += np.sum(shown & got["mask"])
        either += np.sum(shown | got["mask"])
    assert both > 0.985 * either


@pytest.mark.parametrize("name", augmentation.GEOMETRY)
def test_a_picture_that_fills_a_part_of_its_image_moves_as_if_it_filled_it(name):
    """And what is around it stays black."""
    rng = np.random.default_rng(0)
    mask = np.zeros((OBJECTS, HEIGHT, WIDTH), bool)
    mask[0, 4:13, 4:14] = mask[1, 8:20, 12:24] = mask[2, 2:22, 10:20] = True
    plain = {
        "image": rng.random((HEIGHT, WIDTH, 2), np.float32),
        "box": np.array([box_of(own) for own in mask], np.float32),
        "valid": np.ones(OBJECTS, bool),
        "mask": mask,
        "segmentation": painted(mask, True),
    }
    more, fills = ((0, 7), (0, 3)), {"image": 0, "mask": 0, "segmentation": IGNORE}
    widths = {"image": (*more, (0, 0)), "mask": ((0, 0), *more), "segmentation": more}

    def padded(example):
        wider = {
            part: np.pad(example[part], widths[part], constant_values=fill)
            for part, fill in fills.items()
        }
        return {**example, **wider}

    wide = padded(plain) | {"size": np.array([HEIGHT, WIDTH], np.int32)}
    together, _ = compiled(name)
    for seed in range(3):
        key = jax.random.key(seed)
        for wanted, got in zip(together(key, plain), together(key, wide), strict=True):
            np.testing.assert_array_equal(got.pop("size", wide["size"]), wide["size"])
            wanted = padded(wanted) if "mask" in wanted else wanted
            parts = wanted.keys() if "mask" in wanted else {"box", "valid"}
            for part in parts:
                np.testing.assert_allclose(
                    np.float32(got[part]), np.float32(wanted[part]), atol=1e-4, err_msg=part
                )


def movements():
    return {
        "affine": movement.affine(degrees=200, translation=(3, -2), shear=30, stretch=(0.7, 1.4)),
        "barrel": movement.lens(0.33, HEIGHT, WIDTH),
        "pincushion": movement.lens(-0.33, HEIGHT, WIDTH),
        "no lens": movement.lens(0.0, HEIGHT, WIDTH),
        "crop": movement.axis_aligned((0.3, -0.8), (2.5, -1)),
    }


def test_forth_is_the_inverse_of_back():
    inside = np.random.default_rng(0).uniform(-0.49, 0.49, (300, 2)) * (HEIGHT - 1, WIDTH - 1)
    points = tuple(inside.T.astype(np.float32))

    @jit
    def there_and_back(points):
        return {name: forth(*back(*points)) for name, (back, forth, *_) in movements().items()}

    for name, got in there_and_back(points).items():
        np.testing.assert_allclose(got, points, atol=2e-3, err_msg=name)


def test_a_pincushion_keeps_outside_what_it_moves_out():
    """Of the corners' pixels it has no inverse."""
    corners = np.array([[-12, -15], [-12, 15], [12, 15], [12, -15]], np.float32)
    rows, columns = jit(movement.lens(-0.33, HEIGHT, WIDTH).forth)(*corners.T)
    assert (np.abs(rows) > 12).all()
    assert (np.abs(columns) > 15).all()
    np.testing.assert_array_equal(np.sign(np.stack([rows, columns], 1)), np.sign(corners))


def moved(example, make, *args, **settings):
    """A black image of 10 x 20 and what else there is, by the movement `make(...)`."""
    example = {"image": np.zeros((10, 20, 1), np.float32)} | example
    return jax.tree.map(np.asarray, jit(lambda example: move(example, make(*args, **settings)))(example))


def test_boxes_move_by_parts_of_pixels():
    boxes = np.array([[1.25, 2, 5.5, 8], [0, 0, 20, 10]], np.float32)
    flipped = moved({"box": boxes}, movement.axis_aligned, (1, -1), (0, 0))
    np.testing.assert_array_equal(flipped["box"], [[14.5, 2, 18.75, 8], [0, 0, 20, 10]])
    turned = moved({"box": boxes}, movement.affine, degrees=90)  # the middle is at (10, 5)
    np.testing.assert_allclose(turned["box"], [[0] * 4, [5, 0, 15, 10]], atol=1e-5)
    assert turned["valid"].tolist() == [False, True]  # of (7, 9.5, 13, 13.75) half a pixel is left


def test_what_leaves_is_no_longer_valid():
    boxes = np.array([[1, 1, 4, 4], [1, 1, 8.5, 4], [1, 1, 9.25, 4], [0, 0, 0, 0]], np.float32)
    valid = np.array([True, True, True, False])
    left = moved({"box": boxes, "valid": valid}, movement.affine, translation=(0, -8))
    np.testing.assert_array_equal(left["valid"], [False, False, True, False])
    np.testing.assert_array_equal(left["box"], [[0] * 4, [0] * 4, [0, 1, 1.25, 4], [0] * 4])
    unnamed = moved({"box": boxes}, movement.affine)
    np.testing.assert_array_equal(unnamed["valid"], valid)  # without `valid` all are, unless empty


def test_a_bent_box_holds_its_bent_edges():
    """A barrel pulls corners in further than the middles of edges."""
    box = np.array([[1, 1, 19, 9]], np.float32)
    pulled = moved({"box": box}, movement.lens, 0.3, 10, 20)["box"][0]
    left, top = pulled[:2] - (10, 5)  # of the middles of the edges, at (-9, 0) and (0, -4)
    corner = (9**2 + 19**2) / 4
    np.testing.assert_allclose(left * (1 + 0.3 * left**2 / corner), -9, atol=1e-4)
    np.testing.assert_allclose(top * (1 + 0.3 * top**2 / corner), -4, atol=1e-4)


def test_soft_masks_and_label_maps_of_bytes_keep_their_type():
    mask = np.zeros((1, 10, 20), np.float32)
    mask[0, 2:5, 3:7], mask[0, 5, 3:7] = 0.75, 0.25
    example = {"mask": mask, "segmentation": np.ones((10, 20), np.uint8)}
    got = moved(example, movement.axis_aligned, (1, 1), (0, -2))
    assert got["mask"].dtype == np.float32
    np.testing.assert_array_equal(got["mask"][0, :, 2:], mask[0, :, :-2])
    assert got["segmentation"].dtype == np.uint8
    np.testing.assert_array_equal(np.unique(got["segmentation"][:, :2]), [IGNORE])
    assert got["valid"].tolist() == [True]
    np.testing.assert_array_equal(movement.boxes_of_masks(mask), [[3, 2, 7, 5]])


def test_images_without_objects_pass():
    none = {"box": np.zeros((0, 4), np.float32), "mask": np.zeros((0, 10, 20), bool)}
    for example in (none, {"box": none["box"]}):
        got = moved(example, movement.affine, degrees=5)
        assert got["valid"].shape == (0,)
        assert got["box"].shape == (0, 4)
    assert moved({}, movement.affine, degrees=5).keys() == {"image"}


@pytest.mark.parametrize("name", augmentation.COLOR)
def test_what_is_around_a_picture_keeps_its_color(name):
    """Of three quarters black, some augmentations would make gray."""
    image = np.zeros((8, 8, 3), np.float32)
    image[:4, :4] = 0.5
    example = {"image": image, "size": np.array([4, 4], np.int32)}
    got = np.asarray(jit(augmentation.COLOR[name]())(jax.random.key(3), example)["image"])
    assert not got[4:].any()
    assert not got[:, 4:].any()


def test_contrast_is_about_the_mean_of_the_picture_and_not_of_the_image():
    image = np.full((4, 4, 3), 0.5, np.float32)  # without contrast
    wide = {"image": np.pad(image, ((0, 4), (0, 4), (0, 0))), "size": np.array([4, 4], np.int32)}
    got = jit(color.color_jitter(0, 1, 0, 0))(jax.random.key(1), wide)
    np.testing.assert_allclose(got["image"], wide["image"], atol=1e-6)


@pytest.mark.parametrize("name", augmentation.COLOR)
def test_what_changes_colors_touches_the_image_alone(name):
    augment = augmentation.COLOR[name]()

    def check(key, example):
        got = augment(key, example)
        assert got.keys() == example.keys()
        assert all((got[part] is example[part]) == (part != "image") for part in example)

    shape = jax.ShapeDtypeStruct
    example = {"image": shape((8, 9, 3), "float32"), "mask": shape((2, 8, 9), bool)}
    example |= {"box": shape((2, 4), "float32"), "segmentation": shape((8, 9), "int32")}
    jax.eval_shape(check, jax.random.key(0), example)


def test_a_batch_is_moved_example_by_example_and_what_is_not_of_examples_stays():
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.random((4, 10, 20, 3), np.float32),
        "box": np.tile(np.float32([2, 1, 9, 8]), (4, 1, 1)),
        "segmentation": rng.integers(0, 9, (4, 10, 20)),
        "weight": np.ones(4, np.float32),
    }

    def draw(key):
        return jax.random.randint(key, (), 1, 9)

    shift = moving(lambda key, height, width: movement.affine(translation=(0, draw(key))))

    @jit
    def apply(key, batch):
        got = augmentation.apply(key, batch | {"names": "any"}, shift)
        assert got.pop("names") == "any"
        assert got["weight"] is batch["weight"]
        return got, jax.vmap(draw)(jax.random.split(key, 4))

    got, columns = jax.tree.map(np.asarray, apply(jax.random.key(0), batch))
    assert len(set(columns)) > 1
    for number, by in enumerate(columns):
        for name in ("image", "segmentation"):
            wanted = batch[name][number, :, :-by]
            np.testing.assert_array_equal(got[name][number, :, by:], wanted)
        np.testing.assert_array_equal(got["box"][number], [[2 + by, 1, 9 + by, 8]])


@pytest.mark.parametrize(
    ("example", "complaint"),
    [
        (np.zeros((4, 4, 3)), "a dict with `image`"),
        ({"images": np.zeros((4, 4, 3))}, r"\['images'\]"),
        ({"image": np.zeros((2, 4, 4, 3))}, "augmentation.apply"),
        ({"image": np.zeros((4, 5, 3)), "mask": np.zeros((4, 5))}, r"mask must be \[M, 4, 5\]"),
        ({"image": np.zeros((4, 5, 3)), "mask": np.zeros((2, 5, 4))}, "mask must be"),
        ({"image": np.zeros((4, 5, 3)), "segmentation": np.zeros((2, 2))}, "segmentation must be"),
        ({"image": np.zeros((4, 5, 3)), "box": np.zeros(4)}, "box must be"),
        ({"image": np.zeros((4, 5, 3)), "size": np.zeros(3)}, "size must be"),
    ],
)
@pytest.mark.parametrize("augment", [on_image(lambda key, image: image), EVERY["flip"]()])
def test_other_examples_are_refused(augment, example, complaint):
    with pytest.raises(InputError, match=complaint):
        augment(jax.random.key(0), example)
