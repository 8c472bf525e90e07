"""The pixels of a DICOM file as a viewer shows them; no patient tag leaves this module. Needs pydicom (an extra)."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import subprocess
import sys
import threading
import zlib
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

PREAMBLE = 132
MOST_INFLATED_BYTES = 1_000_000_000
_EXTRA = "pip install 'xray-sweep[dicom]'"
_MOST_GDCM_S = 120.0
_JP2 = b"\0\0\0\x0cjP  "  # start of the first box, which has 12 bytes
_HIGH_THROUGHPUT = "1.2.840.10008.1.2.4.20"  # the JPEG 2000 syntaxes that GDCM does not know


class UnreadableImageError(Exception):
    """The file cannot be decoded as an image; the text is the reason, without the path or a tag of the patient."""


def is_dicom(start: bytes) -> bool:
    """Whether a file's first 132 bytes are those of a DICOM file (part 10: "DICM" after 128 bytes)."""
    return start[128:PREAMBLE] == b"DICM"


def read_pixels(file: BinaryIO, most_pixels: int) -> tuple[npt.NDArray[np.generic], str, int]:
    """The pixels of a single-frame file: float64 [H, W], NaN where the image is padded, or uint8 [H, W, 3].

    Also returns the photometric interpretation, such as MONOCHROME2, and the bits stored per sample.
    Gray pixels are transformed as in DICOM PS3.3 C.11: modality (rescale slope and intercept), then the first VOI
    lookup table or window, then MONOCHROME1 is inverted, so that a higher value is always brighter.
    """
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        raise UnreadableImageError(f"a DICOM file, and pydicom is not installed: {_EXTRA}") from None
    _check_inflated(file)
    try:
        file.seek(0)
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        syntax = dataset.file_meta.TransferSyntaxUID
        encapsulated = syntax.is_encapsulated
    except Exception:  # pydicom's messages may quote tags: do not pass them on
        raise UnreadableImageError("a damaged DICOM file, or one without an image") from None
    if frames > 1:
        raise UnreadableImageError(f"a DICOM file of {frames} frames: only single-frame files are supported")
    if rows * columns > most_pixels:
        raise UnreadableImageError(f"{columns} x {rows} pixels: more than {most_pixels:,}")
    plugin = _decoder_of(syntax) if encapsulated else ""
    try:
        photometric = str(dataset.PhotometricInterpretation)
        file.seek(0)
        if plugin == "gdcm":
            values = _by_gdcm(file.read())
        else:
            whole = pydicom.dcmread(file)
            for frame in pydicom.encaps.generate_frames(whole.PixelData, number_of_frames=1) if encapsulated else ():
                _check_boxes(frame)
            values = pixels.pixel_array(whole, decoding_plugin=plugin)
        if values.shape not in ((rows, columns), (rows, columns, 3)):
            raise ValueError("not one frame of one or three samples a pixel")
        if photometric == "PALETTE COLOR":
            shown = _to_8_bit(pixels.apply_color_lut(values, dataset))
        elif values.ndim == 3:
            shown = _to_8_bit(values)
        else:
            shown = _gray_as_shown(values, dataset, photometric)
        return shown, photometric, int(dataset.BitsStored)
    except Exception:
        raise UnreadableImageError(
            f"a DICOM file whose pixels cannot be decoded (transfer syntax {syntax.name})"
        ) from None


def _check_inflated(file: BinaryIO) -> None:
    """Refuse a deflated data set that would fill the memory: pydicom inflates it whole.

    The group length (bytes 140 to 143) gives the end of the file meta information: PS3.10 section 7.1.
    """
    file.seek(0)
    start = file.read(PREAMBLE + 12)
    meta = file.read(min(int.from_bytes(start[-4:], "little"), 1 << 16))
    if b"1.2.840.10008.1.2.1.99" not in meta:
        return
    inflate, count = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while part := inflate.unconsumed_tail or file.read(1 << 20):
            count += len(inflate.decompress(part, 1 << 24))
            if count > MOST_INFLATED_BYTES:
                raise UnreadableImageError(f"a DICOM file that inflates to more than {MOST_INFLATED_BYTES:,} bytes")
    except zlib.error:
        raise UnreadableImageError("a damaged DICOM file") from None


