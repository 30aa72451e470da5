"""The picture of the augmentations."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnets import data
from jaxnets.data import augmentation, geometry
from jaxnets.errors import InputError

MIRROR = geometry.random_flip(p=1)


def mirror(p=0.5):
    assert p == 1  # what comes with a probability is shown
    return MIRROR


def shuffle(key, images, targets):
    return jax.random.permutation(key, images), targets


@pytest.fixture
def few(monkeypatch):
    """Two rows only, compiled once, the second of them a batch's: it shows any of its images."""
    monkeypatch.setattr(augmentation, "AUGMENTATIONS", {"flip": mirror})
    monkeypatch.setattr(augmentation, "PRESETS", {})
    monkeypatch.setattr(augmentation, "BATCH_AUGMENTATIONS", {"shuffle": lambda alpha: shuffle})


def test_a_row_shows_the_original_and_then_the_samples(few, tmp_path):
    """Red on the left: in the first cell as it was, in the others mirrored."""
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[:, :, :4, 0] = 255
    data.contact_sheet(images, tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    middle = picture[picture.shape[0] // 4]
    red, black = middle[:, 0] - middle[:, 1] > 200, middle[:, 0] + middle[:, 1] < 20
    text = middle.shape[0] // 8  # the name's letters are black, too
    cells = "".join(
        "R" if r else "B" if b else "." for r, b in zip(red[text:], black[text:], strict=True)
    )
    order = [part[0] + part[-1] for part in cells.split(".") if part]
    assert order == ["RB"] + ["BR"] * 8


class Boxed:
    """Black images with a box on the left, beside one that is padding."""

    image_shape, class_names = (16, 16, 3), ("thing",)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        box = np.array([[1, 4, 5, 12], [6, 0, 16, 16]], np.float32)
        return {
            "image": np.zeros((16, 16, 3), np.uint8),
            "box": box,
            "label": np.zeros(2, np.int32),
            "valid": np.array([True, False]),
        }


def test_boxes_are_drawn_where_they_are_moved(few, tmp_path):
    data.contact_sheet(Boxed(), tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    middle = picture[picture.shape[0] // 4, picture.shape[1] // 8 :]
    red, white = middle[:, 0] - middle[:, 1] > 150, middle.min(1) > 200
    cells = "".join("." if w else "R" if r else "B" for r, w in zip(red, white, strict=True))
    found = [part for part in cells.split(".") if "R" in part]
    lines = [[place for place, own in enumerate(part) if own == "R"] for part in found]
    sides = [np.mean(own) / len(part) for own, part in zip(lines, found, strict=True)]
    assert sides[0] < 0.3  # a part of the first cell is below the text
    np.testing.assert_allclose(sides[1:], [13 / 16] * 8, atol=0.05)


class Labeled:
    """White images whose left half is of class 1."""

    image_shape, class_names = (16, 16, 3), ("background", "thing")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        labels = np.zeros((16, 16), np.uint8)
        labels[:, :8] = 1
        return {"image": np.full((16, 16, 3), 255, np.uint8), "segmentation": labels}


def test_label_maps_are_drawn_over_their_pictures_as_they_are_moved(few, tmp_path):
    data.contact_sheet(Labeled(), tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    middle = picture[picture.shape[0] // 4, picture.shape[1] // 8 :]
    red = np.abs(middle - (191, 127, 127)).sum(1) < 9
    gray = np.abs(middle - 127).sum(1) < 9
    cells = "".join("R" if r else "G" if g else "." for r, g in zip(red, gray, strict=True))
    order = [part[0] + part[-1] for part in cells.split(".") if part]
    assert order == ["RG"] + ["GR"] * 8


def test_datasets_and_sources_are_drawn_and_the_seed_decides(few, tmp_path):
    digits = data.load("digits", size=8)
    pictures = []
    for number, (shown, seed) in enumerate([(digits, 0), (digits.train, 0), (digits, 1)]):
        data.contact_sheet(shown, tmp_path / f"{number}.png", seed=seed)
        pictures.append((tmp_path / f"{number}.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 2), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(images, tmp_path):
    with pytest.raises(InputError, match="uint8"):
        data.contact_sheet(images, tmp_path / "sheet.png")
