"""Repeated augmentation in a run of a classifier."""

import jax
import numpy as np
import pytest

from jaxnets import recipes
from jaxnets.runs.recipe import dataset_of, prepared

SMALL = ("--model", "mlp", "--settings", "widths=[8]", "--image-size", "8", "--epochs", "4")


def test_batches_of_a_run_hold_the_copies_that_it_is_configured_for():
    recipe = recipes.get("classification")
    config = recipe.Config(
        model="mlp", settings=("widths=[8]",), image_size=8, repeats=4, batch_size=8, balance="under"
    )
    run = prepared(recipe, config, dataset_of(recipe, config, None), None)
    assert run.train.repeats == 4
    assert not hasattr(run.test, "repeats")


@pytest.mark.slow
def test_an_augmented_run_that_was_killed_and_resumed_ends_in_the_same_bits(whole_and_killed):
    words = ["classification", *SMALL, "--augment", "randaugment", "--repeats", "3"]
    ends = whole_and_killed([*words, "--checkpoint-every", "5"], last=88)
    jax.tree.map(np.testing.assert_array_equal, *ends)
