import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model

SMALL = {"depth": 2, "width": 12, "heads": 3, "patch_size": 4, "image_size": 12, "num_classes": 5}
IMAGES = np.random.default_rng(1).normal(size=(2, 12, 8, 3)).astype(np.float32)


def small(**overrides):
    return create_model("vit_base_patch16_224", **{**SMALL, **overrides})


def test_parameter_count(count_parameters):
    assert count_parameters("vit_base_patch16_224") == 86_567_656


def test_maps_at_224(map_sizes):
    blocks = {f"block{i}": (14, 768) for i in range(1, 13)}
    assert map_sizes("vit_base_patch16_224") == {
        "embedding": (14, 768),
        **blocks,
        "norm": (14, 768),
        "class_token": (1, 768),
    }


def test_module_names(shapes_of):
    backbone = shapes_of("vit_base_patch16_224")["params"]["backbone"]
    assert set(backbone) == {"embedding", *(f"block{i}" for i in range(1, 13)), "norm"}
    assert set(backbone["embedding"]) == {"patches", "cls_token", "pos_embed"}
    block = {part: set(layers) for part, layers in backbone["block1"].items()}
    assert block.keys() == {"norm1", "attn", "norm2", "mlp"}
    assert (block["attn"], block["mlp"]) == ({"qkv", "proj"}, {"fc1", "fc2"})


def test_maps_and_scores_match_numpy(drawn_variables):
    model = small()
    variables = drawn_variables(model, IMAGES)
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), variables["params"])
    net = params["backbone"]

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def norm(x, layer):
        centered = x - x.mean(-1, keepdims=True)
        return (
            centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6) * layer["scale"]
            + layer["bias"]
        )

    def attention(x, layers):
        q, k, v = np.split(dense(x, layers["qkv"]), 3, axis=-1)
        heads = []
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            scores = np.exp(q[..., part] @ k[..., part].swapaxes(1, 2) / math.sqrt(4))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[..., part])
        return dense(np.concatenate(heads, -1), layers["proj"])

    def gelu(x):
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2

    # Patch by patch, row by row, behind the class token.
    kernel, bias = net["embedding"]["patches"]["kernel"], net["embedding"]["patches"]["bias"]
    patches = [
        np.einsum("nhwc,hwco->no", IMAGES[:, i : i + 4, j : j + 4].astype(np.float64), kernel) + bias
        for i in (0, 4, 8)
        for j in (0, 4)
    ]
    x = np.stack([np.broadcast_to(net["embedding"]["cls_token"][0, 0], (2, 12)), *patches], axis=1)
    x = x + net["embedding"]["pos_embed"]
    want = {"embedding": x}
    for i in (1, 2):
        block = net[f"block{i}"]
        x = x + attention(norm(x, block["norm1"]), block["attn"])
        y = gelu(dense(norm(x, block["norm2"]), block["mlp"]["fc1"]))
        x = want[f"block{i}"] = x + dense(y, block["mlp"]["fc2"])
    x = want["norm"] = norm(x, net["norm"])

    @jax.jit
    def run(variables, images):
        return model.apply(variables, images, method="features"), model.apply(variables, images)

    maps, scores = run(variables, IMAGES)
    assert list(maps) == [*want, "class_token"]
    for name, tokens in want.items():
        np.testing.assert_allclose(maps[name], tokens[:, 1:].reshape(2, 3, 2, 12), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps["class_token"], x[:, :1, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores, dense(x[:, 0], params["head"]["fc"]), rtol=1e-4, atol=1e-5)


def test_position_embedding_has_the_size_of_the_images_it_was_initialized_with(drawn_variables):
    model = small()
    variables = drawn_variables(model, IMAGES)
    assert variables["params"]["backbone"]["embedding"]["pos_embed"].shape == (1, 1 + 3 * 2, 12)
    with pytest.raises(InputError, match=r"12 x 12 pixels make 9 patches.*made for 6"):
        model.apply(variables, jnp.zeros((1, 12, 12, 3)))


def test_input_size_is_that_of_image_size(shapes_of):
    assert small().input_size == (12, 12, 3)
    shapes = shapes_of("vit_base_patch16_224", image_size=384)["params"]
    assert shapes["backbone"]["embedding"]["pos_embed"].shape == (1, 1 + 24 * 24, 768)


def test_images_that_cannot_be_cut_into_patches_are_refused():
    with pytest.raises(InputError, match=r"12 x 10 pixels.*patches of 4 x 4.*multiples of 4"):
        small().init(jax.random.key(0), jnp.zeros((1, 12, 10, 3)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 5}, "heads: 5 do not divide the width 12"),
        ({"image_size": 18}, "image_size: 18 cannot be cut into patches of 4"),
    ],
)
def test_numbers_that_do_not_divide_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        small(**wrong)


@pytest.mark.zoo
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_finite_and_reach_every_parameter(dtype, drawn_variables, train_gradients):
    model = small(num_classes=2)
    variables = drawn_variables(model, IMAGES)
    logits, grads, _ = train_gradients(model, variables, jnp.asarray(IMAGES), dtype)
    assert logits.dtype == jnp.float32
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


@pytest.mark.parametrize("setting", ["drop_path", pytest.param("dropout", marks=pytest.mark.slow)])
def test_what_is_dropped_is_drawn_in_training_only(setting, drawn_variables):
    plain, dropping = small(), small(**{setting: 0.5})
    variables = drawn_variables(plain, IMAGES)

    @partial(jax.jit, static_argnums=(0, 2))
    def scores(model, seed, train):
        return model.apply(variables, IMAGES, train=train, rngs={"dropout": jax.random.key(seed)})

    evaluated = scores(plain, 0, False)
    np.testing.assert_array_equal(scores(dropping, 0, False), evaluated)
    np.testing.assert_allclose(scores(plain, 0, True), evaluated, rtol=1e-5)
    np.testing.assert_array_equal(scores(dropping, 0, True), scores(dropping, 0, True))
    assert not np.allclose(scores(dropping, 0, True), scores(dropping, 1, True))
