from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainables.data.image import Decoded, UnreadableImageError, fit_square, quiet_decoders
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


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
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


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
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


def test_first_of_several_frames_is_used_and_counted() -> None:
    first, second = Image.fromarray(EIGHT_BIT), Image.fromarray(255 - EIGHT_BIT)
    decoded = decode(encoded(first, "TIFF", save_all=True, append_images=[second]))
    assert decoded.frames == 2
    assert np.array_equal(decoded.pixels, EIGHT_BIT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"dear radiologist, please find attached\n" * 20, "a text file, not an image"),
        (b"\x00\x01\x02" * 50, "not an image of a known format"),
        (encoded(Image.fromarray(np.tile(EIGHT_BIT, (20, 20))), "JPEG")[:-2000], "damaged"),
        (encoded(Image.fromarray(EIGHT_BIT), "PNG")[:60], "damaged"),
        (encoded(Image.fromarray(EIGHT_BIT), "GIF"), "not an image of a known format"),
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


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"RIFF"]))
def test_no_bytes_whatever_crash_the_decoder(tail: bytes, magic: bytes) -> None:
    with quiet_decoders():
        try:
            assert decode(magic + tail).pixels.dtype == np.uint8
        except UnreadableImageError:
            return


@given(cut=st.integers(1, 400), flip=st.integers(0, 400))
def test_damaged_jpeg_gives_pixels_or_a_reason(cut: int, flip: int) -> None:
    content = bytearray(encoded(Image.fromarray(EIGHT_BIT), "JPEG"))
    content[flip % len(content)] ^= 0x5A
    with quiet_decoders():
        try:
            assert decode(bytes(content[:-cut])).pixels.dtype == np.uint8
        except UnreadableImageError:
            return


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


def dicom_file(values: np.ndarray, **tags: object) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = pydicom.Dataset()
    data.file_meta = meta
    data.PatientName = "Secret^Name"
    data.Rows, data.Columns = values.shape[-2:]
    if values.ndim == 3:
        data.NumberOfFrames = values.shape[0]
    data.SamplesPerPixel = 1
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 0
    data.PhotometricInterpretation = "MONOCHROME2"
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = values.astype(np.uint16).tobytes()
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def test_dicom_is_scaled_to_its_range() -> None:
    pixels = decode(dicom_file(GRAY)).pixels
    assert (pixels[0, 0], pixels[-1, -1]) == (0, 255)


def test_dicom_monochrome1_is_inverted() -> None:
    pixels = decode(dicom_file(GRAY, PhotometricInterpretation="MONOCHROME1")).pixels
    assert (pixels[0, 0], pixels[-1, -1]) == (255, 0)


def test_dicom_window_acts_after_rescale() -> None:
    # Stored 0..599 becomes -1000..198; the window 0..100 in rescaled units is stored 500..550.
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 50, "WindowWidth": 100}
    flat = decode(dicom_file(GRAY, **tags)).pixels.ravel()
    assert flat[:499].max() == 0
    assert flat[552:].min() == 255
    assert 100 < flat[525] < 155


def test_dicom_first_frame_is_used() -> None:
    decoded = decode(dicom_file(np.stack([GRAY, GRAY[::-1]])))
    assert decoded.frames == 2
    assert decoded.pixels[0, 0] == 0


def test_damaged_dicom_gives_a_reason_without_the_patients_name() -> None:
    with quiet_decoders(), pytest.raises(UnreadableImageError, match="DICOM") as error:
        decode(dicom_file(GRAY)[:-900])
    assert "Secret" not in str(error.value)


def test_dicom_without_pydicom_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    content = dicom_file(GRAY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImageError, match=r"xray-sweep\[dicom\]"):
        decode(content)


def test_decoding_is_quiet(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(16)
    palette.info["transparency"] = bytes(range(16))
    with warnings.catch_warnings(record=True) as caught, quiet_decoders():
        decode(encoded(palette, "PNG"))
    assert not caught
