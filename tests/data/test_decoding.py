"""Which files are decoded, and to which pixels."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxnets import weights
from jaxnets.data import decoding
from jaxnets.errors import InputError

RED = Image.new("RGB", (8, 8), (255, 0, 0))
BLUE = Image.new("RGB", (8, 8), (0, 0, 255))


def half_transparent():
    """Black everywhere; the lower half is transparent."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    return Image.fromarray(pixels)


def photograph(width, height):
    """Soft colors under some grain, as a camera has them."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    soft = np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "tif", "tiff"])
def test_every_format_is_decoded_and_of_several_frames_the_first(tmp_path, ending):
    path = tmp_path / f"picture.{ending}"
    several = ending in ("png", "webp", "tif", "tiff")
    RED.save(path, **({"save_all": True, "append_images": [BLUE]} if several else {}))
    pixels = decoding.decode(path, 4, 3).astype(int)
    np.testing.assert_allclose(pixels, np.broadcast_to([255, 0, 0], (4, 4, 3)), atol=2)


def test_of_an_animation_the_first_frame_is_decoded(tmp_path):
    RED.save(tmp_path / "moving.gif", save_all=True, append_images=[BLUE])
    assert decoding.decode(tmp_path / "moving.gif", 4, 3)[0, 0].tolist() == [255, 0, 0]


def test_content_decides_the_format_and_not_the_ending(tmp_path):
    BLUE.save(tmp_path / "picture.png", "JPEG")
    assert decoding.decode(tmp_path / "picture.png", 4, 3)[0, 0].argmax() == 2
    BLUE.save(tmp_path / "picture.jpg", "PPM")  # none of those that are taken
    with pytest.raises(InputError, match=r"picture\.jpg cannot be read as a picture \(PNG, JPEG"):
        decoding.read_picture(tmp_path / "picture.jpg", 4, 3)


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("color.png", lambda image: image),
        ("color.webp", lambda image: image),
        ("gray.png", lambda image: image.convert("LA")),
        ("palette.gif", lambda image: image),
    ],
)
def test_what_is_transparent_is_laid_on_the_background(tmp_path, name, convert):
    """Black strokes on nothing, all of whose pixels are black without their alpha."""
    options = {"lossless": True} if name.endswith("webp") else {}
    convert(half_transparent()).save(tmp_path / name, **options)
    pixels = decoding.decode(tmp_path / name, None, 3)
    assert not pixels[:4].any()
    assert (pixels[4:] == 255).all()
    assert decoding.decode(tmp_path / name, None, 1)[:, 0, 0].tolist() == [0] * 4 + [255] * 4
    pixels = decoding.decode(tmp_path / name, None, 3, background="#0000ff")
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[7, 7].tolist() == [0, 0, 255]


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_a_transparent_color_is_laid_on_the_background(tmp_path, mode):
    image = Image.new("RGB", (8, 8), "black")
    image.paste((255, 255, 255), (0, 0, 8, 4))
    key = (0, 0, 0) if mode == "RGB" else image.convert(mode).getpixel((7, 7))
    image.convert(mode).save(tmp_path / "key.png", transparency=key)
    assert (decoding.decode(tmp_path / "key.png", None, 3) == 255).all()
    pixels = decoding.decode(tmp_path / "key.png", None, 3, background="red")
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[7, 7].tolist() == [255, 0, 0]


def test_opaque_pictures_with_an_alpha_channel_keep_their_pixels(tmp_path):
    image = photograph(64, 48)
    image.save(tmp_path / "plain.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    for channels in (1, 3):
        plain, alpha = (decoding.decode(tmp_path / f"{n}.png", 20, channels) for n in ("plain", "alpha"))
        np.testing.assert_array_equal(alpha, plain)


def test_weights_see_transparent_pictures_on_white_too(tmp_path):
    half_transparent().save(tmp_path / "picture.png")
    views = weights.Preprocessing(8, 8).crops(tmp_path / "picture.png")
    assert views[0, :, 0, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path, dtype):
    Image.fromarray(np.full((8, 8), 0x4080, dtype)).save(tmp_path / "deep.tif")
    assert set(decoding.decode(tmp_path / "deep.tif", 4, 3).ravel()) == {0x40}


def test_floats_are_taken_as_zero_to_one(tmp_path):
    Image.fromarray(np.full((8, 8), 0.2, np.float32)).save(tmp_path / "float.tif")
    assert set(decoding.decode(tmp_path / "float.tif", 4, 3).ravel()) == {51}


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((8, 8), 70_000, np.int32), "32-bit integer pixels"),
        (np.full((8, 8), 127, np.float32), "float pixels from 127 to 127; wanted 0 to 1"),
        (np.full((8, 8), np.nan, np.float32), "float pixels from nan"),
    ],
)
def test_pixels_of_unknown_range_are_refused(tmp_path, pixels, message):
    Image.fromarray(pixels).save(tmp_path / "strange.tif")
    with pytest.raises(InputError, match=message):
        decoding.read_picture(tmp_path / "strange.tif", 4, 3)


def test_colors_of_print_are_converted(tmp_path):
    for name in ("print.jpg", "print.tif"):
        RED.convert("CMYK").save(tmp_path / name)
        pixels = decoding.decode(tmp_path / name, 4, 3).astype(int)
        np.testing.assert_allclose(pixels[0, 0], [255, 0, 0], atol=2)
        assert decoding.decode(tmp_path / name, 4, 1)[0, 0, 0] == 76  # 0.299 * 255


def by_pillow(path, size):
    """All pixels are decoded, then scaled."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def test_a_large_jpeg_is_shrunk_by_its_decoder_to_nearly_the_same_pixels(tmp_path, monkeypatch):
    path = tmp_path / "large.jpg"
    photograph(1600, 1200).save(path, quality=95)
    sizes = []
    fit = decoding.fit
    monkeypatch.setattr(
        decoding, "fit", lambda image, *rest: sizes.append(image.size) or fit(image, *rest)
    )
    pixels = decoding.decode(path, 96, 3)
    assert sizes == [(400, 300)]  # a quarter: an eighth would leave less than twice 96
    apart = abs(pixels.astype(int) - by_pillow(path, 96))
    assert apart.mean() < 0.5  # gray levels, of 255
    assert apart.max() < 6


