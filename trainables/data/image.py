"""Decode image files of all supported formats to uint8 pixels; an unreadable file gives a reason, never a crash."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from search_spaces.errors import reason_of
from trainables.data.dicom import PREAMBLE, UnreadableImageError, is_dicom, read_pixels
from trainables.data.files import MOST_BYTES

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM")
MOST_PIXELS = 80_000_000  # of one image; the largest mammograms have 30 million
_DARK = 64  # 16-bit colour whose high bytes are all below this does not use its range
CODEC_ROUNDING = 2  # gray levels (of 255) by which the channels of a gray image may differ
# Increase it when the output of this file or of the near-duplicate search changes: part of the image cache's key.
PREPROCESSING_VERSION = 4
SMALL = 56  # side of the image that near duplicates are compared by

Pixels = npt.NDArray[np.uint8]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ImageStats:
    """Facts about one file from its decoding, for the checks and images.csv.

    reason: why it cannot be read; None = it can, and the other fields are set.
    pixel_hash: of shape and decoded pixels at full size (32 hex digits).
    gray: one channel is enough. blank: all pixels are equal. frames: how many the file holds.
    width, height: in pixels, upright. mode: Pillow's mode of the file, or DICOM's photometric interpretation. bits: per
    sample in the file. jpeg_quality: 1..100, estimated; None = not a JPEG. mean, sd: of all pixels in gray, 0..255.
    """

    reason: str | None = None
    pixel_hash: str = ""
    gray: bool = True
    blank: bool = False
    frames: int = 1
    width: int = 0
    height: int = 0
    mode: str = ""
    bits: int = 8
    jpeg_quality: int | None = None
    mean: float = 0.0
    sd: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """An image ready for the cache: stats, square uint8 [S, S] or [S, S, 3], and small uint8 [56, 56]."""

    stats: ImageStats
    square: Pixels | None
    small: Pixels


def prepare_image(source: Path | Pixels, size: int, fit: str) -> Prepared:
    """Decode one file (or take pixels, uint8 [H, W] or [H, W, 3]); never raises for a bad file: the stats carry the
    reason.
    """
    try:
        if isinstance(source, np.ndarray):
            decoded = Decoded(_as_gray_if_equal(source), ImageStats(mode="L" if source.ndim == 2 else "RGB"))
        else:
            with _open_regular(source) as file:
                decoded = decode(file)
        pixels = decoded.pixels
        square = fit_square(pixels, size, fit)
        # A box filter before the triangle filter takes a tenth of the time and does not affect near duplicates.
        image = Image.fromarray(pixels).convert("L")
        small = image.resize((SMALL, SMALL), Image.Resampling.BILINEAR, reducing_gap=2.0)
        mean, sd = _mean_and_sd(image)
    except Exception as error:  # one bad file never ends a sweep: it is listed as unreadable
        return Prepared(ImageStats(reason=_reason(error)), None, np.zeros((SMALL, SMALL), np.uint8))
    stats = replace(
        decoded.stats,
        pixel_hash=content_hash(pixels)[:32],
        gray=pixels.ndim == 2,
        blank=bool(pixels.min() == pixels.max()),
        width=pixels.shape[1],
        height=pixels.shape[0],
        mean=mean,
        sd=sd,
    )
    return Prepared(stats, square, np.asarray(small, dtype=np.uint8))


def content_hash(source: Path | Pixels) -> str:
    """sha256 of a file's bytes, of pixels and their shape, or (if the file cannot be opened) of the reason."""
    if isinstance(source, np.ndarray):
        digest = hashlib.sha256(repr(source.shape).encode())
        digest.update(np.ascontiguousarray(source).data)
        return digest.hexdigest()
    try:
        with _open_regular(source) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, UnreadableImageError) as error:
        return hashlib.sha256(f"unreadable: {_reason(error)}".encode()).hexdigest()


def _open_regular(path: Path) -> BufferedReader:
    """Open a regular file of at most ``MOST_BYTES``: a FIFO or a device might block forever or never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError("not a regular file")
    if status.st_size > MOST_BYTES:
        raise UnreadableImageError(f"{status.st_size:,} bytes: more than {MOST_BYTES:,}")
    return path.open("rb")


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadableImageError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot be opened: {reason_of(error)}"
    return f"cannot be decoded: {type(error).__name__}: {error}"


def _mean_and_sd(image: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of an image of mode L, to two decimals."""
    counts, levels = np.array(image.histogram(), dtype=np.float64), np.arange(256)
    mean = float(np.average(levels, weights=counts))
    return round(mean, 2), round(float(np.sqrt(np.average((levels - mean) ** 2, weights=counts))), 2)


