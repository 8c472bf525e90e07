"""One image file to uint8 pixels, whatever its format; a file that cannot be read gives a reason, never a crash."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.data import dicom

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MOST_PIXELS = 80_000_000  # of one image; the largest mammograms have 30 million
CODEC_ROUNDING = 2  # levels of 255 that the channels of a gray image may differ by
# Raise the number when the pixels that come out of this file change: it is part of the decoded store's key.
PREPROCESSING_VERSION = 1

Pixels = npt.NDArray[np.uint8]


class UnreadableImageError(Exception):
    """The file is no image that can be decoded; the text is the reason, without the path."""


@dataclass(frozen=True)
class Decoded:
    """pixels: uint8 [H, W] if gray (so is an RGB file whose channels differ by 2 levels at most), else uint8 [H, W, 3].

    frames: how many the file holds; only the first is read.
    """

    pixels: Pixels
    frames: int = 1


def decode(content: bytes) -> Decoded:
    """Decode a file's bytes, upright by its EXIF tag. 16-bit, 32-bit and float pixels are scaled by their own
    minimum and maximum; transparent pixels lie on black. Raises ``UnreadableImageError``.
    """
    if not content:
        raise UnreadableImageError("the file is empty (0 bytes)")
    if dicom.is_dicom(content):
        try:
            values, frames = dicom.read_pixels(content, MOST_PIXELS)
        except dicom.DicomError as error:
            raise UnreadableImageError(str(error)) from None
        return Decoded(_as_gray_if_equal(scale_to_uint8(values)), frames)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UnreadableImageError(f"{image.width} x {image.height} pixels: more than {MOST_PIXELS:,}")
            frames = int(getattr(image, "n_frames", 1))
            image.seek(0)
            image.load()
            return Decoded(_as_gray_if_equal(_to_uint8(_upright(image))), frames)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(_what_it_is(content)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError(f"more than {MOST_PIXELS:,} pixels") from None
    except MemoryError:
        raise UnreadableImageError("too large for the memory") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError, ... on damage
        raise UnreadableImageError(f"damaged: {error or type(error).__name__}") from None


def fit_square(pixels: Pixels, size: int, fit: str) -> Pixels:
    """Resize to a square with antialiasing (triangle filter): uint8 [size, size] or [size, size, 3].

    "squash" stretches, "crop" takes the middle square, "pad" keeps all and fills with black.
    """
    image = Image.fromarray(pixels)
    width, height = image.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    elif fit == "pad":
        scale = size / max(width, height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        square = Image.new(image.mode, (size, size))
        place = ((size - inner[0]) // 2, (size - inner[1]) // 2)
        square.paste(image.resize(inner, Image.Resampling.BILINEAR), place)
        image = square
    else:
        assert fit == "squash", fit
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)


def scale_to_uint8(values: npt.NDArray[np.generic]) -> Pixels:
    """Scale by the array's own finite minimum and maximum to 0..255; uint8 stays as it is, a constant becomes 0."""
    if values.dtype == np.uint8:
        return values.view(np.uint8)
    numbers = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        raise UnreadableImageError("no pixel is a finite number")
    low, high = float(numbers[finite].min()), float(numbers[finite].max())
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    numbers = np.nan_to_num(numbers, nan=low, posinf=high, neginf=low)
    return np.asarray((numbers - low) * (255.0 / (high - low)) + 0.5, dtype=np.uint8)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Decoders warn about odd metadata; we judge by the pixels. Python's warning filters belong to the whole process,
    so this stands around a pool of threads, not inside them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return image


def _to_uint8(image: Image.Image) -> Pixels:
    if image.mode in ("L", "RGB"):
        return np.asarray(image, dtype=np.uint8)
    if image.mode == "1":
        return np.asarray(image.convert("L"), dtype=np.uint8)
    if image.mode == "F" or image.mode.startswith("I"):
        return scale_to_uint8(np.asarray(image))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, rgba).convert("RGB"), dtype=np.uint8)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)  # P, CMYK, YCbCr, LAB, HSV


def _as_gray_if_equal(pixels: Pixels) -> Pixels:
    """Channels may differ by the rounding of a codec: WebP's colour space gives a gray image one level off."""
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        green = pixels[..., 1].astype(np.int16)
        if all(np.abs(pixels[..., other] - green).max() <= CODEC_ROUNDING for other in (0, 2)):
            return np.ascontiguousarray(pixels[..., 1])
    return pixels


def _what_it_is(content: bytes) -> str:
    start = content[:512]
    if b"\0" not in start:
        try:
            start[:-3].decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            return "a text file, not an image"
    return "not an image of a known format (PNG, JPEG, BMP, TIFF, WebP, DICOM)"
