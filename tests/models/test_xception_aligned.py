"""The aligned Xception."""

import math

import jax
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model, feature_info


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("xception41", 26_969_560), ("xception65", 39_916_312), ("xception71", 42_338_736)],
)
def test_parameter_count(name, parameters, shapes_of):
    """As timm's."""
    leaves = jax.tree.leaves(shapes_of(name)["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters


def test_maps_and_strides_of_the_flows():
    info = feature_info(create_model("xception71", middle=1))
    assert info == {
        "conv1": (32, 2),
        "conv2": (64, 2),
        "block1_sepconv2": (128, 2),
        "block1": (128, 4),
        "block2": (256, 4),
        "block3_sepconv2": (256, 4),
        "block3": (256, 8),
        "block4": (728, 8),
        "block5_sepconv2": (728, 8),
        "block5": (728, 16),
        "block6": (728, 16),
        "block7_sepconv2": (1024, 16),
        "block7": (1024, 32),
        "block8": (2048, 32),
    }


def test_entry_and_strides_go_together():
    with pytest.raises(InputError, match="strides: wanted one for each of the 3 blocks of entry; got 2"):
        create_model("xception41", strides=(2, 2))
