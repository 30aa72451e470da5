"""Coarse-to-fine search: every candidate is a run of `fit`, one that diverges harms no other, and
ranges narrow around what was best."""

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets import Classification, create_model
from jaxnets.data import ArraySource
from jaxnets.data.augmentation import on_image
from jaxnets.errors import InputError
from jaxnets.metrics import Mean
from jaxnets.training import (
    DataParallel,
    DivergenceError,
    SearchResult,
    Stage,
    Trial,
    UpdateRule,
    candidates,
    create_optimizer,
    create_schedule,
    fit,
    halving,
    search,
)
from jaxnets.training.candidates import Outcome, Trainer
from jaxnets.training.divergence import refuse_divergence
from jaxnets.training.searching import draw, narrow

EPOCHS, STEPS_PER_EPOCH = 2, 3  # 96 examples in batches of 32
TAME = [
    {"learning_rate": 0.02, "weight_decay": 1e-3},
    {"learning_rate": 0.1, "weight_decay": 0.1},
    {"learning_rate": 0.004, "weight_decay": 1e-4},
]
WILD = {"learning_rate": 1e30, "weight_decay": 1e-3}  # overflows at once
STEEP = {"learning_rate": 30.0, "weight_decay": 1e-3}  # the loss climbs, and is still a number
SPACE = {"learning_rate": (1e-3, 1.0), "weight_decay": (1e-4, 1e-1)}


def make_optimizer(steps, learning_rate, weight_decay):
    schedule = create_schedule("cosine", learning_rate, steps, warmup_steps=2)
    return create_optimizer("momentum", schedule, weight_decay=weight_decay, clip_norm=1e9)


@pytest.fixture
def dimmed(task):
    """The small convolutional task, of images as bright as it draws: its keys matter."""

    @on_image
    def augment(key, image):
        return image * jax.random.uniform(key)

    return dataclasses.replace(task, augment=augment)


@pytest.fixture
def perceptron():
    """A task that compiles in no time."""
    return Classification(create_model("mlp", num_classes=4, widths=(8,)))


@pytest.fixture
def halves(source):
    """96 examples to train on and 32 to compare by."""
    parts = [(source.images[part], source.labels[part]) for part in (slice(96), slice(96, None))]
    return [ArraySource(*part, source.class_names) for part in parts]


@pytest.fixture
def make_trainer(halves, one_device):
    def make_trainer(task, **options):
        common = {"epochs": EPOCHS, "batch_size": 32, "seed": 3, "precision": "float32", "workers": 0}
        common |= {"stop_above": 3.0, "together": 4, "parallel": one_device} | options
        return Trainer(task, make_optimizer, *halves, **common)

    return make_trainer


@pytest.fixture
def alone(halves, one_device):
    """`fit` with the settings of one candidate."""

    def alone(task, values):
        train, validation = halves
        return fit(
            task,
            train,
            test=validation,
            optimizer=make_optimizer(EPOCHS * STEPS_PER_EPOCH, **values),
            epochs=EPOCHS,
            batch_size=32,
            seed=3,
            log_every=1,
            parallel=one_device,
            progress=False,
        )[1]

    return alone


@pytest.fixture
def quick_search(perceptron, halves, one_device):
    def quick_search(**options):
        options = {
            "optimizer": make_optimizer,
            "space": SPACE,
            "stages": (Stage(5, 1, keep=2), Stage(3, 2)),
            "batch_size": 32,
            "progress": False,
            "parallel": one_device,
        } | options
        return search(perceptron, *halves, **options)

    return quick_search


def assert_is_the_run(outcome, history):
    assert outcome.stopped is None
    assert outcome.start == pytest.approx(history.steps[0]["loss"], rel=1e-5)
    losses = [epoch["train_loss"] for epoch in history.epochs]
    assert outcome.losses == pytest.approx(losses, rel=1e-4)
    last = history.epochs[-1]
    assert outcome.measured["loss"] == pytest.approx(last["test_loss"], rel=1e-4)
    assert outcome.measured["top1"] == last["test_top1"]


@pytest.mark.slow
def test_convolutions_beside_one_that_overflows_train_as_fit_trains_them_alone(
    dimmed, make_trainer, alone
):
    wild, one = make_trainer(dimmed).run([WILD, TAME[0]], lambda n: None)
    assert_is_the_run(one, alone(dimmed, TAME[0]))
    assert wild.stopped is not None


