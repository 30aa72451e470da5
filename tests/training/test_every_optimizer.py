"""Every optimizer and every schedule trains LeNet-5, and resumes to the same bits."""

import itertools

import jax
import numpy as np
import pytest

from jaxnets import Classification, create_model, data
from jaxnets.training import create_optimizer, create_schedule, fit, list_optimizers, usual_settings
from jaxnets.training.schedules import SCHEDULES

# They begin with steps of nearly nothing, and find their size in more steps than these.
FROM_NOTHING = {"contrib.dadapt_adamw", "contrib.dog", "contrib.prodigy", "radam"}
PAIRS = list(zip(list_optimizers(), itertools.cycle(SCHEDULES)))


@pytest.fixture(scope="module")
def digits():
    train = data.load("digits").train
    examples = [train[i] for i in range(320)]
    images, labels = (np.stack([one[name] for one in examples]) for name in ("image", "label"))
    return data.ArraySource(images, labels, train.class_names)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "schedule"), PAIRS, ids=[name for name, _ in PAIRS])
def test_an_optimizer_trains_lenet_and_resumes_to_the_same_bits(
    optimizer, schedule, digits, one_device, tmp_path
):
    task = Classification(create_model("lenet5"))
    usual = usual_settings(optimizer)
    rate = create_schedule(schedule, usual.learning_rate, 10)

    def run(directory, **options):
        made = create_optimizer(optimizer, rate, weight_decay=usual.weight_decay, clip_norm=5.0)
        return fit(
            task,
            digits,
            optimizer=made,
            epochs=1,
            batch_size=32,
            log_every=1,
            directory=directory,
            parallel=one_device,
            progress=False,
            **options,
        )

    whole, history = run(None)
    losses = [record["loss"] for record in history.steps]
    assert np.mean(losses[-4:]) < losses[0] or optimizer in FROM_NOTHING
    run(tmp_path, stop=lambda step: step == 5)
    resumed, _ = run(tmp_path, resume=True)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
