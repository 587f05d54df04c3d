"""One image, opened right whatever its mode; or a reason why not."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.data.images import UnreadableImage, decode, map_rows, pillow_errors, resized
from trainers.data.table import Row

GREY = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # EXIF orientation -> what makes of an upright image the one that is stored


def encoded(image: Image.Image, format: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **settings)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    with pillow_errors():
        image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def refusal(content: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        pixels(content)
    return str(caught.value)


def test_grey_becomes_three_equal_channels():
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(GREY))), np.stack([GREY] * 3, axis=2))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_to_8(format: str):
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(pixels(encoded(wide, format))[..., 0], GREY)


def test_a_palette_gives_its_colours():
    image = Image.fromarray(COLOUR).quantize(256)
    np.testing.assert_array_equal(pixels(encoded(image)), np.asarray(image.convert("RGB")))


def test_alpha_is_laid_on_white():
    half = Image.new("RGBA", (2, 1), (100, 0, 200, 0))
    half.putpixel((1, 0), (100, 0, 200, 255))
    assert pixels(encoded(half)).tolist() == [[[255, 255, 255], [100, 0, 200]]]


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_is_white(mode: str):
    image = Image.new(mode, (1, 1), 0)
    transparent = (0, 0, 0) if mode == "RGB" else 0
    assert pixels(encoded(image, transparency=transparent)).tolist() == [[[255, 255, 255]]]


def test_cmyk_becomes_rgb():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    np.testing.assert_allclose(pixels(encoded(red, "JPEG", quality=95))[8, 8], (255, 0, 0), atol=3)


def turned(image: Image.Image, orientation: int, format: str = "PNG", **settings: object) -> bytes:
    """The image as a camera stores it that writes this EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = TURNS[orientation]
    return encoded(image if turn is None else image.transpose(turn), format, exif=exif, **settings)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, format: str):
    content = turned(Image.fromarray(COLOUR), orientation, format)
    np.testing.assert_array_equal(pixels(content), COLOUR)
    with pillow_errors():
        assert resized(content, (32, 32), None)[1] == (8, 6)


@pytest.mark.parametrize("orientation", TURNS)
def test_a_large_photograph_that_is_decoded_small_is_turned_and_keeps_its_size(orientation: int):
    """799 x 1600 is decoded as 400 x 800: from the small one, its size could not be told."""
    x, y = np.meshgrid(np.linspace(0, 3, 799), np.linspace(0, 5, 1600))
    waves = Image.fromarray((np.stack([np.sin(x), np.sin(y), np.cos(x + y)], axis=2) * 100 + 128).astype(np.uint8))
    with pillow_errors():
        small, size = resized(turned(waves, orientation, "JPEG", quality=95), (64, 64), None)
    plain = np.asarray(waves.resize((64, 64), Image.Resampling.BICUBIC), dtype=int)
    assert size == (799, 1600)
    assert np.abs(np.asarray(small, dtype=int) - plain).max() < 8


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(COLOUR), exif=exif)), COLOUR)


def test_no_damage_to_exif_keeps_an_image_from_being_read():
    """Whatever byte of it is changed: the pixels are the image's, turned or not."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "maker"
    exif.get_ifd(0x8769).update({0x9003: "2026:01:01 00:00:00", 0x829A: 0.01, 0x927C: b"note"})
    words = exif.tobytes()
    image = Image.new("RGB", (8, 6), "red")
    for at in range(6, len(words)):
        for byte in (0, 1, 7, 255):
            broken = encoded(image, exif=words[:at] + bytes([byte]) + words[at + 1 :])
            assert pixels(broken).reshape(-1, 3).tolist() == [[255, 0, 0]] * 48


def test_broken_exif_does_no_harm():
    content = encoded(Image.fromarray(COLOUR), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(content), COLOUR)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_an_image_cut_short_is_refused(format: str):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format)
    assert refusal(content[: len(content) * 2 // 3])


def test_what_is_no_image_is_refused_with_its_beginning():
    assert refusal(b"") == "is empty"
    assert refusal(b"<!DOCTYPE html><html>") == "is not an image: it starts with b'<!DOCTYPE html><'"


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_an_iphone_photograph_under_another_name_is_called_what_it_is(brand: bytes):
    assert "is HEIC" in refusal(b"\0\0\0\x18ftyp" + brand + bytes(100))


@pytest.mark.parametrize("side", [9_500, 14_200])  # Pillow warns of the first and refuses the second
def test_an_image_of_too_many_pixels_is_refused_without_decoding_it(side: int):
    bits = Image.new("1", (side, side))
    assert "more than 89 million pixels" in refusal(encoded(bits, "TIFF", compression="group4"))


def test_floating_point_pixels_are_refused():
    assert "floating-point" in refusal(encoded(Image.new("F", (4, 4)), "TIFF"))


def test_no_warning_of_pillow_leaks():
    image = Image.new("P", (4, 4))
    content = encoded(image, transparency=b"\0" * 256)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pixels(content)
    assert caught == []


def test_a_large_jpeg_may_be_decoded_small_and_still_looks_the_same():
    x, y = np.meshgrid(np.linspace(0, 9, 800), np.linspace(0, 7, 600))
    waves = np.stack([np.sin(x), np.sin(y), np.sin(x + y)], axis=2) * 100 + 128
    content = encoded(Image.fromarray(waves.astype(np.uint8)), "JPEG", quality=95)
    with pillow_errors():
        small, size = resized(content, (64, 64), None)
        plain = decode(content).resize((64, 64), Image.Resampling.BICUBIC)
    error = np.asarray(small, dtype=float) - np.asarray(plain, dtype=float)
    assert size == (800, 600)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40  # dB


def test_a_box_is_cut_out_before_the_resize():
    image = Image.fromarray(COLOUR)
    with pillow_errors():
        cut, size = resized(encoded(image), (32, 32), (2, 1, 7, 5))
    plain = image.crop((2, 1, 7, 5)).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(cut), np.asarray(plain))
    assert size == (5, 4)


@pytest.mark.parametrize(
    ("box", "inside"),
    [((-3, -1, 5, 4), (0, 0, 5, 4)), ((2, 3, 90, 60), (2, 3, 8, 6)), ((-9, -9, 99, 99), (0, 0, 8, 6))],
)
def test_a_box_is_cut_at_the_edges_of_its_image(box: tuple[int, ...], inside: tuple[int, ...]):
    content = encoded(Image.fromarray(COLOUR))
    with pillow_errors():
        (ours, size), (plain, _) = (resized(content, (32, 32), each) for each in (box, inside))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(plain))
    assert size == (inside[2] - inside[0], inside[3] - inside[1])


def test_a_box_beside_its_image_is_refused():
    with pillow_errors(), pytest.raises(UnreadableImage, match=r"has 8 x 6 pixels, but its box starts at 8, 0"):
        resized(encoded(Image.fromarray(COLOUR)), (32, 32), (8, 0, 12, 5))


def test_work_over_many_rows_keeps_their_order_and_tells_how_far_it_is():
    rows = [Row(str(k), "train", None, None, "") for k in range(100)]
    seen: list[tuple[int, int]] = []
    assert map_rows(rows, lambda index, row: (index, row.path), lambda done, total: seen.append((done, total))) == [
        (k, str(k)) for k in range(100)
    ]
    assert seen == [(32, 100), (64, 100), (96, 100), (100, 100)]


def test_an_error_in_the_work_comes_out(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        map_rows([Row("x", "train", None, None, "")], lambda _, row: (tmp_path / row.path).read_bytes())
