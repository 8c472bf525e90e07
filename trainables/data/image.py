"""One image file to uint8 pixels, whatever its format; a file that cannot be read gives a reason, never a crash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.data.dicom import UnreadableImageError, is_dicom, read_pixels

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MOST_PIXELS = 80_000_000  # of one image; the largest mammograms have 30 million
CODEC_ROUNDING = 2  # levels of 255 that the channels of a gray image may differ by
# Raise the number when the pixels that come out of this file change: it is part of the image cache's key.
PREPROCESSING_VERSION = 1
SMALL = 64  # side of the image that near duplicates are compared by

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageStats:
    """What is learned of one file when it is decoded: what the checks and the cache's key need.

    reason: why it cannot be read; None = it can, and the rest is set.
    pixel_hash: of shape and decoded pixels at full size (32 hex). phash: imagehash's pHash, 64 bits as 16 hex.
    gray: one channel is enough. blank: all pixels are equal. frames: how many the file holds.
    """

    reason: str | None = None
    pixel_hash: str = ""
    phash: str = ""
    gray: bool = True
    blank: bool = False
    frames: int = 1


@dataclass(frozen=True)
class Prepared:
    """An image on its way into the cache: stats, square uint8 [S, S] or [S, S, 3], and small uint8 [64, 64]."""

    stats: ImageStats
    square: Pixels | None
    small: Pixels


def prepare_image(source: Path | Pixels, size: int, fit: str) -> Prepared:
    """Decode one file (or take drawn pixels); never raises for a bad file: the stats carry the reason."""
    try:
        decoded = Decoded(source) if isinstance(source, np.ndarray) else decode(source.read_bytes())
        pixels = decoded.pixels
        square = fit_square(pixels, size, fit)
        # Boxes before the triangle filter: a tenth of the time, and near duplicates do not feel it.
        image = Image.fromarray(pixels).convert("L")
        small = image.resize((SMALL, SMALL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except Exception as error:  # one odd file never ends a sweep: it is listed with the others that cannot be read
        return Prepared(ImageStats(reason=_reason(error)), None, np.zeros((SMALL, SMALL), np.uint8))
    stats = ImageStats(
        pixel_hash=_pixel_hash(pixels),
        phash=str(imagehash.phash(small)),
        gray=pixels.ndim == 2,
        blank=bool(pixels.min() == pixels.max()),
        frames=decoded.frames,
    )
    return Prepared(stats, square, np.asarray(small, dtype=np.uint8))


def content_hash(source: Path | Pixels) -> str:
    """sha256 of a file's bytes, or of drawn pixels; of a file that cannot be opened, of the reason."""
    if isinstance(source, np.ndarray):
        return hashlib.sha256(source.tobytes()).hexdigest()
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return hashlib.sha256(f"unreadable: {error.strerror}".encode()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadableImageError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot be opened: {error.strerror or error}"
    return f"cannot be decoded: {type(error).__name__}: {error}"


def _pixel_hash(pixels: npt.NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()[:32]


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
    if is_dicom(content):
        values, frames = read_pixels(content, MOST_PIXELS)
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
    if fit == "crop":
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    elif fit == "pad":
        scale = size / max(image.size)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
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


@contextlib.contextmanager
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
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"), dtype=np.uint8)
    if image.mode == "F" or image.mode.startswith("I"):
        return scale_to_uint8(np.asarray(image))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (image.mode != "RGB" and "transparency" in image.info):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)  # RGB, P, CMYK, YCbCr, LAB, HSV


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
        with contextlib.suppress(UnicodeDecodeError):
            start[:-3].decode("utf-8")
            return "a text file, not an image"
    return "not an image of a known format (PNG, JPEG, BMP, TIFF, WebP, DICOM)"
