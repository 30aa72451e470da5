"""What is drawn of a run: which mistakes, and how they are counted."""

import json

import numpy as np
import pytest

from jaxnets.data import ArraySource
from jaxnets.runs import pictures


@pytest.fixture
def drawn(monkeypatch):
    """What `plot_*` were called with, by name."""
    calls = {}
    for name in ("plot_confusion", "plot_mistakes", "plot_curves", "plot_layer_ratios"):
        monkeypatch.setattr(
            pictures, name, lambda *args, name=name, **options: calls.update({name: (args, options)})
        )
    return calls


def test_the_surest_mistakes_are_shown_the_worst_first(drawn, tmp_path):
    rng = np.random.default_rng(0)
    count, classes = 200, 4
    labels = rng.integers(0, classes, count)
    scores = rng.random((count, classes))
    probabilities = scores / scores.sum(1, keepdims=True)
    images = np.zeros((count, 2, 2, 1), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None, None]
    source = ArraySource(images, labels, "abcd")

    def predict(images):  # an image is its own number
        return probabilities[images[:, 0, 0, 0]]

    pictures.draw_predictions(tmp_path, predict, source, source.class_names, batch_size=64)
    (matrix, names, _), _ = drawn["plot_confusion"]
    said = probabilities.argmax(1)
    wanted = np.zeros((classes, classes))
    for truth, other in zip(labels, said, strict=True):
        wanted[truth, other] += 1
    np.testing.assert_array_equal(matrix, wanted)
    assert names == tuple("abcd")

    (mistakes, _, _, title), _ = drawn["plot_mistakes"]
    wrong = np.flatnonzero(said != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(1))][: pictures.WORST]
    assert [int(mistake.image[0, 0, 0]) for mistake in mistakes] == worst.tolist()
    assert [mistake.truth for mistake in mistakes] == labels[worst].tolist()
    assert [mistake.said for mistake in mistakes] == said[worst].tolist()
    assert title == f"{len(wrong)} of 200 images wrong, the 25 it was surest of"


def test_the_history_is_drawn_over_epochs_and_ratios_only_where_there_are_some(drawn, tmp_path):
    records = [{"kind": "steps", "step": step, "loss": 1.0, "update_ratio": 1e-3} for step in (4, 8)]
    records.append({"kind": "epochs", "step": 8, "epoch": 2})

    def draw():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "metrics.jsonl").write_text(lines)
        return [path.name for path in pictures.draw_history(tmp_path)]

    assert draw() == ["curves.png"]
    records[1]["update_ratio/head/fc"] = 2e-3
    assert draw() == ["curves.png", "update_ratios.png"]
    (layers, places, _), options = drawn["plot_layer_ratios"]
    assert layers == [{}, {"head/fc": 2e-3}]
    assert places == [1, 2]
    assert options == {"unit": "epoch"}


def test_a_run_without_a_record_has_no_pictures(drawn, tmp_path):
    assert pictures.draw_history(tmp_path) == []
    assert not drawn
