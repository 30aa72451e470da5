"""The picture of a search has a mark for every trial, wherever its values lie."""

import copy

import numpy as np
import pytest
from matplotlib import figure
from PIL import Image

from jaxnets.explain import plot_search

FOUND = {
    "monitor": "top1",
    "form": "{:.2%}",
    "lower_is_better": False,
    "best": 1,
    "stages": [
        {"epochs": 1, "space": {"learning_rate": [1e-4, 1.0], "weight_decay": [1e-5, 1e-1]}},
        {"epochs": 3, "space": {"learning_rate": [1e-3, 1e-1], "weight_decay": [1e-4, 1e-2]}},
    ],
    "trials": [
        {"stage": s, "candidate": c, "values": {"learning_rate": x, "weight_decay": y},
         "stopped": None if top1 else 5, "measured": {"top1": top1, "loss": 1 - top1} if top1 else {}}
        for s, c, x, y, top1 in (
            (1, 1, 0.01, 1e-3, 0.8), (1, 2, 0.05, 2e-3, 0.7), (1, 3, 0.9, 1e-2, None),
            (2, 1, 0.01, 1e-3, 0.9), (2, 4, 0.02, 5e-3, 0.85),
        )
    ],
}  # fmt: skip


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws, and returns the panels; the picture must be one with something on it."""
    seen = []
    save = figure.Figure.savefig
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, *a, **k: (seen.append(self), save(self, *a, **k))
    )

    def drawn(found):
        plot_search(found, tmp_path / "search.png")
        assert np.asarray(Image.open(tmp_path / "search.png")).std() > 10
        return seen[-1].axes[:-1]  # the last is the color bar

    return drawn


def marks(panel):
    return np.concatenate([np.asarray(part.get_offsets()).reshape(-1, 2) for part in panel.collections])


def test_every_candidate_is_marked_once_on_log_axes_and_the_best_is_ringed(drawn):
    (panel,) = drawn(FOUND)
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    wanted = [(0.9, 1e-2), (0.05, 2e-3), (0.01, 1e-3), (0.02, 5e-3), (0.01, 1e-3)]  # the ring is last
    np.testing.assert_allclose(marks(panel), wanted)
    colors = [part.get_array() for part in panel.collections if part.get_array() is not None]
    np.testing.assert_allclose(np.concatenate(colors), [0.7, 0.9, 0.85])
    for (low, high), ends in zip(
        FOUND["stages"][0]["space"].values(), (panel.get_xlim(), panel.get_ylim()), strict=True
    ):
        assert ends[0] < low < high < ends[1]
    labels = {text.get_text() for text in panel.figure.legends[0].get_texts()}
    assert {"stage 1, 1 epoch", "stage 2, 3 epochs", "best", "given up: it diverged"} < labels


def test_of_one_hyperparameter_what_was_measured_is_the_height(drawn):
    found = copy.deepcopy(FOUND)
    for one in (*found["stages"],):
        del one["space"]["weight_decay"]
    for trial in found["trials"]:
        del trial["values"]["weight_decay"]
    (panel,) = drawn(found)
    heights = {tuple(mark) for mark in marks(panel)[1:]}
    assert heights == {(0.05, 0.7), (0.01, 0.9), (0.02, 0.85)}


def test_of_three_there_are_two_panels_and_a_loss_is_drawn_too(drawn):
    found = copy.deepcopy(FOUND) | {"monitor": "loss"}
    for one in found["stages"]:
        one["space"]["momentum"] = [0.5, 0.99]
    for trial in found["trials"]:
        trial["values"]["momentum"] = 0.8
    assert [panel.get_ylabel() for panel in drawn(found)] == ["weight decay", "momentum"]


def test_a_search_of_which_nothing_came_is_drawn_too(drawn):
    found = copy.deepcopy(FOUND) | {"best": None}
    found["trials"] = [trial for trial in found["trials"] if trial["stopped"]]
    (panel,) = drawn(found)
    assert len(marks(panel)) == 1
