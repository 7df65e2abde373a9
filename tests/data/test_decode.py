"""Decoding: Pillow's pixels, whatever the file, on a canvas; and what cannot be decoded."""

import io
import tarfile

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from invariance_jax.data import BadImage, BadImageCounter, DataError, decode, to_canvas


def photo(height: int, width: int) -> np.ndarray:
    """Smooth colours, so that JPEG keeps them within a few levels."""
    y, x = (
        np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        if height > 1
        else np.mgrid[0:1, 0 : 1 : width * 1j]
    )
    return np.stack([255 * x, 255 * y, 127 + 100 * np.sin(6 * x + 4 * y)], -1).astype(np.uint8)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("as_file", [True, False])
def test_small_image_is_copied_to_the_top_left(as_file):
    pixels = photo(20, 30)
    image = encoded(Image.fromarray(pixels), "PNG") if as_file else pixels
    canvas, height, width = to_canvas(image, 40)
    assert (height, width) == (20, 30)
    assert canvas.shape == (40, 40, 3)
    assert canvas.dtype == np.uint8
    np.testing.assert_array_equal(canvas[:20, :30], pixels)
    assert not canvas[20:].any()
    assert not canvas[:, 30:].any()


def test_image_as_large_as_the_canvas_is_not_resized():
    pixels = photo(40, 40)
    np.testing.assert_array_equal(to_canvas(pixels, 40)[0], pixels)


@pytest.mark.parametrize(
    ("shape", "fitted"),
    [
        ((60, 100), (24, 40)),
        ((100, 60), (40, 24)),
        ((100, 100), (40, 40)),
        ((41, 40), (40, 39)),
        ((1, 1000), (1, 40)),
        ((1000, 1), (40, 1)),
    ],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_large_image_is_shrunk_as_pillow_shrinks_it(shape, fitted, as_file):
    pixels = photo(*shape)
    image = encoded(Image.fromarray(pixels), "PNG") if as_file else pixels
    canvas, height, width = to_canvas(image, 40)
    assert (height, width) == fitted
    expected = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(canvas[:height, :width], np.asarray(expected))
    assert not canvas[height:].any()
    assert not canvas[:, width:].any()


def test_jpeg_is_decoded_as_pillow_decodes_it():
    file = encoded(Image.fromarray(photo(50, 70)), "JPEG", quality=90)
    np.testing.assert_array_equal(decode(file, 70), np.asarray(Image.open(io.BytesIO(file))))


def test_large_jpeg_is_near_the_full_decode():
    """The decoder may shrink first; what comes out keeps its size and its values."""
    file = encoded(Image.fromarray(photo(903, 1207)), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(file)).convert("RGB")
    expected = np.asarray(whole.resize((128, 96), Image.Resampling.BILINEAR)).astype(int)
    pixels = decode(file, 128)
    assert pixels.shape == (96, 128, 3)
    assert np.abs(pixels - expected).mean() < 0.5
    assert np.abs(pixels - expected).max() <= 4


@pytest.mark.parametrize("shape", [(200, 299), (400, 150)])
def test_jpeg_under_four_times_the_canvas_is_exact(shape):
    file = encoded(Image.fromarray(photo(*shape)), "JPEG")
    canvas = max(shape) // 4 + 1
    whole = Image.open(io.BytesIO(file)).convert("RGB")
    height, width = (round(side * canvas / max(shape)) for side in shape)
    expected = whole.resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(file, canvas), np.asarray(expected))


def pillow(file: bytes, canvas: int) -> np.ndarray:
    """What Pillow alone makes of a file."""
    with Image.open(io.BytesIO(file)) as opened:
        longest = max(opened.size)
        size = opened.size
        if longest > canvas:
            size = tuple(max(1, round(side * canvas / longest)) for side in size)
        opened.draft(None, (2 * size[0], 2 * size[1]))
        return np.asarray(opened.convert("RGB").resize(size, Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"subsampling": 1},
        {"progressive": True},
        {"quality": 30},
        {"restart_marker_blocks": 2},
    ],
)
def test_every_jpeg_has_pillow_s_pixels(options):
    """Bit for bit, whatever the sizes: whole, shrunk, and shrunk while decoding by 2, 4 and 8."""
    generator = np.random.default_rng(0)
    for height, width, canvas in [
        *((33, 47, 64), (33, 47, 47), (33, 47, 40), (64, 64, 16), (65, 63, 15), (200, 131, 50)),
        *((201, 131, 24), (203, 131, 12), (1, 300, 7), (300, 1, 7), (1, 1, 8), (7, 640, 40)),
    ]:
        pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
        file = encoded(Image.fromarray(pixels), "JPEG", **options)
        np.testing.assert_array_equal(decode(file, canvas), pillow(file, canvas))


def test_jpeg_stored_as_rgb():
    file = encoded(Image.fromarray(photo(20, 30)), "JPEG", keep_rgb=True)
    np.testing.assert_array_equal(decode(file, 32), pillow(file, 32))


