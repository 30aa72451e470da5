"""Pictures of explanations, judged by their texts and pixels."""

import re
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxnets import explain
from jaxnets.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (2, 16, 20, 3)).astype(np.uint8)
SIGNED = RNG.normal(size=(2, 16, 20, 3))

DRAW = {
    "attributions": lambda path: explain.show_attributions(
        IMAGES, {"saliency": abs(SIGNED), "both signs": SIGNED}, path, ["a dog: 30%", "a cat: 2%"]
    ),
    "filters": lambda path: explain.show_filters(RNG.normal(size=(9, 3, 3, 1)), path),
    "colors": lambda path: explain.show_filters(RNG.normal(size=(12, 3, 3, 3)), path, "in color"),
    "maps": lambda path: explain.show_feature_maps(IMAGES[0], abs(SIGNED[0]), path, "maps of conv1"),
    "deconvnet": lambda path: explain.show_deconvnet(
        IMAGES, SIGNED, [1.5, 0.25], path, [[2, 3, 9, 10], [0, 0, 4, 5]], "unit 3 of conv2"
    ),
    "receptive": lambda path: explain.show_receptive_field(IMAGES[0], [4, 2, 12, 9], path),
    "im2col": lambda path: explain.show_im2col(
        RNG.normal(size=(1, 6, 5, 2)), RNG.normal(size=(3, 2, 2, 4)), path
    ),
}
TEXTS = {
    "attributions": ["a dog: 30%", "a cat: 2%", "saliency", "both signs"],
    "filters": ["filters", "weight", "9 filters of 3 x 3", "8"],
    "colors": ["in color", "12 filters of 3 x 3"],
    "maps": ["maps of conv1", "image", "unit 2", "activation", "3 maps of 16 x 20"],
    "deconvnet": ["unit 3 of conv2", "activation 1.5", "activation 0.25"],
    "receptive": ["receptive field", "7 x 8 of 16 x 20 pixels: rows 2 to 8, columns 4 to 11"],
    "im2col": ["windows @ filters", "4 x 4 places", "12 numbers", "4 filters"],
}


@pytest.mark.parametrize("name", DRAW)
def test_a_picture_says_what_it_shows_and_nothing_is_cut_off(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DRAW[name](tmp_path / "x.svg")
        DRAW[name](tmp_path / "x.png")
    texts = re.findall("<!-- (.*) -->", (tmp_path / "x.svg").read_text())
    for text in TEXTS[name]:
        assert text in texts
    # What is cut off would leave ink in the outermost pixels.
    picture = np.asarray(Image.open(tmp_path / "x.png").convert("L"))
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 255).all()


def test_what_is_positive_is_red_and_what_is_negative_blue(tmp_path):
    values = np.zeros((1, 16, 20))
    values[:, :, :10], values[:, :, 10:] = 1, -1
    explain.show_attributions(IMAGES[:1], {"fall": values}, tmp_path / "x.png")
    picture = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    red, blue = (np.argwhere(picture[..., a] > picture[..., b] + 30)[:, 1] for a, b in ((0, 2), (2, 0)))
    middle = slice(picture.shape[1] // 2, None)  # left of it is the image itself
    red, blue = (columns[columns > middle.start] for columns in (red, blue))
    assert np.median(red) < np.median(blue)


def test_drawing_keeps_the_users_settings(tmp_path):
    before = dict(matplotlib.rcParams)
    DRAW["maps"](tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: explain.show_attributions(SIGNED, {}, path), "uint8"),
        (
            lambda path: explain.show_attributions(IMAGES, {"x": SIGNED[:1]}, path),
            "1 attributions",
        ),
        (lambda path: explain.show_filters(np.ones((3, 3)), path), r"\(3, 3\)"),
        (lambda path: explain.show_feature_maps(IMAGES[0], SIGNED, path), "of one image"),
        (lambda path: explain.show_deconvnet(IMAGES, SIGNED[:1], [1], path), "1 projections for 2"),
        (lambda path: DRAW["maps"](path.with_suffix(".mp3")), "mp3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, words, tmp_path):
    with pytest.raises(InputError, match=words):
        call(tmp_path / "x.png")