@pytest.mark.slow
def test_each_of_several_together_goes_as_fit_does_alone(perceptron, make_trainer, alone):
    done, group = [], [TAME[0], STEEP, TAME[1], WILD, TAME[2]]
    trainer = make_trainer(perceptron, together=3)  # of the second group one is filled in
    outcomes = trainer.run(group, done.append)
    for place in (2, 4):  # one of each group
        assert_is_the_run(outcomes[place], alone(perceptron, group[place]))
    with pytest.raises(DivergenceError) as told:
        alone(perceptron, STEEP)
    assert outcomes[1].stopped == int(re.search(r"at step (\d+)", str(told.value))[1])
    assert len(outcomes[1].losses) == (outcomes[1].stopped - 1) // STEPS_PER_EPOCH
    assert outcomes[1].measured == outcomes[3].measured == {}
    assert 3 * outcomes[1].start < outcomes[1].stopped_loss < math.inf
    final = [outcomes[place].losses[-1] for place in (0, 2, 4)]
    assert max(final) > 1.05 * min(final)  # the settings do tell
    assert sum(done) == len(group) * trainer.steps


def test_what_is_given_up_becomes_zeros_and_can_spoil_nothing(perceptron, make_trainer, batch):
    trainer = make_trainer(perceptron)
    values = {name: np.float32([WILD[name], TAME[0][name]]) for name in WILD}
    group = trainer._start(values, (batch, None))
    step = jax.jit(jax.vmap(trainer._step, in_axes=(0, None)))
    for _ in range(4):
        group = step(group, batch)
    assert group.stopped[0] > 0
    assert group.stopped[1] == 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(group.state.opt_state))
    for leaf in jax.tree.leaves(group.state.params):
        assert not leaf[0].any()
        assert leaf[1].any()


STEADY = [2.0] * 20
SCRIPTS = (  # losses, and the step at which to give up
    ([0.043] * 15 + [0.142] * 15, None),  # from good weights
    ([-2.0] * 15 + [-1.0] * 15, None),
    ([*STEADY, 9.0, *[2.0] * 9], None),  # a single batch
    ([2.0, 2.0] + [1e3] * 28, 3),
    ([*STEADY, *[100.0] * 10], 21),
    ([-2.0] * 20 + [100.0] * 10, 21),
    ([*STEADY, *[10.0] * 10], 26),  # (4 * 2 + 6 * 10) / 10 > 3 * 2
)


def scripted(task, number, precision):
    """A rule whose losses are those of the script of a number."""

    def step(state, batch):
        losses = jnp.asarray([losses for losses, _ in SCRIPTS], jnp.float32)
        loss = losses[number.astype(int), state.step]
        return state.replace(step=state.step + 1), {"loss": Mean(loss, jnp.ones(()))}

    return UpdateRule(lambda params: (), step)


def test_a_candidate_is_given_up_where_fit_would_stop(perceptron, make_trainer):
    trainer = make_trainer(perceptron, epochs=10, make_rule=scripted, together=len(SCRIPTS))
    trainer = dataclasses.replace(trainer, optimizer=lambda steps, number: number)
    outcomes = trainer.run([{"number": number} for number in range(len(SCRIPTS))], lambda n: None)
    for outcome, (losses, stopped) in zip(outcomes, SCRIPTS, strict=True):
        assert outcome.stopped == stopped
        assert outcome.start == pytest.approx(losses[0])
        records = [{"step": k, "loss": loss, "images": 32} for k, loss in enumerate(losses, start=1)]
        refuse_divergence(records[: (stopped or 31) - 1], 32, 3.0, None)
        if stopped:
            with pytest.raises(DivergenceError):
                refuse_divergence(records[:stopped], 32, 3.0, None)


@pytest.mark.slow
def test_several_devices_share_the_candidates(perceptron, make_trainer):
    group = [TAME[0], WILD, TAME[1], TAME[2], STEEP]  # two of each device, one filled in
    shared = DataParallel.create(devices=jax.devices()[:3])
    outcomes = make_trainer(perceptron, together=6, parallel=shared).run(group, lambda n: None)
    alone = make_trainer(perceptron).run(group, lambda n: None)
    for one, other in zip(outcomes, alone, strict=True):
        assert one.stopped == other.stopped
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
        assert one.measured == pytest.approx(other.measured, rel=1e-5)


@pytest.mark.slow
def test_a_group_of_which_none_goes_on_ends_at_once(perceptron, make_trainer, monkeypatch):
    monkeypatch.setattr(candidates, "LOOK_EVERY", 2)
    trainer, done = make_trainer(perceptron, epochs=50), []
    outcomes = trainer.run([WILD, WILD], done.append)
    assert all(outcome.stopped <= 6 for outcome in outcomes)
    assert len(done) < 10
    assert sum(done) == 2 * trainer.steps  # what was saved counts as done


