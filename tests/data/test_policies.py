"""RandAugment, TrivialAugment and AugMix: operations and ranges against torchvision's, draws, boxes."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmented import HEIGHT, MOVING, STRENGTHS, WIDTH, picture
from scipy import stats

from jaxnets.data import augmentation, policies
from jaxnets.data.example import IGNORE
from jaxnets.errors import InputError

# Each program runs only a few times: compiling it quickly is worth more than running it quickly.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "data" / "augmentation.npz")
SIZE = HEIGHT, WIDTH
IMAGE = picture(3) / np.float32(255)
LEVEL = 1.001 / 255
RANGES = {
    "randaugment": policies.RANDAUGMENT,
    "trivialaugment": policies.TRIVIALAUGMENT,
    "augmix": policies.AUGMIX,
}


def named(name, strength):
    """Index and strength of an operation; torchvision, too, moves by whole pixels."""
    strength = np.trunc(strength) if name.startswith("translate") else strength
    return jnp.int32(policies.OPERATIONS.index(name)), jnp.float32(strength)


@functools.cache
def single(interpolation="nearest"):
    return jit(lambda image, *own: policies.operated(image, *own, image.shape[:2], interpolation))


@pytest.mark.parametrize("channels", [3, 1])
def test_operations_are_those_of_torchvision(channels):
    image = picture(channels) / np.float32(255)
    for k, own in enumerate(STRENGTHS):
        got = np.asarray(single()(image, *named(*own)))
        atol = 0 if own[0] in MOVING else LEVEL  # as far as what moves, it is the very pixels
        np.testing.assert_allclose(got, GOLDENS[f"{channels} {k}"] / np.float32(255), 0, atol, own)


def test_bilinear_ones_are_those_of_torchvision():
    for k, own in enumerate(STRENGTHS):
        if own[0] in MOVING:
            got = single("bilinear")(IMAGE, *named(*own))
            np.testing.assert_allclose(got, GOLDENS[f"bilinear {k}"] / 255, 0, 0.51 / 255, own)


def test_two_in_a_row_are_those_of_torchvision():
    """What is a level apart after the first may be two after the second, in single pixels."""
    for k, pair in enumerate(GOLDENS["pairs"]):
        got = IMAGE
        for own in pair:
            got = single()(got, *named(*STRENGTHS[own]))
        apart = np.abs(np.asarray(got) - GOLDENS[f"pair {k}"] / 255)
        assert apart.max() < 2.001 / 255
        assert np.mean(apart > LEVEL) < 1e-3


@pytest.mark.parametrize("name", RANGES)
def test_strengths_are_those_of_torchvision(name):
    """Pixels are whole; where float32 has 15.999999 for 16, torchvision moves by 15."""
    ranges, wanted = RANGES[name], GOLDENS[name].copy()
    ops, bins = np.arange(len(policies.OPERATIONS)), np.arange(ranges.bins)

    @jit
    def every(negative):
        def one(op, at):
            return policies.strength_of(ranges, op, at, negative, SIZE)

        return jax.vmap(lambda op: jax.vmap(lambda at: one(op, at))(bins))(ops)

    translations = [policies.OPERATIONS.index(own) for own in ("translate_x", "translate_y")]
    wanted[translations] = np.trunc(wanted[translations] + 1e-5)
    present = ~np.isnan(wanted[:, 0])
    np.testing.assert_allclose(np.asarray(every(False))[present], wanted[present], 1e-6, 1e-6)
    sign = np.where(ops[:, None] < policies.OPERATIONS.index("posterize"), -1, 1)
    np.testing.assert_allclose(np.asarray(every(True))[present], (sign * wanted)[present], 1e-6, 1e-6)


# --- Draws ---


def drawn(monkeypatch, augment, count, image, **entries):
    """So many samples where an operation is as `monkeypatch` has made it."""
    keys = jax.random.split(jax.random.key(0), count)
    many = jit(jax.vmap(lambda key: augment(key, {"image": jnp.asarray(image), **entries})["image"]))
    return np.asarray(many(keys))


def told(image, op, strength, size, interpolation):
    """An operation that shifts what was told before, and tells of itself."""
    shown = jnp.stack([op.astype(jnp.float32), strength])[None]
    return jnp.concatenate([image[:, 2:], shown[..., None]], 1)


def test_trivialaugment_draws_operations_strengths_and_signs_uniformly(monkeypatch):
    monkeypatch.setattr(policies, "operated", told)
    got = drawn(monkeypatch, policies.trivialaugment(), 20000, np.zeros((1, 2), np.float32)[..., None])
    ops, strengths = got[:, 0, :, 0].T
    assert stats.chisquare(np.bincount(ops.astype(int), minlength=14)).pvalue > 1e-3
    turns = np.round(strengths[ops == policies.OPERATIONS.index("rotate")] / 4.5).astype(int)
    assert stats.chisquare(np.bincount(np.abs(turns), minlength=31)).pvalue > 1e-3
    assert stats.binomtest((turns > 0).sum(), (turns != 0).sum()).pvalue > 1e-3


def test_randaugment_draws_its_operations_alike_and_apart_at_one_strength(monkeypatch):
    monkeypatch.setattr(policies, "operated", told)
    augment = policies.randaugment(num_ops=2, magnitude=15)
    got = drawn(monkeypatch, augment, 20000, np.zeros((1, 4), np.float32)[..., None])
    first, strengths, second, _ = got[:, 0, :, 0].T
    pairs = np.bincount((14 * first + second).astype(int), minlength=196)
    assert stats.chisquare(pairs).pvalue > 1e-3
    turns = strengths[first == policies.OPERATIONS.index("rotate")]
    np.testing.assert_array_equal(np.abs(turns), 15)
    assert stats.binomtest((turns > 0).sum(), len(turns)).pvalue > 1e-3


def counted(image, op, strength, size, interpolation):
    """An operation that makes [0, 0, 0] the share that is augmented, how many there were / 10, and the
    first / 100."""
    _, many, first = image[0, 0]
    told = jnp.stack([1.0, many + 0.1, jnp.where(many > 0, first, op.astype(jnp.float32) / 100)])
    return jnp.where(op > 0, told[None, None], image)


@pytest.mark.parametrize("entry", ["none", "box"])
def test_augmix_draws_weights_depths_and_operations(monkeypatch, entry):
    """And no operation that moves pixels, where boxes or labels have their places."""
    monkeypatch.setattr(policies, "operated", counted)
    entries = {"box": jnp.zeros((1, 4))} if entry == "box" else {}
    got = drawn(monkeypatch, policies.augmix(mixture_width=1), 6000, np.zeros((1, 1, 3)), **entries)
    share, many, first = got[:, 0, 0].T
    assert stats.kstest(share, "uniform").pvalue > 1e-3
    depths = np.round(10 * many / share).astype(int)
    assert set(depths) == {1, 2, 3}
    assert stats.chisquare(np.bincount(depths)[1:]).pvalue > 1e-3
    lowest = policies.OPERATIONS.index("brightness") if entries else 1
    ops = np.bincount(np.round(100 * first / share).astype(int), minlength=14)
    assert not ops[:lowest].any()
    assert stats.chisquare(ops[lowest:]).pvalue > 1e-3


def test_the_weights_of_chains_are_of_a_flat_dirichlet_distribution(monkeypatch):
    """Of three, each is Beta(1, 2)."""

    def taking_turns(image, op, strength, size, interpolation):
        return jnp.ones_like(image) * (op == policies.OPERATIONS.index("equalize"))

    monkeypatch.setattr(policies, "operated", taking_turns)
    augment = policies.augmix(mixture_width=3, chain_depth=1)
    got = drawn(monkeypatch, augment, 20000, np.zeros((1, 1, 1)))[:, 0, 0, 0]
    # Of three chains, k end in this one of 13 operations; the original has its share of Beta(1, 1).
    odds = [stats.binom(3, 1 / 13).pmf(k) for k in range(4)]
    assert abs((got == 0).mean() - odds[0]) < 0.01
    means = [0.5 * k / 3 for k in range(4)]
    assert abs(got.mean() - np.dot(odds, means)) < 0.004
    one = stats.beta(1, 2).var() + 1 / 9, 1 / 3  # second moments: of a weight, of a share
    squares = odds[1] * one[0] * one[1] + odds[2] * (1 / 2) * one[1] + odds[3] * one[1]
    assert abs((got**2).mean() - squares) < 0.003


# --- Whole examples ---


def rectangles(count):
    """Examples with a white rectangle on a black image, its box, mask and label map; and their sides."""
    rng = np.random.default_rng(1)
    top, left = rng.integers(0, 14, count), rng.integers(0, 20, count)
    bottom, right = top + rng.integers(6, 10, count), left + rng.integers(6, 11, count)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    within = (rows >= top[:, None, None]) & (rows < bottom[:, None, None])
    within &= (columns >= left[:, None, None]) & (columns < right[:, None, None])
    return {
        "image": np.repeat(within[..., None], 3, -1).astype(np.float32),
        "box": np.stack([left, top, right, bottom], 1)[:, None].astype(np.float32),
        "valid": np.ones((count, 1), bool),
        "mask": within[:, None],
        "segmentation": within.astype(np.uint8),
    }


def test_boxes_and_label_maps_follow_a_painted_rectangle():
    """Through all that moves, in boxes to a pixel and a half: no pixel may show a sharp corner."""
    own = [named(*own) for own in STRENGTHS if own[0] in ("identity", *MOVING)] * 12
    ops, strengths = map(np.stack, zip(*own, strict=True))
    examples = rectangles(len(own))
    del examples["mask"]  # of which boxes would be made anew

    every = jit(jax.vmap(lambda example, *drawn: policies.applied(example, *drawn, SIZE)))
    got = jax.tree.map(np.asarray, every(examples, ops, strengths))
    visible = 0
    for k, shown in enumerate(got["image"][..., 0] > 0.5):
        labels = got["segmentation"][k]
        np.testing.assert_array_equal(labels == 1, shown)
        assert set(np.unique(labels)) <= {0, 1, IGNORE}
        box, valid = got["box"][k, 0], got["valid"][k, 0]
        if not valid:
            assert shown.sum() <= 2 * max(SIZE)
            continue
        rows, columns = np.nonzero(shown)
        if len(rows):
            visible += 1
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(box - seen).max() < 1.5, STRENGTHS[k % len(STRENGTHS)]
    assert visible > len(own) / 2


def test_a_policy_moves_all_that_an_example_holds():
    examples = rectangles(24)
    got = jit(lambda key: augmentation.apply(key, examples, policies.randaugment(1, 20)))
    got = jax.tree.map(np.asarray, got(jax.random.key(0)))
    moved = (got["segmentation"] != examples["segmentation"]).any((1, 2))
    assert 4 < moved.sum() < 16  # 5 of 14 operations move
    assert (got["box"] != examples["box"]).any((1, 2))[moved].any()
    np.testing.assert_array_equal(got["box"][~moved], examples["box"][~moved])
    for k in range(24):
        np.testing.assert_array_equal(got["mask"][k, 0], got["segmentation"][k] == 1)
        rows, columns = np.nonzero(got["mask"][k, 0])
        if len(rows):
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_array_equal(got["box"][k, 0], seen)


def test_what_is_around_a_picture_has_no_part_in_any_operation():
    """The picture comes out as if it filled its image, and what is around it stays black."""
    wide = np.pad(IMAGE, ((0, 5), (0, 9), (0, 0)))
    inside = jit(lambda image, op, strength, size: policies.operated(image, op, strength, tuple(size)))
    for own in {name: (name, strength) for name, strength in STRENGTHS}.values():
        got = np.asarray(inside(wide, *named(*own), np.array(SIZE, np.int32)))
        wanted = np.asarray(single()(IMAGE, *named(*own)))
        np.testing.assert_allclose(got[:HEIGHT, :WIDTH], wanted, 0, LEVEL, own)
        assert not got[HEIGHT:].any()
        assert not got[:, WIDTH:].any()


@pytest.mark.parametrize(
    "name", ["randaugment", "trivialaugment", pytest.param("augmix", marks=pytest.mark.slow)]
)
def test_keys_decide_and_shape_type_and_range_stay(name):
    images = np.stack([IMAGE[:9, :12]] * 8)
    apply = jit(lambda key: augmentation.apply(key, {"image": images}, augmentation.by_name([name])))
    got = np.asarray(apply(jax.random.key(0))["image"])
    assert got.shape == images.shape
    assert got.dtype == np.float32
    assert got.min() >= 0
    assert got.max() <= 1
    np.testing.assert_array_equal(apply(jax.random.key(0))["image"], got)
    assert (np.asarray(apply(jax.random.key(1))["image"]) != got).any()
    assert len({one.tobytes() for one in got}) > 1


@pytest.mark.slow
def test_a_batch_is_its_images_one_by_one_and_gradients_are_finite():
    """GANs are trained through augmentations."""
    names = policies.OPERATIONS
    ops = np.arange(len(names), dtype=np.int32)
    strengths = np.float32([{"posterize": 4, "solarize": 0.5, "rotate": 20}.get(n, 0.3) for n in names])

    def energy(image, op, strength):
        got = policies.operated(image, op, strength, SIZE)
        return jnp.sum(got**2), got

    batched = jit(jax.vmap(jax.grad(energy, has_aux=True), (None, 0, 0)))
    gradients, got = map(np.asarray, batched(IMAGE, ops, strengths))
    assert np.isfinite(gradients).all()
    for name, *own, image in zip(names, ops, strengths, got, strict=True):
        np.testing.assert_allclose(image, single()(IMAGE, *own), atol=LEVEL, err_msg=name)
    # That of brightness is the factor, in spite of the rounding, where nothing is cut off.
    bright = names.index("brightness")
    factor = gradients[bright] / (2 * got[bright])
    np.testing.assert_allclose(factor[got[bright] < 1], 1.3, rtol=1e-5)


def test_on_a_cpu_a_batch_is_computed_image_by_image():
    """Elsewhere there is no loop over images, nor over the pixels of a histogram."""

    def program(platform):
        function = jax.jit(
            jax.vmap(lambda image, op: policies.operated(image, op, jnp.float32(1), SIZE))
        )
        return jax.export.export(function, platforms=[platform])(
            jax.ShapeDtypeStruct((2, *IMAGE.shape), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
        ).mlir_module()

    loops = "stablehlo.while", "stablehlo.scatter"
    here = program("cpu")
    assert all(own in here for own in loops)
    elsewhere = program("cuda")
    assert not any(own in elsewhere for own in loops)


@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        (policies.randaugment, {"num_ops": -1}),
        (policies.randaugment, {"magnitude": 31}),
        (policies.randaugment, {"interpolation": "cubic"}),
        (policies.trivialaugment, {"interpolation": "nearst"}),
        (policies.augmix, {"severity": 11}),
        (policies.augmix, {"mixture_width": 0}),
        (policies.augmix, {"chain_depth": 0}),
        (policies.augmix, {"interpolation": "box"}),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(factory, arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        factory(**arguments)
