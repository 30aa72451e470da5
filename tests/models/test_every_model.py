"""What holds for every name in the registry, whatever its family."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model, feature_info, list_models
from jaxnets.models.registry import families

# The deep ones take seconds to trace; the default run has a few that do not.
_QUICK = {"alexnet", "lenet5", "mlp", "resnet18", "squeezenet1_0", "vgg11"}
FIRST_OF_EACH_FAMILY = [
    pytest.param(name, marks=[] if name in _QUICK else [pytest.mark.zoo])
    for name in (next(iter(family.VARIANTS)) for family in families("classification"))
]

_FIRST = [param.values[0] for param in FIRST_OF_EACH_FAMILY]

_LONG = ("nasnet_mobile", "pnasnet5_mobile", "polynet", "inception_resnet_v2", "seresnet50", "dpn68")

of_every_model = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in _FIRST and name not in _LONG else [pytest.mark.zoo])
        for name in list_models(task="classification")
    ],
)
of_every_family = pytest.mark.parametrize("name", FIRST_OF_EACH_FAMILY)


_MINUTES_TO_COMPILE = ("nasnet_mobile", "pnasnet5_mobile", "polynet")


_INSTEAD = {
    "dpn68",
    "inception_v4",
    "inception_resnet_v2",
}  # of which shorter nets have goldens of training


def compiled(names, deep):
    """All of the names, few of them in the default run: those that compile in seconds; in CI not the
    `deep` ones."""
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(
                name,
                marks=[
                    *([] if name in ("lenet5", "resnet18") else [pytest.mark.zoo]),
                    *([pytest.mark.deep] if name in deep else []),
                ],
            )
            for name in names
        ],
    )


def images_for(model, dtype=jnp.float32, side=None):
    height, width, channels = model.input_size
    size = (height, width) if side is None else (side, side)
    return jax.ShapeDtypeStruct((2, *size, channels), dtype)


@of_every_model
def test_module_names_are_explicit(name, shapes_of):
    for path, _ in jax.tree_util.tree_leaves_with_path(shapes_of(name)):
        part, *modules = [key.key for key in path[1:-1]]
        assert part in ("backbone", "head") or part.startswith("auxiliary_")
        # Flax's own names are Conv_0, BatchNorm_12.
        assert modules
        assert not [m for m in modules if re.fullmatch(r"[A-Z]\w*_\d+", m)], path


@of_every_model
def test_collections_are_parameters_and_statistics(name, shapes_of):
    assert set(shapes_of(name)) in ({"params"}, {"params", "batch_stats"})


@of_every_family
def test_logits_are_float32_of_the_models_own_classes(name, shapes_of):
    model = create_model(name)
    logits = jax.eval_shape(model.apply, shapes_of(name), images_for(model))
    assert (logits.shape, logits.dtype) == ((2, model.num_classes), jnp.float32)


@of_every_family
def test_number_of_classes_shapes_the_last_dense_layer_only(name, shapes_of):
    own, seven = shapes_of(name)["params"], shapes_of(name, num_classes=7)["params"]
    assert seven["backbone"] == own["backbone"]
    *hidden, last = sorted(own["head"])
    assert [seven["head"][layer] for layer in hidden] == [own["head"][layer] for layer in hidden]
    assert seven["head"][last]["bias"].shape == (7,)


@of_every_family
def test_no_classes_leave_what_the_last_dense_layer_read(name, shapes_of):
    bare, head = create_model(name, num_classes=0), shapes_of(name)["params"]["head"]
    *hidden, last = sorted(head)
    variables = shapes_of(name, num_classes=0)
    assert sorted(variables["params"].get("head", {})) == hidden
    units = jax.eval_shape(bare.apply, variables, images_for(bare))
    assert (units.shape, units.dtype) == ((2, head[last]["kernel"].shape[0]), jnp.float32)


@of_every_family
def test_features_are_maps_from_shallow_to_deep(name, map_sizes):
    sides = [side for side, _ in map_sizes(name).values()]
    assert len(sides) >= 2
    assert sides == sorted(sides, reverse=True)


@of_every_family
def test_channels_and_strides_of_maps_are_known(name, map_sizes):
    side, info = create_model(name).input_size[0], feature_info(create_model(name))
    sizes = map_sizes(name)
    assert list(info) == list(sizes)
    assert {name: channels for name, (channels, _) in info.items()} == {
        name: channels for name, (_, channels) in sizes.items()
    }
    for rows, (_, stride) in zip((rows for rows, _ in sizes.values()), info.values(), strict=True):
        if rows > 1:  # how many pixels an unpadded net loses at the edges is its own affair
            assert stride == 1 or stride & (stride - 1) == 0
            assert side / stride - 7 < rows <= side / stride + 1
        else:
            assert stride == side


def test_strides_are_exact_where_edges_are_lost():
    assert [stride for _, stride in feature_info(create_model("lenet5")).values()] == [1, 2, 2, 4]
    assert feature_info(create_model("alexnet"))["pool5"] == (256, 32)


@of_every_family
def test_bfloat16_computes_in_bfloat16_and_keeps_statistics_and_logits_in_float32(name, shapes_of):
    model, variables = create_model(name), shapes_of(name)
    params = jax.tree.map(lambda p: p.update(dtype=jnp.bfloat16), variables["params"])
    variables = {**variables, "params": params}
    images = images_for(model, jnp.bfloat16)
    train = partial(model.apply, train=True, mutable=["batch_stats"])
    keys = {"dropout": jax.random.key(0)}
    logits, updated = jax.eval_shape(partial(train, rngs=keys), variables, images)
    assert logits.dtype == jnp.float32
    assert all(s.dtype == jnp.float32 for s in jax.tree.leaves(updated))
    features = jax.eval_shape(partial(model.apply, method="features"), variables, images)
    assert {f.dtype for f in features.values()} == {jnp.dtype(jnp.bfloat16)}


@of_every_family
def test_images_below_the_smallest_are_refused(name):
    model = create_model(name)
    smallest = model.min_size
    jax.eval_shape(model.init, jax.random.key(0), images_for(model, side=smallest))
    with pytest.raises(InputError, match=f"{name} takes .*{smallest} x {smallest} pixels"):
        jax.eval_shape(model.init, jax.random.key(0), images_for(model, side=smallest - 1))


def ensemble_gradients(model):
    """The gradients of a loss for each member's parameters, and its logits, compiled as one program."""

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None))
    def gradients(params, statistics, images):
        def loss(params):
            logits = model.apply({"params": params, **statistics}, images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(2))
            return jnp.mean(losses), logits

        return jax.grad(loss, has_aux=True)(params)

    return gradients


