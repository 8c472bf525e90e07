from __future__ import annotations

import io
import os
import warnings
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainables.data.image import (
    Decoded,
    UnreadableImageError,
    content_hash,
    fit_square,
    prepare_image,
    quiet_decoders,
)
from trainables.data.image import decode as decode_file

GRAY = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
EIGHT_BIT = (GRAY % 256).astype(np.uint8)
COLOUR = np.stack([EIGHT_BIT, EIGHT_BIT[::-1], EIGHT_BIT[:, ::-1]], axis=2)


def decode(content: bytes) -> Decoded:
    return decode_file(io.BytesIO(content))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG file."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "JPEG2000", "PPM"])
def test_lossless_gray_keeps_every_pixel(kind: str) -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(EIGHT_BIT), kind)).pixels, EIGHT_BIT)


def test_lossless_colour_keeps_every_pixel() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(COLOUR), "WEBP", lossless=True)).pixels, COLOUR)
    assert np.array_equal(decode(encoded(Image.fromarray(COLOUR), "TIFF")).pixels, COLOUR)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_colour_file_with_equal_channels_counts_as_gray(kind: str) -> None:
    smooth = Image.fromarray(EIGHT_BIT).convert("RGB")
    options = {"lossless": True} if kind == "WEBP" else {}
    assert decode(encoded(smooth, kind, **options)).pixels.shape == (20, 30)


def test_lossy_webp_of_a_gray_image_is_gray_and_faint_colour_is_not() -> None:
    smooth = Image.fromarray(EIGHT_BIT).resize((60, 40), Image.Resampling.BICUBIC)
    assert decode(encoded(smooth, "WEBP", quality=70)).pixels.ndim == 2
    faint = np.stack([EIGHT_BIT // 2, EIGHT_BIT // 2 + 3, EIGHT_BIT // 2], axis=2)
    assert decode(encoded(Image.fromarray(faint), "PNG")).pixels.ndim == 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_16_bit_is_scaled_by_its_own_range(kind: str) -> None:
    pixels = decode(encoded(Image.fromarray(GRAY * 50 + 1000), kind)).pixels
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (np.diff(pixels.ravel().astype(int)) >= 0).all()


def test_float_tiff_is_scaled_and_nan_becomes_its_minimum() -> None:
    values = GRAY.astype(np.float32) - 300
    values[0, 5] = np.nan
    pixels = decode(encoded(Image.fromarray(values), "TIFF")).pixels
    assert pixels[0, 5] == 0
    assert pixels[-1, -1] == 255


def test_16_bit_tiff_whose_white_is_zero_is_shown_as_its_black_is_meant() -> None:
    content = encoded(Image.fromarray(GRAY), "TIFF")
    photometric = b"\x06\x01\x03\0\x01\0\0\0"
    inverted = content.replace(photometric + b"\x01", photometric + b"\0")
    assert inverted != content
    assert np.array_equal(decode(inverted).pixels, 255 - decode(content).pixels)


@pytest.mark.parametrize(("highest", "readable"), [(4095, False), (65535, True), (0, True)])
def test_16_bit_colour_of_few_bits_is_refused_as_little_of_it_would_be_left(highest: int, readable: bool) -> None:
    row = b"\0" + np.array([[highest, 0, 0], [0, 0, highest]], dtype=">u2").tobytes()
    head = chunk(b"IHDR", bytes([0, 0, 0, 2, 0, 0, 0, 1, 16, 2, 0, 0, 0]))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    with nullcontext() if readable else pytest.raises(UnreadableImageError, match="16-bit colour"):
        assert decode(content).pixels.max() == highest >> 8


def test_constant_16_bit_image_becomes_black_not_a_division_by_zero() -> None:
    assert decode(encoded(Image.fromarray(np.full((4, 4), 700, np.uint16)), "PNG")).pixels.max() == 0


def test_palette_is_looked_up() -> None:
    palette = Image.fromarray(COLOUR).quantize(16)
    assert np.array_equal(decode(encoded(palette, "PNG")).pixels, np.asarray(palette.convert("RGB")))


def test_transparent_pixels_lie_on_black() -> None:
    rgba = np.full((4, 4, 4), 200, np.uint8)
    rgba[..., 3] = 0
    rgba[0, 0, 3] = 255
    pixels = decode(encoded(Image.fromarray(rgba), "PNG")).pixels
    assert pixels[0, 0] == 200
    assert pixels[1:].max() == 0


def test_gray_with_alpha_and_palette_with_transparency_are_gray() -> None:
    gray_alpha = Image.merge("LA", [Image.fromarray(EIGHT_BIT), Image.new("L", (30, 20), 255)])
    assert np.array_equal(decode(encoded(gray_alpha, "PNG")).pixels, EIGHT_BIT)
    palette = Image.fromarray(EIGHT_BIT).convert("P")
    assert decode(encoded(palette, "PNG", transparency=0)).pixels.shape == (20, 30)


def test_cmyk_jpeg_looks_as_it_should() -> None:
    gray = Image.new("RGB", (16, 16), (200, 60, 60)).convert("CMYK")
    pixels = decode(encoded(gray, "JPEG", quality=95)).pixels
    assert np.abs(pixels[8, 8].astype(int) - (200, 60, 60)).max() < 12


def test_one_bit_image_becomes_black_and_white() -> None:
    assert set(np.unique(decode(encoded(Image.fromarray(EIGHT_BIT > 99), "PNG")).pixels)) == {0, 255}


def test_exif_rotation_is_undone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to stand upright
    pixels = decode(encoded(Image.fromarray(EIGHT_BIT), "PNG", exif=exif)).pixels
    assert np.array_equal(pixels, np.rot90(EIGHT_BIT, -1))


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_first_of_several_frames_is_used_and_counted(kind: str) -> None:
    first, second = Image.fromarray(EIGHT_BIT), Image.fromarray(255 - EIGHT_BIT)
    decoded = decode(encoded(first, kind, save_all=True, append_images=[second]))
    assert decoded.stats.frames == 2
    assert np.array_equal(decoded.pixels, EIGHT_BIT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"dear radiologist, please find attached\n" * 20, "a text file, not an image"),
        (b"\x00\x01\x02" * 50, "not an image of a known format"),
        (
            encoded(Image.fromarray(GRAY.astype(np.float32)), "TIFF").replace(  # 64 bits a sample
                b"\x02\x01\x03\0\x01\0\0\0\x20\0", b"\x02\x01\x03\0\x01\0\0\0\x40\0"
            ),
            "of channels or bits",
        ),
        pytest.param(
            b"II*\0" + (4096).to_bytes(4, "little") + bytes(200),
            "a TIFF that is cut short",
            marks=pytest.mark.filterwarnings("ignore:Corrupt EXIF data"),
        ),
        (encoded(Image.fromarray(np.tile(EIGHT_BIT, (20, 20))), "JPEG")[:-2000], "damaged"),
        (encoded(Image.fromarray(EIGHT_BIT), "PNG")[:60], "damaged"),
    ],
)
def test_bad_file_gives_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        decode(content)


