"""Smaller JPEGs: their size, their pixels, and which are copied."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxnets.data import decoding
from jaxnets.data.records import decode
from jaxnets.data.shortening import Job, example_of, shortened

BANDS = np.repeat(np.eye(3, dtype=np.uint8) * 255, 100, axis=0)  # 300 pixels: red, green, blue


def picture(width, height):
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(BANDS, (300, 300, 3)))).resize(
        (width, height)
    )


def shape_of(jpeg):
    return Image.open(io.BytesIO(jpeg)).size


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((900, 600), (96, 64)), ((600, 900), (64, 96)), ((70, 64), (70, 64)), ((50, 2000), (50, 2000))],
)
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_the_shorter_side_is_shortened_and_never_enlarged(tmp_path, size, wanted, ending):
    picture(*size).save(tmp_path / f"picture.{ending}")
    assert shape_of(shortened(tmp_path / f"picture.{ending}", 64, 90)) == wanted


def test_pixels_stay_what_they_are(tmp_path):
    picture(900, 600).save(tmp_path / "picture.jpg", quality=95)
    found = Image.open(io.BytesIO(shortened(tmp_path / "picture.jpg", 60, 95)))
    colors = [np.asarray(found)[30, x] for x in (15, 45, 75)]
    np.testing.assert_allclose(colors, np.eye(3) * 255, atol=8)


def test_a_small_jpeg_is_copied_byte_for_byte(tmp_path):
    picture(80, 64).save(tmp_path / "small.jpg", quality=30)
    picture(80, 65).save(tmp_path / "larger.jpg", quality=30)
    assert shortened(tmp_path / "small.jpg", 64, 90) == (tmp_path / "small.jpg").read_bytes()
    assert shortened(tmp_path / "larger.jpg", 64, 90) != (tmp_path / "larger.jpg").read_bytes()


def test_gray_and_turned_jpegs_become_upright_and_rgb(tmp_path):
    picture(80, 64).convert("L").save(tmp_path / "gray.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(80, 64).save(tmp_path / "turned.jpg", exif=turned)
    assert Image.open(io.BytesIO(shortened(tmp_path / "gray.jpg", 64, 90))).mode == "RGB"
    upright = Image.open(io.BytesIO(shortened(tmp_path / "turned.jpg", 64, 90)))
    assert upright.size == (64, 80)
    assert not upright.getexif()
    assert np.asarray(upright)[5, 32].argmax() == 0  # red, the left of the stored image, is on top


def test_reading_at_the_size_prepared_for_is_a_crop(tmp_path):
    """Of 67.0 x 50 pixels of noise: 66 x 50, of which 8 are cut on either side."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 134, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    jpeg = shortened(tmp_path / "noise.png", 50, 90)
    whole = decoding.decode(io.BytesIO(jpeg), None, 3)
    assert whole.shape == (50, 66, 3)
    np.testing.assert_array_equal(decoding.decode(io.BytesIO(jpeg), 50, 3), whole[:, 8:-8])


def test_a_higher_quality_takes_more_bytes(tmp_path):
    Image.effect_noise((200, 200), 50).convert("RGB").save(tmp_path / "noise.png")
    low, high = (shortened(tmp_path / "noise.png", 64, quality) for quality in (50, 95))
    assert len(low) < len(high)


def test_what_is_broken_gives_its_reason_and_a_failing_disk_raises(tmp_path, monkeypatch):
    picture(80, 64).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-200])
    job = Job(str(tmp_path / "cut.jpg"), "cut.jpg", 1)
    for size in (64, 32):  # copied if it were whole, and made smaller
        assert "truncated" in example_of(job, size, 90)
    assert isinstance(example_of(Job(str(tmp_path / "gone.jpg"), "gone.jpg", 1), 64, 90), str)

    def fails(*arguments, **options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(OSError, match="Input/output"):
        example_of(job, 64, 90)


def test_a_record_has_image_and_label(tmp_path):
    picture(80, 64).save(tmp_path / "small.jpg")
    record = decode(example_of(Job(str(tmp_path / "small.jpg"), "a/small.jpg", 3), 64, 90))
    assert record == {"image": (tmp_path / "small.jpg").read_bytes(), "label": 3}
