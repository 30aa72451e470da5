"""Backbones of captioners that do not learn, or that learned elsewhere."""

import pytest
from small_captioners import draw, make_batch, make_task

from jaxnets.captioning import freeze_backbone, with_backbone
from jaxnets.errors import InputError


def test_pretrained_backbones_take_their_places():
    task, batch = make_task("lrcn"), make_batch()
    variables, other = draw(task, batch), draw(task, batch, seed=7)
    classifier = {
        "params": {"backbone": other["params"]["backbone"], "head": {}},
        "batch_stats": other["batch_stats"],
    }
    for put in (
        with_backbone(variables, classifier),
        with_backbone(freeze_backbone(variables), classifier),
    ):
        home = put.get("frozen", put)
        assert home["params"]["backbone"] is other["params"]["backbone"]
        assert home["batch_stats"]["backbone"] is other["batch_stats"]["backbone"]
        assert put["params"]["decoder"] is variables["params"]["decoder"]
    with pytest.raises(InputError, match="has other .* than the captioner's backbone"):
        with_backbone(variables, {"params": {"backbone": {}}})
