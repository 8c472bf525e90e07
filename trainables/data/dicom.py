"""The pixels of a DICOM file as a viewer would show them; no tag leaves this file. Needs pydicom (an extra)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt


class UnreadableImageError(Exception):
    """The file is no image that can be decoded; the text is the reason, without the path or a tag of the patient."""


def is_dicom(content: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does (part 10: "DICM" after 128 bytes)."""
    return content[128:132] == b"DICM"


def read_pixels(content: bytes, most_pixels: int) -> tuple[npt.NDArray[np.generic], int]:
    """The first frame, [H, W] or uint8 [H, W, 3], and the number of frames.

    Gray pixels go the way of DICOM PS3.3 C.11: modality (rescale slope and intercept), then the first VOI lookup
    table or window, then MONOCHROME1 is inverted, so that more is always brighter.
    """
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        missing = "a DICOM file, and pydicom is not installed: pip install 'xray-sweep[dicom]'"
        raise UnreadableImageError(missing) from None
    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
        rows, columns = int(dataset.Rows), int(dataset.Columns)
    except Exception:  # pydicom's messages may quote tags: keep them in
        raise UnreadableImageError("a damaged DICOM file, or one without an image") from None
    if rows * columns > most_pixels:
        raise UnreadableImageError(f"{columns} x {rows} pixels: more than {most_pixels:,}")
    try:
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        photometric = str(dataset.PhotometricInterpretation)
        values = pixels.pixel_array(dataset, index=0)
        if photometric == "PALETTE COLOR":
            return _to_8_bit(pixels.apply_color_lut(values, dataset)), frames
        if values.ndim == 3:
            if values.shape[2] != 3:
                raise ValueError("not three samples a pixel")
            return _to_8_bit(values), frames
        return _gray_as_shown(values, dataset, photometric), frames
    except Exception:
        name = getattr(getattr(dataset.file_meta, "TransferSyntaxUID", None), "name", "unknown")
        raise UnreadableImageError(f"a DICOM file whose pixels cannot be decoded (transfer syntax {name})") from None


def _gray_as_shown(values: npt.NDArray[Any], dataset: Any, photometric: str) -> npt.NDArray[Any]:
    from pydicom import pixels

    shown = pixels.apply_modality_lut(values, dataset)
    shown = np.asarray(pixels.apply_voi_lut(shown, dataset), dtype=np.float64)
    return -shown if photometric == "MONOCHROME1" else shown


def _to_8_bit(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return values if values.dtype == np.uint8 else np.asarray(values >> 8, dtype=np.uint8)