def test_decompression_bomb_is_refused_before_it_fills_the_memory() -> None:
    bomb = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    bomb[18:26] = (50_000).to_bytes(4, "little") * 2
    with quiet_decoders(), pytest.raises(UnreadableImageError, match="more than 80,000,000"):
        decode(bytes(bomb))


def test_a_sparse_30_000_px_png_is_refused_without_being_decoded() -> None:
    header = (30_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10)))
    with quiet_decoders(), pytest.raises(UnreadableImageError, match="more than 80,000,000 pixels"):
        decode(content)


MAGIC = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"RIFF", b"P5 ", b"\xff\x4f\xff\x51")


@given(st.binary(max_size=300), st.sampled_from(MAGIC))
def test_no_bytes_whatever_crash_the_decoder(tail: bytes, magic: bytes) -> None:
    with quiet_decoders():
        try:
            assert decode(magic + tail).pixels.dtype == np.uint8
        except UnreadableImageError:
            return


WHOLE = tuple(
    encoded(Image.fromarray(EIGHT_BIT), kind)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM")
)


@given(
    content=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 400),
)
def test_a_damaged_file_gives_an_image_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: len(damaged) - cut])
    with quiet_decoders():
        image = prepare_image(path, 16, "squash")
    assert (image.square is None) == (image.stats.reason is not None)
    assert image.stats.reason is not None or image.stats.width > 0


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(5, 90), (90, 5), (40, 40), (1, 1), (31, 17, 3)])
def test_fit_gives_a_square(fit: str, shape: tuple[int, ...]) -> None:
    pixels = fit_square(np.full(shape, 77, np.uint8), 16, fit)
    assert pixels.shape == (16, 16, *shape[2:])
    assert pixels[7, 7].max() == 77


