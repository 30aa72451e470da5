"""The families' `WEIGHTS` say what the libraries that published them say (`make_published.py`)."""

import json
import math
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from jaxnets.models import create_model, list_models, published_weights
from jaxnets.models.published import TOP1
from jaxnets.weights import libraries

SAID = json.loads((Path(__file__).parent / "data" / "published.json").read_text())
ROWS = [(name, row) for name in list_models(pretrained=True) for row in published_weights(name)]


def test_every_row_is_compared():
    assert sorted(row.source for _, row in ROWS) == sorted(SAID)


def test_the_page_of_public_weights_is_current():
    """Otherwise: python docs/make_pretrained.py"""
    script = Path(__file__).parents[2] / "docs" / "make_pretrained.py"
    page = runpy.run_path(script)
    text = page["PAGE"].read_text()
    assert page["current"](text) == text
    listed = re.findall(r"^\| `(.+?)` \|.* `(.+?)` \|$", text, re.MULTILINE)
    assert sorted(listed) == sorted((name, row.source) for name, row in ROWS)


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[row.source for _, row in ROWS])
def test_a_row_says_what_its_library_says(name, row):
    said = SAID[row.source]
    assert row.architecture == said["architecture"]
    assert row.size == said["size"]
    assert row.longest == said.get("longest")
    if "interpolation" in said:
        assert row.interpolation == said["interpolation"]
    if "crop_pct" in said:  # of timm, which rounds so
        assert row.resize == math.floor(said["size"] / said["crop_pct"])
    if "resize" in said:
        assert row.resize == said["resize"]
    if "top1" in said:
        assert row.claims == {TOP1: pytest.approx(said["top1"], abs=0.006)}
    if "claims" in said:
        assert row.claims == said["claims"]
    if "license" in said:
        assert row.license.lower() == said["license"]
    assert row.order == said.get("order", "RGB")
    mean, std = np.array(said["mean"]), np.array(said["std"])
    if said.get("transform_input"):
        # torchvision's net first computes x * std / 0.5 + (mean - 0.5) / 0.5 of normalized channels x,
        # which (v - mean) / std has become (v - 0.5) / 0.5 by then.
        mean, std = np.full(3, 0.5), np.full(3, 0.5)
    np.testing.assert_allclose(row.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(row.std, std, rtol=1e-6)
    assert row.library in libraries(name)
    create_model(name, **row.settings)  # which refuses settings that it does not have
    assert row.resize >= (row.size or 0)