@pytest.mark.parametrize("canvas", [64, 16, 4])
def test_grey_jpeg_has_pillow_s_pixels(canvas):
    file = encoded(Image.fromarray(photo(50, 60)[..., 2]), "JPEG")
    np.testing.assert_array_equal(decode(file, canvas), pillow(file, canvas))


def test_one_pixel():
    file = encoded(Image.new("RGB", (1, 1), (200, 100, 50)), "PNG")
    np.testing.assert_array_equal(decode(file, 8), [[[200, 100, 50]]])
    file = encoded(Image.new("RGB", (1, 1), (200, 100, 50)), "JPEG", quality=100)
    assert np.abs(decode(file, 8).astype(int) - [200, 100, 50]).max() <= 2


def test_bytes_that_libjpeg_warns_of_are_no_error():
    """Some photos have rubbish before their last marker; Pillow takes them."""
    file = encoded(Image.fromarray(photo(20, 30)), "JPEG")
    odd = file[:-2] + bytes(50) + file[-2:]
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(odd)
    np.testing.assert_array_equal(decode(odd, 32), decode(file, 32))


def test_header_of_a_hostile_size(monkeypatch):
    """Refused before memory for it is taken."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("13 GB taken"))
    file = bytearray(encoded(Image.fromarray(photo(8, 8)), "JPEG"))
    at = file.index(b"\xff\xc0")
    file[at + 5 : at + 9] = b"\xf0\x00\xf0\x00"  # 61,440 x 61,440
    with pytest.raises(DataError, match="cannot decode"):
        decode(bytes(file), 8)


def test_grey():
    grey = photo(8, 9)[..., 2]
    expected = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey), "PNG"), 16), expected)
    file = encoded(Image.fromarray(grey), "JPEG", quality=100)
    assert decode(file, 16).shape == (8, 9, 3)
    assert np.abs(decode(file, 16).astype(int) - expected).max() <= 3


def test_cmyk_jpeg():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixels = decode(encoded(cmyk, "JPEG", quality=100), 16)
    # Full magenta and yellow ink is red.
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 3


def test_alpha_is_dropped():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[...] = [10, 20, 30, 0]
    result = decode(encoded(Image.fromarray(pixels), "PNG"), 8)
    np.testing.assert_array_equal(result, pixels[..., :3])


@pytest.mark.parametrize("options", [{}, {"transparency": bytes([0, 128])}])
def test_palette(options):
    image = Image.new("P", (4, 2))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putpixel((3, 1), 1)
    result = decode(encoded(image, "PNG", **options), 8)
    expected = np.tile(np.array([200, 100, 50], np.uint8), (2, 4, 1))
    expected[1, 3] = [1, 2, 3]
    np.testing.assert_array_equal(result, expected)


def test_orientation_is_not_applied():
    image = Image.fromarray(photo(10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(image, "JPEG", exif=exif)
    np.testing.assert_array_equal(decode(turned, 32), decode(encoded(image, "JPEG"), 32))


def test_what_is_no_image():
    with pytest.raises(DataError, match="cannot decode 5 bytes: no image format known"):
        decode(b"hello", 8)
    with pytest.raises(DataError, match="cannot decode 2 bytes"):
        decode(b"\xff\xd8", 8)
    with pytest.raises(DataError, match="cannot decode 0 bytes"):
        decode(b"", 8)


def test_truncated_file():
    file = encoded(Image.fromarray(photo(64, 64)), "JPEG")
    with pytest.raises(DataError, match=r"(?i)truncated"):
        decode(file[: len(file) // 2], 64)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_pixels_of_another_kind(pixels):
    with pytest.raises(DataError, match=r"expected uint8 \[height, width, 3\]"):
        decode(pixels, 8)


def test_bad_images_are_said_once_and_counted():
    said = []
    counter = BadImageCounter(said.append)
    for name in ("a", "b", "a"):
        counter(BadImage(name=name, reason="truncated"))
    assert said == [
        "skipped image 'a': truncated; bad images so far: 1",
        "skipped image 'b': truncated; bad images so far: 2",
    ]
    assert counter.names == {"a", "b"}


@pytest.mark.real_data
def test_imagenet_jpeg(real_data):
    from invariance_jax.data import load_source

    source = load_source("imagenet2012", "validation[:20]", data_dir=str(real_data / "tfds"))
    for i in range(20):
        file = source[i]["image"]
        whole = Image.open(io.BytesIO(file)).convert("RGB")
        np.testing.assert_array_equal(decode(file, 64), np.asarray(whole))
        shrunk = whole.resize((48, 48), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(decode(file, 48), np.asarray(shrunk))


@pytest.mark.real_data
@pytest.mark.parametrize("canvas", [512, 128])
def test_photos_have_pillow_s_pixels(real_data, canvas):
    """ImageNet's own files at full size: grey ones, large ones, whatever their cameras wrote."""
    with tarfile.open(real_data / "ilsvrc2012-sample" / "ILSVRC2012_img_val.tar") as archive:
        for member in archive.getmembers()[:40]:
            file = archive.extractfile(member).read()
            np.testing.assert_array_equal(decode(file, canvas), pillow(file, canvas))
