from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data import dicom
from trainables.data.image import Decoded, ImageStats, UnreadableImageError, decode, prepare_image, quiet_decoders

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402

GRAY = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
EIGHT_BIT = (GRAY % 256).astype(np.uint8)


def dicom_file(values: np.ndarray, syntax: str = uid.ExplicitVRLittleEndian, **tags: object) -> bytes:
    """values: unsigned or int16 [H, W], [frames, H, W], or uint8 [H, W, 3] with SamplesPerPixel=3."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName = "Secret^Name"
    colour = tags.get("SamplesPerPixel") == 3
    data.Rows, data.Columns = values.shape[:2] if colour else values.shape[-2:]
    if values.ndim == 3 and not colour:
        data.NumberOfFrames = values.shape[0]
    data.SamplesPerPixel = 1
    data.BitsAllocated = data.BitsStored = 8 * values.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = values.tobytes()
    data["PixelData"].VR = "OW" if values.dtype.itemsize == 2 else "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def compressed(content: bytes, syntax: str) -> bytes:
    """The same file in another transfer syntax, by pydicom's encoder where there is one, else by GDCM's."""
    if syntax == uid.RLELossless:
        data = pydicom.dcmread(io.BytesIO(content))
        data.compress(syntax)
        file = io.BytesIO()
        data.save_as(file)
        return file.getvalue()
    gdcm = pytest.importorskip("gdcm")
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before", Path(folder) / "after"
        before.write_bytes(content)
        reader.SetFileName(str(before))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(after))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(after).file_meta.TransferSyntaxUID == syntax
        return after.read_bytes()


def decoded(content: bytes) -> Decoded:
    with quiet_decoders():
        return decode(io.BytesIO(content))


def pixels_of(values: np.ndarray, **tags: object) -> np.ndarray:
    return decoded(dicom_file(values, **tags)).pixels


def test_gray_is_scaled_to_its_range() -> None:
    pixels = pixels_of(GRAY)
    assert (pixels[0, 0], pixels[-1, -1]) == (0, 255)


def test_monochrome1_is_inverted() -> None:
    pixels = pixels_of(GRAY, PhotometricInterpretation="MONOCHROME1")
    assert (pixels[0, 0], pixels[-1, -1]) == (255, 0)


def test_window_acts_after_rescale() -> None:
    # Stored 0..2399 becomes -1000..3798; the window 0..100 in rescaled units is stored 500..550.
    flat = pixels_of(GRAY, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=50, WindowWidth=100).ravel()
    assert flat[:499].max() == 0
    assert flat[552:].min() == 255
    assert 100 < flat[525] < 155


def test_a_window_keeps_what_a_negative_slope_turned_round() -> None:
    plain = pixels_of(GRAY, RescaleSlope=-1, RescaleIntercept=2399)
    windowed = pixels_of(GRAY, RescaleSlope=-1, RescaleIntercept=2399, WindowCenter=1200, WindowWidth=2400)
    assert (plain[0, 0], plain[-1, -1]) == (255, 0)
    assert np.abs(windowed.astype(int) - plain).max() <= 1


@pytest.mark.parametrize("window", [{"WindowWidth": 0}, {"WindowWidth": 100, "VOILUTFunction": "ODD"}])
def test_a_window_that_cannot_be_applied_is_passed_over(window: dict[str, object]) -> None:
    assert np.array_equal(pixels_of(GRAY, WindowCenter=50, **window), pixels_of(GRAY))


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("kind", "padding", "tags"),
    [
        (np.uint16, 60_000, {"PixelPaddingValue": 60_000}),
        (np.uint16, 60_007, {"PixelPaddingValue": 60_000, "PixelPaddingRangeLimit": 60_010}),
        (np.uint16, 60_007, {"PixelPaddingValue": 60_010, "PixelPaddingRangeLimit": 60_000}),
        (np.int16, -2_000, {"PixelPaddingValue": -2_000}),
        (np.uint16, 60_000, {"PixelPaddingValue": 60_000, "RescaleSlope": 3, "RescaleIntercept": -5}),
    ],
)
def test_padding_takes_no_part_in_the_range_and_is_black(
    photometric: str, kind: type, padding: int, tags: dict[str, int]
) -> None:
    values = GRAY.astype(kind)
    padded = values.copy()
    padded[:5] = padding
    pixels = pixels_of(padded, PhotometricInterpretation=photometric, **tags)
    assert pixels[:5].max() == 0
    alone = pixels_of(values[5:], PhotometricInterpretation=photometric)
    assert np.abs(pixels[5:].astype(int) - alone).max() <= 1


def test_padding_of_the_other_sign_is_understood() -> None:
    content = bytearray(dicom_file(np.where(GRAY < 300, -2000, GRAY).astype(np.int16), PixelPaddingValue=-2000))
    place = content.index(b"\x28\x00\x20\x01SS")
    content[place + 4 : place + 6] = b"US"
    pixels = decoded(bytes(content)).pixels
    assert (pixels[:5].max(), pixels[5, 0], pixels[-1, -1]) == (0, 0, 255)


def test_an_image_of_nothing_but_padding_is_blank() -> None:
    assert pixels_of(np.full_like(GRAY, 7), PixelPaddingValue=7).max() == 0


LOSSLESS = (
    *(uid.JPEG2000Lossless, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.RLELossless),
    uid.DeflatedExplicitVRLittleEndian,
)


def in_syntax(values: np.ndarray, syntax: str) -> bytes:
    deflated = syntax == uid.DeflatedExplicitVRLittleEndian
    return dicom_file(values, syntax) if deflated else compressed(dicom_file(values), syntax)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_lossless_syntaxes_keep_every_pixel(syntax: uid.UID) -> None:
    found = decoded(in_syntax(GRAY, syntax))
    assert np.array_equal(found.pixels, pixels_of(GRAY))
    assert (found.stats.mode, found.stats.bits, found.stats.jpeg_quality) == ("MONOCHROME2", 16, None)


@pytest.mark.parametrize(
    ("syntax", "error"), [(uid.JPEGBaseline8Bit, 3), (uid.JPEG2000, 3), (uid.JPEGLSNearLossless, 3)]
)
def test_lossy_syntaxes_are_near(syntax: uid.UID, error: int) -> None:
    smooth = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    found = decoded(compressed(dicom_file(smooth), syntax)).pixels
    assert np.abs(found.astype(int) - pixels_of(smooth)).max() <= error


def test_colour_keeps_its_colours() -> None:
    colour = np.stack([EIGHT_BIT, EIGHT_BIT[::-1], EIGHT_BIT[:, ::-1]], axis=2)
    content = dicom_file(colour, SamplesPerPixel=3)
    assert np.array_equal(decoded(content).pixels, colour)
    assert np.array_equal(decoded(compressed(content, uid.JPEG2000Lossless)).pixels, colour)


def test_several_frames_are_a_reason_that_names_them() -> None:
    with pytest.raises(UnreadableImageError, match="a DICOM file of 12 frames: only single-frame files are supported"):
        pixels_of(np.stack([GRAY] * 12))


@pytest.mark.parametrize("values", [GRAY, np.stack([EIGHT_BIT] * 3, axis=2)], ids=["gray", "colour"])
def test_pixels_of_more_frames_than_the_header_says_are_no_image(values: np.ndarray) -> None:
    with pytest.raises(UnreadableImageError, match="pixels cannot be decoded"):
        pixels_of(values, Rows=20, SamplesPerPixel=1 if values.ndim == 2 else 3)


@pytest.mark.parametrize("other", [b"1.2.840.10008.1.2.9\0", b"1.2.840.10008.1.2.1\5"])
def test_a_transfer_syntax_that_is_none_is_damage(other: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="a damaged DICOM file"):
        decoded(dicom_file(GRAY).replace(b"1.2.840.10008.1.2.1\0", other))


def test_damage_gives_a_reason_without_the_patients_name() -> None:
    with pytest.raises(UnreadableImageError, match="DICOM") as error:
        decoded(dicom_file(GRAY)[:-900])
    assert "Secret" not in str(error.value)


def test_a_box_without_a_length_in_a_jp2_file_is_not_read_for_ever() -> None:
    data = pydicom.dcmread(io.BytesIO(compressed(dicom_file(GRAY), uid.JPEG2000Lossless)))
    [stream] = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1)
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\0free" + b"\0\0\0\0jp2c" + stream
    data.PixelData = pydicom.encaps.encapsulate([boxes])
    file = io.BytesIO()
    data.save_as(file)
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        decoded(file.getvalue())


def test_damage_that_ends_gdcm_ends_one_file_only(tmp_path: Path) -> None:
    whole = compressed(dicom_file(GRAY), uid.JPEGLossless)
    scan = whole.index(b"\xff\xda")
    (tmp_path / "damaged").write_bytes(whole[:scan] + whole[scan + 40 :])
    (tmp_path / "whole").write_bytes(whole)
    with quiet_decoders():
        reasons = [prepare_image(tmp_path / name, 16, "squash").stats.reason for name in ("damaged", "whole") * 2]
    assert reasons[1] is reasons[3] is None
    assert str(reasons[0]).startswith("a DICOM file whose pixels cannot be decoded (transfer syntax JPEG Lossless")


def test_a_process_of_gdcm_that_dies_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    content = compressed(dicom_file(GRAY), uid.JPEGLossless)
    decoded(content)
    for child in dicom._idle:
        child.kill()
        child.wait()
    dead = len(dicom._idle)
    for _ in range(dead):
        with pytest.raises(UnreadableImageError, match="cannot be decoded"):
            decoded(content)
    assert np.array_equal(decoded(content).pixels, pixels_of(GRAY))


def test_a_deflated_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "MOST_INFLATED_BYTES", 100_000)
    with pytest.raises(UnreadableImageError, match="inflates to more than 100,000 bytes"):
        decoded(dicom_file(np.zeros((300, 300), np.uint16), uid.DeflatedExplicitVRLittleEndian))


def test_too_many_pixels_are_refused_by_the_header() -> None:
    with pytest.raises(UnreadableImageError, match="30000 x 30000 pixels: more than 80,000,000"):
        decoded(dicom_file(GRAY, Rows=30_000, Columns=30_000))


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = dicom_file(GRAY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImageError, match=r"xray-sweep\[dicom\]"):
        decoded(content)


@pytest.mark.parametrize(
    ("syntax", "named"),
    [
        (uid.JPEGLossless, "python-gdcm is not installed: pip install 'xray-sweep[dicom]'"),
        (uid.JPEGLSLossless, "python-gdcm is not installed: pip install 'xray-sweep[dicom]'"),
        (uid.HTJ2KLossless, "pylibjpeg[openjpeg] is not installed: pip install 'xray-sweep[dicom]'"),
        (uid.MPEG4HP41, "which is not supported: convert it"),
    ],
)
def test_a_missing_decoder_is_named(tmp_path: Path, syntax: uid.UID, named: str) -> None:
    content = bytearray(dicom_file(GRAY, uid.ExplicitVRLittleEndian))
    data = pydicom.dcmread(io.BytesIO(content))
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = pydicom.encaps.encapsulate([bytes(100)])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "x")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('gdcm', 'pylibjpeg', 'openjpeg')))\n"
        "from pathlib import Path; from trainables.data.image import prepare_image\n"
        f"print(prepare_image(Path({str(tmp_path / 'x')!r}), 16, 'squash').stats.reason)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said.endswith(named)
    assert syntax.name in said


WHOLE: dict[str, Callable[[], bytes]] = {
    "native": lambda: dicom_file(GRAY, WindowCenter=300, WindowWidth=400, PixelPaddingValue=5),
    "deflated": lambda: in_syntax(GRAY, uid.DeflatedExplicitVRLittleEndian),
    "RLE": lambda: in_syntax(GRAY, uid.RLELossless),
    "JPEG 2000": lambda: in_syntax(GRAY, uid.JPEG2000Lossless),
}


@given(
    which=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=5),
    cut=st.integers(0, 600),
)
def test_a_damaged_file_gives_an_image_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, which: str, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(WHOLE[which]())
    for place, value in changes:
        damaged[132 + place % (len(damaged) - 132)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: len(damaged) - cut])
    with quiet_decoders():
        stats = prepare_image(path, 16, "squash").stats
    assert (stats.width > 0) == (stats.reason is None)
    assert stats == ImageStats(reason=stats.reason) or stats.reason is None
