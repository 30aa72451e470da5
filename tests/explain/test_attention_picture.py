import numpy as np
import pytest
from PIL import Image

from jaxnets.errors import InputError
from jaxnets.explain import plot_attention


def test_the_image_is_lit_where_the_decoder_looked(tmp_path):
    maps = np.full((2, 4, 4), 1e-3, np.float32)
    maps[0, 0, 0] = maps[1, 3, 3] = 0.98
    image = np.full((32, 32, 1), 200, np.uint8)
    plot_attention(image, ["upper", "lower"], maps, tmp_path / "looked.png")
    drawn = np.asarray(Image.open(tmp_path / "looked.png").convert("L")).astype(int)
    # Three pictures side by side; of a word's, the lit corner is the brightest and the other dark.
    third = drawn.shape[1] // 3
    for number, lit in ((1, "first"), (2, "last")):
        panel = drawn[:, number * third : (number + 1) * third]
        rows = panel[(panel < 210).sum(1) > third // 2]  # rows of the picture itself
        edge = len(rows) // 5
        middle = slice(third // 4, 3 * third // 4)
        first, last = rows[:edge, middle].mean(), rows[-edge:, middle].mean()
        assert (first > last) == (lit == "first")


def test_maps_without_words_are_refused(tmp_path):
    with pytest.raises(InputError, match="1 words and 2 maps"):
        plot_attention(np.zeros((4, 4, 1), np.uint8), ["a"], np.ones((2, 2, 2)), tmp_path / "x.png")