@compiled(list_models(task="classification"), deep=set(list_models()) - {*_FIRST, "resnext50_32x4d"})
def test_jit_grad_vmap_over_an_ensemble_and_export_for_cpu_and_tpu_lower(name, shapes_of):
    model, variables = create_model(name), dict(shapes_of(name))
    images = images_for(model)
    exported = jax.export.export(jax.jit(model.apply), platforms=("cpu", "tpu"))(variables, images)
    assert exported.platforms == ("cpu", "tpu")
    assert [(out.shape, out.dtype) for out in exported.out_avals] == [
        ((2, model.num_classes), jnp.float32)
    ]

    ensemble = jax.tree.map(lambda leaf: leaf.update(shape=(3, *leaf.shape)), variables)
    params = ensemble.pop("params")
    gradients, logits = ensemble_gradients(model).lower(params, ensemble, images).out_info
    assert logits.shape == (3, 2, model.num_classes)
    assert jax.tree.map(lambda leaf: leaf.shape, gradients) == jax.tree.map(
        lambda leaf: leaf.shape, params
    )


@pytest.mark.slow
@compiled((name for name in _FIRST if name not in _MINUTES_TO_COMPILE), deep=_INSTEAD)
def test_an_ensembles_gradients_and_the_exported_model_agree_on_the_logits(name, drawn_variables):
    model = create_model(name, num_classes=10)
    side = max(8, model.min_size)
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(2, side, side, model.input_size[-1])), jnp.float32)
    member = drawn_variables(model, images)
    other = jax.tree.map(lambda leaf: leaf[..., ::-1], member)
    ensemble = jax.tree.map(lambda *leaves: jnp.stack(leaves), member, other)
    params = ensemble.pop("params")
    found, logits = ensemble_gradients(model)(params, ensemble, images)
    read = {key: part for key, part in found.items() if not key.startswith("auxiliary")}
    for path, gradient in jax.tree_util.tree_leaves_with_path(read):
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient, axis=tuple(range(1, gradient.ndim))).all(), path

    exported = jax.export.export(jax.jit(model.apply), platforms=("cpu", "tpu"))(member, images)
    for index, variables in enumerate((member, other)):
        alone = exported.call(variables, images)
        assert np.ptp(alone, axis=0).max() > 1e-3 * np.abs(alone).max()  # two images, two answers
        np.testing.assert_allclose(logits[index], alone, rtol=0, atol=1e-4 * float(np.abs(alone).max()))
