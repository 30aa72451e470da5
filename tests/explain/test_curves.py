"""Curves, judged by the pixels of the picture."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxnets.explain import plot_curves

# Matplotlib's "tab:blue" and "tab:orange": training and test.
BLUE, ORANGE = (31, 119, 180), (255, 127, 14)

STEPS = [
    {
        "step": s,
        "epoch": (s + 9) // 10,
        "loss": 2 / s,
        "top1": 1 - 1 / s,
        "learning_rate": 1e-3 * (31 - s),
        "update_ratio": 0.02 / s,
    }
    for s in range(1, 31)
]
EPOCHS = [
    {"epoch": e, "step": 10 * e, "test_loss": 3 / (5 * e), "test_top1": 1 - 1 / (4 * e)}
    for e in (1, 2, 3)
]


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    """`draw(steps, epochs)`: the picture as u8[H, W, 3]; a warning is an error."""

    def run(steps, epochs):
        path = tmp_path_factory.mktemp("curves") / "curves.png"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plot_curves(steps, epochs, path, "top1", "accuracy")
        return np.asarray(Image.open(path).convert("RGB"))

    return run


@pytest.fixture(scope="module")
def whole(draw):
    """The picture of a run with a test set."""
    return draw(STEPS, EPOCHS)


def without(records, *names):
    return [{k: v for k, v in record.items() if k not in names} for record in records]


def panels(picture):
    """The quarters of the picture: loss, accuracy, learning rate, update ratio."""
    return np.array_split(picture, 4, axis=1)


def where(picture, color):
    return np.argwhere(np.abs(picture.astype(int) - color).max(-1) < 40)


def counts(picture, color):
    return [len(where(panel, color)) for panel in panels(picture)]


def test_four_panels_are_drawn_beside_each_other(whole):
    height, width, _ = whole.shape
    assert 3.5 < width / height < 5.5
    assert width > 1200
    assert (whole == 255).all(-1).mean() > 0.5  # curves on white


def test_training_is_drawn_in_every_panel_and_the_test_set_in_two(whole):
    assert min(counts(whole, BLUE)) > 150
    loss, accuracy, rate, ratio = counts(whole, ORANGE)
    assert min(loss, accuracy) > 150
    assert rate == ratio == 0


def test_without_a_test_set_nothing_is_drawn_for_it(draw):
    picture = draw(STEPS, without(EPOCHS, "test_loss", "test_top1"))
    assert counts(picture, ORANGE) == [0] * 4
    assert min(counts(picture, BLUE)) > 150


def test_steps_and_epochs_share_one_axis(whole):
    # Both curves end with the third epoch: at the same column of each panel.
    for panel in panels(whole)[:2]:
        last_blue, last_orange = (where(panel, color)[:, 1].max() for color in (BLUE, ORANGE))
        assert abs(last_blue - last_orange) < 8  # a marker is a few pixels wide


def test_the_loss_falls_the_accuracy_rises_and_the_rate_falls_in_the_picture(draw):
    loss, accuracy, rate, _ = panels(draw(STEPS, without(EPOCHS, "test_loss", "test_top1")))

    def ends(panel):
        rows, columns = where(panel, BLUE).T
        first, last = rows[columns == columns.min()], rows[columns == columns.max()]
        return first.mean(), last.mean()

    start, end = ends(loss)
    assert end > start + 50  # rows count from the top
    start, end = ends(accuracy)
    assert end < start - 50
    start, end = ends(rate)
    assert end > start + 50


def test_the_wanted_band_of_the_update_ratio_is_green(whole):
    green = np.array([44, 160, 44]) * 0.15 + 255 * 0.85
    *others, ratio = panels(whole)
    assert (np.abs(ratio - green).max(-1) < 3).mean() > 0.05
    for panel in others:
        assert (np.abs(panel - green).max(-1) < 3).mean() < 0.001


def test_a_run_without_epochs_is_drawn_over_its_steps(draw):
    picture = draw(STEPS, [])
    assert min(counts(picture, BLUE)) > 150
    assert counts(picture, ORANGE) == [0] * 4


def test_what_is_not_known_leaves_its_panel_empty(draw):
    picture = draw(without(STEPS, "top1", "learning_rate"), without(EPOCHS, "test_top1"))
    loss, accuracy, rate, ratio = counts(picture, BLUE)
    assert min(loss, ratio) > 150
    assert accuracy == rate == 0
    assert counts(picture, ORANGE)[0] > 150
    assert counts(picture, ORANGE)[1] == 0


def test_a_run_without_any_record_gives_an_empty_picture(draw):
    picture = draw([], [])
    assert counts(picture, BLUE) == [0] * 4
    assert counts(picture, ORANGE) == [0] * 4


def test_a_loss_that_is_no_number_any_more_does_not_stop_the_picture(draw, whole):
    steps = [*STEPS[:20], *({**record, "loss": float("nan")} for record in STEPS[20:])]
    found, wanted = (panels(picture)[0] for picture in (draw(steps, EPOCHS), whole))
    assert where(found, BLUE)[:, 1].max() < where(wanted, BLUE)[:, 1].max() - 30


@pytest.mark.parametrize(("epochs", "unit", "last"), [(EPOCHS, "epoch", 3), ([], "step", 30)])
def test_the_axis_counts_epochs_or_where_there_are_none_steps(tmp_path, epochs, unit, last):
    path = tmp_path / "curves.svg"  # the ending says the format; each text stands in a comment
    plot_curves(STEPS, epochs, path)
    texts = re.findall("<!-- (.*) -->", path.read_text())
    assert texts.count(unit) == 4
    numbers = [float(text) for text in texts if re.fullmatch(r"[0-9.]+", text)]
    assert 0.6 * last < max(numbers) < 1.2 * last


def test_plotting_opens_no_window_and_keeps_no_figure(whole):
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
