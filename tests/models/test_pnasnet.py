import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.layers import DropPath
from jaxnets.models import create_model


def cell_parameters(before, previous, features):
    """A cell's, from figure 1 of the paper; `previous` is None in the first cell."""
    f = features

    def norm(channels):
        return 2 * channels

    def separable(side, inputs):
        first = side * side * inputs + inputs * f + norm(f)
        return first + side * side * f + f * f + norm(f)

    count = before * f + norm(f)
    if previous is None:  # the second input is that of the cell, and its pool needs a projection
        left = before
        count += before * f + norm(f)
    else:
        left = f
        count += previous * f + norm(f)  # one 1x1 convolution or two that share the channels
    count += separable(5, left) + separable(7, f)
    count += separable(5, f) + separable(3, f)
    return count + separable(3, f) + separable(3, left)


def net_parameters(depth, features, stem_features):
    f = features
    count = 27 * stem_features + 2 * stem_features
    widths = [None, stem_features]  # of the outputs so far
    cells = [(f // 4, True), (f // 2, True)]
    cells += [(f * 2**stage, stage > 0 and i == 0) for stage in range(3) for i in range(depth)]
    for width, halves in cells:
        count += cell_parameters(widths[-1], widths[-2], width)
        if halves:  # the last sum's identity becomes a 1x1 convolution
            count += width * width + 2 * width
        widths.append(5 * width)
    return count + 20 * f * 1000 + 1000


@pytest.mark.parametrize(
    ("name", "settings"), [("pnasnet5_mobile", (3, 54, 32)), ("pnasnet5_large", (4, 216, 96))]
)
def test_parameters_are_those_of_the_construction(name, settings, count_parameters):
    assert count_parameters(name) == net_parameters(*settings)


def test_parameters_of_the_large_net_are_those_of_the_reference(count_parameters):
    assert count_parameters("pnasnet5_large") == 86_057_668


def test_mobile_net_has_the_papers_parameters_and_multiply_adds(count_parameters, multiply_adds):
    assert count_parameters("pnasnet5_mobile") == pytest.approx(5.1e6, rel=0.02)
    assert multiply_adds("pnasnet5_mobile") == pytest.approx(588e6, rel=0.02)


@pytest.mark.parametrize(
    ("name", "sides", "widths"),
    [
        ("pnasnet5_mobile", (111, 56, 28, 28, 14, 7), (32, 65, 135, 270, 540, 1080)),
        ("pnasnet5_large", (165, 83, 42, 42, 21, 11), (96, 270, 540, 1080, 2160, 4320)),
    ],
)
def test_maps_at_the_nets_own_size(name, sides, widths, map_sizes):
    names = ("conv0", "stem1", "stem2", "stage1", "stage2", "stage3")
    assert list(map_sizes(name).items()) == [
        (layer, (side, width)) for layer, side, width in zip(names, sides, widths, strict=True)
    ]


def test_module_names(shapes_of):
    backbone = shapes_of("pnasnet5_mobile")["params"]["backbone"]
    cells = [f"stage{stage}_cell{i}" for stage in (1, 2, 3) for i in range(1, 4)]
    assert set(backbone) == {"conv0", "bn0", "stem1", "stem2", *cells}
    every = {
        "project_input",
        "sum1_left",
        "sum2_left",
        "sum3_left",
        "sum3_right",
        "sum4_left",
        "sum5_left",
    }
    own = {
        "stem1": {"sum1_right", "sum5_right"},
        "stem2": {"halve_previous", "sum5_right"},
        "stage1_cell1": {"halve_previous"},
        "stage1_cell2": {"project_previous"},
        "stage2_cell1": {"project_previous", "sum5_right"},
        "stage2_cell2": {"halve_previous"},
    }
    assert {cell: set(backbone[cell]) - every for cell in own} == own
    assert all(every <= set(backbone[cell]) for cell in own)


def test_an_odd_number_of_channels_is_halved_too(shapes_of):
    halved = shapes_of("pnasnet5_mobile")["params"]["backbone"]["stem2"]["halve_previous"]
    assert halved["path1_conv"]["kernel"].shape == (1, 1, 32, 13)
    assert halved["path2_conv"]["kernel"].shape == (1, 1, 32, 14)


def test_drop_path_grows_linearly_from_cell_to_cell():
    model, rates = create_model("pnasnet5_large", depth=1, drop_path=0.25), []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    # Nine operations that are no identity in each of five cells.
    assert rates == pytest.approx([0.05 * cell for cell in range(1, 6) for _ in range(9)])
    assert create_model("pnasnet5_large").backbone.drop_path == 0.4


def test_auxiliary_classifier_is_nasnets():
    heads = create_model("pnasnet5_mobile", num_classes=7, aux=True).auxiliary
    assert heads == create_model("nasnet_mobile", num_classes=7, aux=True).auxiliary
    assert list(heads) == ["stage2"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": 3}, "features: wanted at least 4, got 3"),
        ({"aux": True, "num_classes": 0}, "auxiliary classifiers need classes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        create_model("pnasnet5_mobile", **wrong)