@dataclass(frozen=True)
class Decoded:
    """pixels: uint8 [H, W] if gray (so is an RGB file whose channels differ by 2 levels at most), else uint8 [H, W, 3].

    stats: only what the file header says: frames (only the first is read), mode, bits, jpeg_quality.
    """

    pixels: Pixels
    stats: ImageStats


def decode(file: BinaryIO) -> Decoded:
    """Decode a file by its content, upright by its EXIF tag. 16-bit, 32-bit and float pixels are scaled by their own
    minimum and maximum; transparency is composited on black. Raises ``UnreadableImageError``.
    """
    start = file.read(512)
    if not start:
        raise UnreadableImageError("the file is empty (0 bytes)")
    if is_dicom(start[:PREAMBLE]):
        values, photometric, bits = read_pixels(file, MOST_PIXELS)
        return Decoded(_as_gray_if_equal(scale_to_uint8(values)), ImageStats(mode=photometric, bits=bits))
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UnreadableImageError(f"{image.width} x {image.height} pixels: more than {MOST_PIXELS:,}")
            frames, bits = int(getattr(image, "n_frames", 1)), _bits(image, start)
            stats = ImageStats(frames=frames, mode=image.mode, bits=bits, jpeg_quality=_jpeg_quality(image))
            image.seek(0)
            image.load()
            pixels = _to_uint8(_upright(image))
            gray = image.mode == "F" or image.mode.startswith("I")
            if bits > 8 and not gray and 0 < pixels.max() < _DARK:
                # Pillow keeps only the high byte of each sample: 12 bits stored in 16 would become 16 levels.
                raise UnreadableImageError("16-bit colour whose highest bits are unused: save as 8-bit or gray")
            if gray and isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0:
                pixels = 255 - pixels  # WhiteIsZero, which Pillow applies to 8-bit images only
            return Decoded(_as_gray_if_equal(pixels), stats)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(_what_it_is(start)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError(f"more than {MOST_PIXELS:,} pixels") from None
    except MemoryError:
        raise UnreadableImageError("too large for memory") from None
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
        raise UnreadableImageError("no pixel has a finite value")
    low, high = float(numbers[finite].min()), float(numbers[finite].max())
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    numbers = np.nan_to_num(numbers, nan=low, posinf=high, neginf=low)
    return np.asarray((numbers - low) * (255.0 / (high - low)) + 0.5, dtype=np.uint8)


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence the decoders' warnings about odd metadata: only the pixels count. Python's warning filters are global to
    the process, so enter this around a thread pool, not in its threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def in_order(pool: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In], ahead: int) -> Iterator[_Out]:
    """Yield ``work(item)`` in order, with at most ``ahead`` results in memory (``pool.map`` would hold all of them)."""
    waiting: deque[Future[_Out]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


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
    """[H, W] if the channels differ by codec rounding at most: WebP's colour space shifts a gray image by one level."""
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        green = pixels[..., 1].astype(np.int16)
        if all(np.abs(pixels[..., other] - green).max() <= CODEC_ROUNDING for other in (0, 2)):
            return np.ascontiguousarray(pixels[..., 1])
    return pixels


def _bits(image: Image.Image, start: bytes) -> int:
    """Bits of a sample in the file: Pillow's mode alone hides the 16 bits of a colour PNG and the 4 of a palette."""
    if image.format == "PNG":
        return start[24]
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2.get(258, (1,))[0])
    if image.mode == "1":
        return 1
    return 32 if image.mode == "F" else 16 if image.mode.startswith("I") else 8


# Luminance table of ITU-T T.81, annex K.1, which the Independent JPEG Group's encoder scales by the quality.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_QUALITIES = np.arange(1, 101)
_SCALES = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
_TABLES = np.clip((np.outer(_SCALES, _LUMINANCE) + 50) // 100, 1, 255)  # [100, 64]


def _jpeg_quality(image: Image.Image) -> int | None:
    """The quality, 1..100, whose luminance table in libjpeg (jpeg_quality_scaling of jcparam.c) is nearest."""
    table = getattr(image, "quantization", {}).get(0)
    if table is None or len(table) != 64:
        return None
    return int(_QUALITIES[np.abs(_TABLES - np.array(table)).sum(axis=1).argmin()])


def _what_it_is(start: bytes) -> str:
    if b"\0" not in start:
        with contextlib.suppress(UnicodeDecodeError):
            start[:-3].decode("utf-8")
            return "a text file, not an image"
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        what = "a TIFF that is cut short, or of channels or bits that are not read"
        return f"{what}: get it again, or save it as gray or RGB, of 8 or 16 bits"
    return "not an image of a known format (PNG, JPEG, GIF, BMP, TIFF, WebP, JPEG 2000, PNM, DICOM)"
