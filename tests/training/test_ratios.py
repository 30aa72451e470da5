"""The update-to-weight ratio of each layer, and that measuring it changes nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from jaxnets import training
from jaxnets.training import DataParallel
from jaxnets.training.ratios import with_layer_ratios
from jaxnets.training.state import TrainState, create_state

LAYERS = ("backbone/conv1", "backbone/conv2", "head/fc")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["single", "pmap", "shard_map"])
def test_ratios_are_those_of_the_weights_before_and_after(task, batch, strategy):
    parallel = DataParallel.create(strategy, devices=jax.devices()[:2])
    step = parallel.compile_train_step(training.make_train_step(task, optax.sgd(0.1)))
    state = create_state(task, optax.sgd(0.1), jax.random.key(0), batch)
    # A copy on the devices of its own each time: the state is donated.
    fresh = lambda: parallel.replicate(jax.tree.map(np.asarray, state))  # noqa: E731
    plain, sums = step(fresh(), parallel.put(batch))
    measured, more = with_layer_ratios(step)(fresh(), parallel.put(batch))
    jax.tree.map(np.testing.assert_array_equal, plain, measured)
    assert more.keys() - sums.keys() == {f"update_ratio/{layer}" for layer in LAYERS}
    before, after = (flatten_dict(s.params, sep="/") for s in (state, plain))
    for layer in LAYERS:
        old, new = (np.asarray(tree[f"{layer}/kernel"], np.float64) for tree in (before, after))
        wanted = np.linalg.norm(new - old) / np.linalg.norm(old)
        assert float(more[f"update_ratio/{layer}"].compute()) == pytest.approx(wanted, rel=1e-4)


def test_a_layer_of_zeros_has_no_ratio():
    weights = {"zeros": {"kernel": jnp.zeros((2, 2))}, "ones": {"kernel": jnp.ones((2, 2))}}
    empty = TrainState(step=0, params=weights, collections={}, opt_state=(), ema=None, key=None)
    moved = empty.replace(params=jax.tree.map(lambda leaf: leaf + 0.5, weights))
    _, sums = with_layer_ratios(lambda state, batch: (moved, {}))(empty, {})
    assert np.isnan(sums["update_ratio/zeros"].compute())
    assert sums["update_ratio/ones"].compute() == 0.5


@pytest.mark.slow
def test_a_run_may_go_on_with_or_without_ratios_and_ends_in_the_same_bits(
    task, source, tmp_path, one_device
):
    def fit(epochs, **options):
        return training.fit(
            task,
            source,
            optimizer=optax.sgd(0.1),
            epochs=epochs,
            batch_size=32,
            log_every=1,
            parallel=one_device,
            progress=False,
            **options,
        )

    whole, history = fit(2)
    fit(1, directory=tmp_path)
    resumed, measured = fit(2, directory=tmp_path, resume=True, layer_ratios=True)
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
    assert "update_ratio/head/fc" not in measured.epochs[0]
    parts = [record["update_ratio/head/fc"] for record in measured.steps[4:]]
    assert measured.epochs[1]["update_ratio/head/fc"] == pytest.approx(np.mean(parts))
    for plain, more in zip(history.steps, measured.steps, strict=True):
        assert plain["loss"] == more["loss"]


def test_an_epoch_begun_without_ratios_is_summed_up_over_the_rest():
    from jaxnets.training.logs import History
    from jaxnets.training.loop import Schedule, _epoch_record

    part = {"step": 1, "epoch": 1, "loss": 1.0, "images": 10, "images_per_second": 5.0, "data_wait": 0.0}
    history = History(steps=[part, {**part, "step": 2, "loss": 2.0, "update_ratio/fc": 0.5}])
    record = _epoch_record(history, Schedule(1, 2, 10), 2, {})
    assert record["train_loss"] == 1.5
    assert record["update_ratio/fc"] == 0.5
