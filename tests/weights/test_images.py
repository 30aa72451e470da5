import numpy as np
import pytest
from PIL import Image

from jaxnets import weights
from jaxnets.errors import InputError
from jaxnets.weights import Preprocessing

# Goldens compare with torchvision's and timm's transforms (tests/goldens/test_preprocessing.py).


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (20, 31, 3)).astype(np.uint8)


def test_what_needs_no_scaling_is_cut_from_the_middle(picture):
    preprocess = Preprocessing(20, 16, mean=(0.5, 0.25, 0.0), std=(1.0, 0.5, 2.0))
    middle = picture[2:18, 8:24]  # (31 - 16) / 2 = 7.5, which Python and torchvision round to 8
    wanted = (middle / 255 - [0.5, 0.25, 0.0]) / [1.0, 0.5, 2.0]
    found = preprocess(picture)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(preprocess(Image.fromarray(picture)), wanted, atol=1e-6)


def test_blue_may_come_first(picture):
    mean = (104 / 255, 117 / 255, 128 / 255)
    preprocess = Preprocessing(20, 20, mean=mean, std=(1 / 255,) * 3, order="BGR")
    wanted = picture[:, 6:26, ::-1].astype(float) - [104, 117, 128]
    np.testing.assert_allclose(preprocess(picture), wanted, atol=1e-3)
    assert weights.preprocessing("inception_v2").order == "BGR"


def test_the_longer_side_follows_in_proportion(picture):
    tall = picture.transpose(1, 0, 2)
    views = Preprocessing(13, 13).crops(tall, "ten")
    whole = np.asarray(Image.fromarray(tall).resize((13, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(views[0], whole[4:17])  # 3.5 is rounded to the even 4
    np.testing.assert_array_equal(views[3], whole[7:])
    np.testing.assert_array_equal(views[8], whole[7:, ::-1])


def test_files_are_turned_upright(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    preprocess = Preprocessing(20, 20)
    np.testing.assert_array_equal(
        preprocess.crops(tmp_path / "turned.png"), preprocess.crops(np.rot90(picture, -1).copy())
    )


def test_gray_takes_the_mean_of_the_constants(picture):
    gray = Preprocessing(20, 20).of_channels(1)
    found = gray(Image.fromarray(picture))
    light = np.asarray(Image.fromarray(picture).convert("L"))[:, 6:26, None]
    np.testing.assert_allclose(found, (light / 255 - 0.449) / 0.226, atol=1e-5)
    assert Preprocessing(20, 20).of_channels(4).mean == (0.485, 0.456, 0.406, 0.485)


def test_each_name_has_its_own():
    best = weights.preprocessing("resnet50")
    assert (best.resize, best.size, best.interpolation) == (288, 288, "bicubic")
    v1 = weights.preprocessing("resnet50", "torchvision:resnet50-0676ba61.pth")
    assert weights.preprocessing("resnet50", "elsewhere/resnet50-0676ba61.pth") == v1 != best
    assert (v1.resize, v1.size, v1.interpolation) == (256, 224, "bilinear")


def test_what_cannot_be_is_refused(picture, tmp_path):
    preprocess = Preprocessing(20, 20)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        preprocess(tmp_path / "text.jpg")
    with pytest.raises(InputError, match=r"wanted uint8\[H, W, 3\], got float64\[20, 31, 3\]"):
        preprocess(picture / 255)
    with pytest.raises(InputError, match="size is 21, but the shorter side is scaled to 20"):
        Preprocessing(20, 21)
    with pytest.raises(InputError, match="unknown interpolation 'bilinea'"):
        Preprocessing(20, 20, "bilinea")
    with pytest.raises(InputError, match="unknown order of channels 'GBR'"):
        Preprocessing(20, 20, order="GBR")
    with pytest.raises(InputError, match="unknown kind of crops 'middle'"):
        preprocess.crops(picture, "middle")
