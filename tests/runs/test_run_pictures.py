"""What is drawn of a run's history."""

import json

import pytest

from jaxnets.runs import pictures
from jaxnets.training import Headline

HEADLINE = Headline("error", "mean error")


@pytest.fixture
def drawn(monkeypatch):
    """What `plot_*` were called with, by name."""
    calls = {}
    for name in ("plot_curves", "plot_layer_ratios"):
        monkeypatch.setattr(
            pictures, name, lambda *args, name=name, **options: calls.update({name: (args, options)})
        )
    return calls


def test_the_history_is_drawn_over_epochs_and_ratios_only_where_there_are_some(drawn, tmp_path):
    records = [{"kind": "steps", "step": step, "loss": 1.0, "update_ratio": 1e-3} for step in (4, 8)]
    records.append({"kind": "epochs", "step": 8, "epoch": 2})

    def draw():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "metrics.jsonl").write_text(lines)
        return [path.name for path in pictures.draw_history(tmp_path, HEADLINE)]

    assert draw() == ["curves.png"]
    records[1]["update_ratio/head/fc"] = 2e-3
    assert draw() == ["curves.png", "update_ratios.png"]
    assert drawn["plot_curves"][0][3:] == HEADLINE
    (layers, places, _), options = drawn["plot_layer_ratios"]
    assert layers == [{}, {"head/fc": 2e-3}]
    assert places == [1, 2]
    assert options == {"unit": "epoch"}


def test_a_run_without_a_record_has_no_pictures(drawn, tmp_path):
    assert pictures.draw_history(tmp_path, HEADLINE) == []
    assert not drawn