def _decoder_of(syntax: Any) -> str:
    """pydicom's name of the decoder to use. Raises ``UnreadableImageError``, which says what to install or do."""
    from pydicom import pixels

    try:
        available = pixels.get_decoder(syntax).available_plugins
        for plugin in ("pydicom", "pylibjpeg", "pillow", "gdcm"):
            if plugin in available:
                return plugin
    except NotImplementedError:  # video
        raise UnreadableImageError(f"a DICOM file in {syntax.name}, which is not supported: convert it") from None
    package = "pylibjpeg[openjpeg]" if syntax.startswith(_HIGH_THROUGHPUT) else "python-gdcm"
    raise UnreadableImageError(f"a DICOM file in {syntax.name}, and {package} is not installed: {_EXTRA}")


def _check_boxes(frame: bytes) -> None:
    """Raise ValueError if a box of a JP2 file (ISO 15444-1, annex I) has no length: pydicom would loop forever."""
    place = 12
    while frame.startswith(_JP2) and place < len(frame) and frame[place + 4 : place + 8] != b"jp2c":
        length = int.from_bytes(frame[place : place + 4], "big")
        if not length:
            raise ValueError("a box without a length")
        place += length


_idle: list[subprocess.Popen[bytes]] = []


def _by_gdcm(content: bytes) -> npt.NDArray[Any]:
    """Decode in a child process, since GDCM ends its process if a file is damaged. Raises ValueError then."""
    try:
        child = _idle.pop()
    except IndexError:
        command = [sys.executable, "-P", "-W", "ignore", __file__]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdin is not None
    assert child.stdout is not None
    limit = threading.Timer(_MOST_GDCM_S, child.kill)
    limit.start()
    try:
        child.stdin.write(len(content).to_bytes(8, "little") + content)
        child.stdin.flush()
        head = child.stdout.read(8)
        reply = child.stdout.read(int.from_bytes(head, "little"))
    except OSError:
        head = reply = b""
    finally:
        limit.cancel()
    if head:
        _idle.append(child)
    else:
        _end(child)
    if not reply:
        raise ValueError("not decoded")
    return np.asarray(np.load(io.BytesIO(reply), allow_pickle=False))


@atexit.register
def _end_idle() -> None:
    while _idle:
        _end(_idle.pop())


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with contextlib.suppress(OSError, ValueError):  # its pipes may be broken
        child.communicate()


def _serve() -> None:
    """The child: reads DICOM files and writes arrays in NumPy's format, each after its length; empty if not decoded."""
    import pydicom
    from pydicom import pixels

    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps what libraries print out of the replies
    while length := int.from_bytes(sys.stdin.buffer.read(8), "little"):
        reply = io.BytesIO()
        with contextlib.suppress(Exception):
            dataset = pydicom.dcmread(io.BytesIO(sys.stdin.buffer.read(length)))
            np.save(reply, pixels.pixel_array(dataset, decoding_plugin="gdcm"))
        replies.write(len(reply.getvalue()).to_bytes(8, "little") + reply.getvalue())
        replies.flush()


def _gray_as_shown(values: npt.NDArray[Any], dataset: Any, photometric: str) -> npt.NDArray[Any]:
    from pydicom import pixels

    shown = pixels.apply_modality_lut(values, dataset)
    if (dataset.get("RescaleSlope") or 1) < 0:
        del dataset.RescaleSlope  # pydicom would apply it to windowed values again, and invert them.
    with contextlib.suppress(ValueError):  # A window of no width or no known function: viewers show the full range.
        shown = pixels.apply_voi_lut(shown, dataset)
    shown = np.array(shown, dtype=np.float64)
    if photometric == "MONOCHROME1":
        np.negative(shown, out=shown)
    padding = _padding(values, dataset)
    if not padding.all():
        shown[padding] = np.nan
    return shown


def _padding(values: npt.NDArray[Any], dataset: Any) -> npt.NDArray[np.bool_]:
    """bool [H, W]: stored values that are padding, outside the image and its range of gray (PS3.3 C.7.5.1.1.2)."""
    tags = (dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    ends = [_as_stored(int(tag), values.dtype) for tag in tags if tag is not None]
    if "PixelPaddingValue" not in dataset or not ends:
        return np.zeros(values.shape, dtype=np.bool_)
    return np.asarray((values >= min(ends)) & (values <= max(ends)))


def _as_stored(value: int, dtype: np.dtype[Any]) -> int:
    """A padding tag as a stored value: tags come signed or unsigned, whatever the pixels are."""
    if dtype == np.int16 and value > np.iinfo(np.int16).max:
        return value - (1 << 16)
    return value + (1 << 16) if dtype == np.uint16 and value < 0 else value


def _to_8_bit(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return values if values.dtype == np.uint8 else np.asarray(values >> 8, dtype=np.uint8)


if __name__ == "__main__":
    _serve()