def test_candidates_are_cut_into_groups_that_fit_into_memory(
    perceptron, make_trainer, one_device, monkeypatch
):
    monkeypatch.setattr(Trainer, "_step", lambda self, one, batch: one)  # quick to compile
    trainer = make_trainer(perceptron, together=3)

    def size(left):
        monkeypatch.setattr(candidates, "_memory_left", lambda device: left)
        return trainer._compile(TAME, one_device)[0]

    of_two = make_trainer(perceptron, together=2)._compile(TAME, one_device)[1]
    needed = candidates._memory_needed(of_two) / candidates.MEMORY_SHARE
    assert [size(1), size(1.01 * needed), size(100 * needed)] == [1, 2, 3]


@pytest.mark.slow
def test_a_search_narrows_keeps_the_best_and_repeats_itself(quick_search):
    seen = []
    result = quick_search(on_stage=seen.append)
    assert result == quick_search()
    assert [len(partial.spaces) for partial in seen] == [1, 2]
    assert seen[-1] == result

    first = [trial for trial in result.trials if trial.stage == 1]
    second = [trial for trial in result.trials if trial.stage == 2]
    assert (len(first), len(second)) == (5, 3)
    kept = sorted(first, key=lambda t: (-t.outcome.measured["top1"], t.outcome.measured["loss"]))[:2]
    kept = {trial.candidate: trial.values for trial in kept}
    assert kept.items() <= {trial.candidate: trial.values for trial in second}.items()
    assert {trial.candidate for trial in second} - set(kept) == {6}  # the new draw
    for name, (low, high) in result.spaces[1].items():
        assert SPACE[name][0] <= low < high <= SPACE[name][1]
        assert all(low <= trial.values[name] <= high for trial in second)
    best = max(second, key=lambda t: (t.outcome.measured["top1"], -t.outcome.measured["loss"]))
    assert result.best == best


def test_all_that_diverge_end_the_search_with_a_word_on_it(quick_search):
    seen = []
    with pytest.raises(DivergenceError, match="all 2 candidates diverged.*learning_rate from 1e\\+28"):
        quick_search(
            space={**SPACE, "learning_rate": (1e28, 1e30)}, stages=[Stage(2, 1)], on_stage=seen.append
        )
    assert seen[0].best is None
    assert all("given up, step" in row["outcome"] for row in seen[0].table)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.floats(-8, 3),
    st.floats(0.01, 6),
)
def test_a_narrowed_range_holds_the_survivors_and_lies_within_the_old_one(places, start, decades):
    low, high = 10**start, 10 ** (start + decades)
    survivors = [{"rate": min(max(low * (high / low) ** place, low), high)} for place in places]
    ends = narrow({"rate": (low, high)}, survivors)["rate"]
    values = [one["rate"] for one in survivors]
    assert low <= ends[0] <= min(values) <= max(values) <= ends[1] <= high
    spread = math.log10(max(values) / min(values))
    width = math.log10(ends[1] / ends[0])
    assert width <= spread + 0.2 * decades + 1e-6  # a tenth of the old width on either side
    assert width >= 0.1 * decades - 1e-6


def test_draws_are_uniform_in_the_logarithm_and_another_for_each_stage_and_seed():
    drawn = draw(SPACE, 2000, seed=0, stage=1)
    for name, (low, high) in SPACE.items():
        places = np.sort([math.log(one[name] / low) / math.log(high / low) for one in drawn])
        assert places[0] >= 0
        assert places[-1] <= 1
        # Kolmogorov-Smirnov: at 2,000 draws the distance is below 0.036 with 99%.
        assert np.abs(places - (np.arange(2000) + 0.5) / 2000).max() < 0.036
    rates = [one["learning_rate"] for one in drawn]
    assert abs(np.corrcoef(np.log(rates), np.log([one["weight_decay"] for one in drawn]))[0, 1]) < 0.08
    assert all(float(f"{rate:.3g}") == rate for rate in rates)  # as printed
    assert draw(SPACE, 5, 0, 1) != draw(SPACE, 5, 0, 2)
    assert draw(SPACE, 5, 0, 1) != draw(SPACE, 5, 1, 1)


def make_result(*trials):
    stages = (Stage(3, 1, keep=2), Stage(2, 4))
    spaces = (SPACE, dict.fromkeys(SPACE, (0.01, 0.02)))
    return SearchResult(stages, spaces, trials, "top1", "{:.2%}", False, 0)