def test_crop_takes_the_middle_and_pad_keeps_all() -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    assert fit_square(wide, 10, "crop")[5, 1:-1].min() == 200
    padded = fit_square(wide, 30, "pad")
    assert padded[15].max() == 200
    assert padded[:9].max() == 0
    assert padded[21:].max() == 0


def test_resize_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert 120 < fit_square(stripes, 8, "squash")[3, 3] < 135


def test_decoding_is_quiet(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(16)
    palette.info["transparency"] = bytes(range(16))
    with warnings.catch_warnings(record=True) as caught, quiet_decoders():
        decode(encoded(palette, "PNG"))
    assert not caught


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x.png")
    assert prepare_image(tmp_path / "x.png", 16, "squash").stats.reason == "not a regular file"
    assert len(content_hash(tmp_path / "x.png")) == 64


def test_a_file_over_two_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(2_000_000_001)
    assert (
        prepare_image(tmp_path / "x.png", 16, "squash").stats.reason == "2,000,000,001 bytes: more than 2,000,000,000"
    )


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "nul\0.png"])
def test_a_name_that_no_file_can_have_is_a_reason(tmp_path: Path, name: str) -> None:
    assert prepare_image(tmp_path / name, 16, "squash").stats.reason is not None
    assert len(content_hash(tmp_path / name)) == 64


@pytest.mark.parametrize(
    ("image", "kind", "options", "mode", "bits"),
    [
        (Image.fromarray(EIGHT_BIT), "PNG", {}, "L", 8),
        (Image.fromarray(GRAY), "PNG", {}, "I;16", 16),
        (Image.fromarray(GRAY), "TIFF", {}, "I;16", 16),
        (Image.fromarray(GRAY), "PPM", {}, "I", 16),
        (Image.fromarray(GRAY.astype(np.float32)), "TIFF", {}, "F", 32),
        (Image.fromarray(COLOUR), "JPEG", {}, "RGB", 8),
        (Image.fromarray(COLOUR).quantize(4), "PNG", {"bits": 2}, "P", 2),
        (Image.fromarray(EIGHT_BIT > 99), "PNG", {}, "1", 1),
    ],
)
def test_facts_of_the_file_are_kept(
    tmp_path: Path, image: Image.Image, kind: str, options: dict[str, object], mode: str, bits: int
) -> None:
    (tmp_path / "x").write_bytes(encoded(image, kind, **options))
    stats = prepare_image(tmp_path / "x", 16, "squash").stats
    assert (stats.reason, stats.mode, stats.bits, stats.width, stats.height) == (None, mode, bits, 30, 20)
    assert (stats.jpeg_quality is None) == (kind != "JPEG")


def test_mean_and_sd_are_of_the_gray_pixels() -> None:
    gray = prepare_image(EIGHT_BIT, 16, "squash").stats
    assert (gray.mean, gray.sd) == (round(EIGHT_BIT.mean(), 2), round(EIGHT_BIT.std(), 2))
    flat = prepare_image(np.full((4, 5, 3), (255, 0, 0), np.uint8), 16, "squash").stats
    assert (flat.mean, flat.sd, flat.mode, flat.gray) == (76, 0, "RGB", False)  # 0.299 x 255: ITU-R 601-2


@pytest.mark.parametrize("quality", [5, 30, 49, 50, 75, 85, 95, 100])
@pytest.mark.parametrize("pixels", [EIGHT_BIT, COLOUR])
def test_jpeg_quality_is_what_it_was_saved_with(quality: int, pixels: np.ndarray) -> None:
    assert decode(encoded(Image.fromarray(pixels), "JPEG", quality=quality)).stats.jpeg_quality == quality


def test_arrays_of_other_shapes_are_other_contents() -> None:
    pixels = np.arange(36, dtype=np.uint8)
    assert len({content_hash(pixels.reshape(shape)) for shape in ((6, 6), (4, 9), (3, 4, 3))}) == 3
