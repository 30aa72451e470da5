import html
import re

import numpy as np
from PIL import Image

from jaxnets.explain import plot_layer_ratios

GREEN, ORANGE, PALE = (76, 175, 80), (245, 167, 66), (169, 203, 232)


def where(picture, color):
    return np.argwhere(np.abs(picture.astype(int) - color).max(-1) < 6)


def test_a_layer_is_green_within_the_wanted_band_and_another_color_beyond(tmp_path):
    records = [{"conv1": 3e-3, "conv2": 3e-2}, {"conv1": 3e-4, "conv2": 3e-3}]
    plot_layer_ratios(records, [1, 2], tmp_path / "r.png", unit="epoch")
    picture = np.asarray(Image.open(tmp_path / "r.png").convert("RGB"))
    assert (picture[[0, -1]] == 255).all()
    assert (picture[:, [0, -1]] == 255).all()
    field = picture[:, : picture.shape[1] * 3 // 4]
    (upper_green, lower_green), orange, pale = (
        np.array_split(where(field, GREEN)[:, 0], 2), where(field, ORANGE), where(field, PALE)
    )  # fmt: skip
    assert upper_green.max() <= lower_green.min()
    assert orange[:, 0].min() > pale[:, 0].max()  # conv2 is below conv1
    assert orange[:, 1].max() < pale[:, 1].min()  # and the first record on the left


def test_layers_are_in_the_order_of_their_numbers_and_absent_ones_gray(tmp_path):
    records = [{}, {"block10/conv": 1e-3, "block9/conv": float("nan")}]
    plot_layer_ratios(records, [5, 10], tmp_path / "r.svg")
    found = [
        html.unescape(text) for text in re.findall("<!-- (.*?) -->", (tmp_path / "r.svg").read_text())
    ]
    assert found.index("block9/conv") < found.index("block10/conv")
    assert {"step", "update-to-weight ratio of each layer"} <= set(found)