def make_trial(stage, candidate, top1=None, rate=0.05):
    measured = {} if top1 is None else {"loss": 0.5, "top1": top1}
    given_up = (7, math.nan) if top1 is None else (None, None)
    outcome = Outcome(2.0, (1.0, 0.8) if measured else (), *given_up, measured)
    return Trial(stage, candidate, {"learning_rate": rate, "weight_decay": 0.01}, outcome)


def test_the_table_tells_stages_outcomes_and_the_best():
    found = make_result(
        make_trial(1, 2, 0.9), make_trial(1, 1, 0.8), make_trial(1, 3),
        make_trial(2, 1, 0.95), make_trial(2, 2, 0.94),
    )  # fmt: skip
    assert [row["outcome"] for row in found.table] == [
        "kept", "kept", "given up, step 7", "best", "",
    ]  # fmt: skip
    assert found.table[3] == {
        "stage": "2", "number": "1", "learning rate": "0.05", "weight decay": "0.01",
        "train loss": "0.8000", "held-out top1": "95.00%", "held-out loss": "0.5000",
        "outcome": "best",
    }  # fmt: skip
    lines = found.to_markdown().splitlines()
    assert len(lines) == 2 + 5
    assert len({line.count("|") for line in lines}) == 1
    saved = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert saved["best"] == 1
    assert saved["trials"][2]["stopped"] == 7
    assert saved["trials"][2]["stopped_loss"] is None
    assert saved["stages"][1]["space"]["learning_rate"] == [0.01, 0.02]


def test_where_all_of_the_last_stage_diverge_the_best_is_of_the_one_before():
    found = make_result(make_trial(1, 2, 0.9), make_trial(1, 1, 0.8), make_trial(2, 1), make_trial(2, 2))
    assert (found.best.stage, found.best.candidate) == (1, 2)


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0.0011, "lower edge.*0.001 to 1:.*search lower"), (0.05, None), (0.95, "upper.*search higher")],
)
def test_a_best_at_the_edge_of_its_range_is_warned_of(rate, words):
    warnings = make_result(make_trial(1, 1, 0.9, rate)).warnings
    assert len(warnings) == (words is not None)
    if words:
        assert re.search(f"learning_rate.*{words}", warnings[0])


def test_halving_halves_and_keeps_a_quarter():
    assert halving(24, (2, 5, 12)) == (Stage(24, 2, 6), Stage(12, 5, 3), Stage(6, 12, 1))
    assert halving(1, (1, 2)) == (Stage(1, 1, 1), Stage(1, 2, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": [Stage(0, 1)]}, "candidates is 0 in stage 1"),
        ({"stages": [Stage(2, 0)]}, "epochs is 0 in stage 1"),
        ({"stages": [Stage(4, 1, keep=0), Stage(2, 1)]}, "keep is 0 in stage 1"),
        ({"stages": [Stage(4, 1, keep=5), Stage(6, 1)]}, "stage 1 keeps 5.*stage 1 has only 4"),
        ({"stages": [Stage(4, 1, keep=3), Stage(2, 1)]}, "stage 1 keeps 3.*stage 2 has only 2"),
        ({"stages": []}, "stages: none given"),
        ({"space": {}}, "space is empty; give a hyperparameter"),
        ({"space": {**SPACE, "learning_rate": (0.1, 0.01)}}, "learning_rate is from 0.1 to 0.01"),
        ({"space": {**SPACE, "weight_decay": (0.0, 0.01)}}, "weight_decay is from 0 to 0.01; wanted"),
        ({"space": {**SPACE, "weight_decay": (0.1, math.inf)}}, "weight_decay is from 0.1 to inf"),
        ({"space": {**SPACE, "weight_decay": (1e-300, 1)}}, "from 1e-300 to 1; .*of float32"),
        ({"space": {"learning_rat": (0.1, 1)}}, "'learning_rat'; did you mean 'learning_rate'"),
        ({"space": {"learning_rate": (0.1, 1)}}, "space has no weight_decay"),
        ({"stop_above": 1.0}, "stop_above is 1.0"),
        ({"together": 0}, "together is 0"),
        ({"monitor": "topp1"}, "unknown monitor 'topp1'; did you mean 'top1'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(quick_search, options, words):
    with pytest.raises(InputError, match=words):
        quick_search(**options)


def test_halving_refuses_no_candidates():
    with pytest.raises(InputError, match="candidates is 0"):
        halving(0, (1,))
    with pytest.raises(InputError, match="epochs is 0 in stage 2"):
        halving(4, (1, 0))