def test_a_large_jpeg_on_its_side_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter clockwise
    photograph(1280, 960).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    pixels, wanted = (
        decoding.decode(tmp_path / "turned.jpg", 64, 3),
        by_pillow(tmp_path / "turned.jpg", 64),
    )
    assert abs(pixels.astype(int) - wanted).mean() < 0.5
    assert abs(np.rot90(pixels).astype(int) - wanted).mean() > 10


@pytest.mark.parametrize("side", [65, 128, 255])
def test_a_jpeg_of_less_than_four_times_the_size_keeps_every_bit(tmp_path, side):
    photograph(320, side).save(tmp_path / "small.jpg")
    path = tmp_path / "small.jpg"
    np.testing.assert_array_equal(decoding.decode(path, 64, 3), by_pillow(path, 64))


def test_nearest_takes_pixels_as_they_are(tmp_path):
    photograph(1280, 960).save(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as image:
        wanted = np.asarray(ImageOps.fit(image, (64, 64), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(decoding.decode(tmp_path / "large.jpg", 64, 3, "nearest"), wanted)


def test_names_of_any_bytes_are_shown_on_one_line():
    assert decoding.shown("a b/é/猫[x].png") == "a b/é/猫[x].png"
    assert decoding.shown("a\n\udce9\x1b[31m") == r"a\n\udce9\x1b[31m"


def test_unknown_backgrounds_are_refused():
    for color in ("whitish", "", 7):
        with pytest.raises(InputError, match="background must be a color"):
            decoding.check_background(color)


def test_the_joiners_of_letters_are_shown_as_they_are():
    assert decoding.shown("\u0645\u06cc\u200c\u062e") == "\u0645\u06cc\u200c\u062e"


@pytest.mark.parametrize(("width", "height"), [(1603, 805), (805, 1603), (30, 11)])
def test_a_letterboxed_picture_is_whole_and_keeps_its_aspect(tmp_path, width, height):
    """Also where its decoder shrinks it first, and lying on its side."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    for path, options in ((tmp_path / "a.jpg", {}), (tmp_path / "b.jpg", {"exif": exif})):
        image.save(path, quality=95, **options)
        upright = image.rotate(-90, expand=True) if options else image
        canvas, size, original = decoding.decode_letterboxed(path, (100, 120), 3)
        assert original == (upright.height, upright.width)
        scale = min(100 / upright.height, 120 / upright.width)
        assert size == (round(upright.height * scale), round(upright.width * scale))
        wanted = np.asarray(upright.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(canvas[: size[0], : size[1]] - wanted).max() <= 6
        assert not canvas[size[0] :].any()
        assert not canvas[:, size[1] :].any()
