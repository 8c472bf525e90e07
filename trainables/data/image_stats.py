"""What is learned of each image when it is decoded: the facts that the hygiene checks and the store's key need."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.data.image import Pixels, UnreadableImageError, decode, fit_square

SMALL = 64  # side of the image that near duplicates are compared by


@dataclass(frozen=True)
class ImageStats:
    """Of one file.

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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Prepared:
    """An image on its way into the store: facts, square uint8 [S, S] or [S, S, 3], and small uint8 [64, 64]."""

    facts: ImageStats
    square: Pixels | None
    small: Pixels


def content_hash(source: Path | Pixels) -> str:
    """sha256 of a file's bytes, or of drawn pixels; of a file that cannot be opened, of the reason."""
    if isinstance(source, np.ndarray):
        return hashlib.sha256(source.tobytes()).hexdigest()
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return hashlib.sha256(f"unreadable: {error.strerror}".encode()).hexdigest()


def prepare_image(source: Path | Pixels, size: int, fit: str) -> Prepared:
    """Decode one file (or take drawn pixels); never raises for a bad file: the facts carry the reason."""
    try:
        if isinstance(source, np.ndarray):
            pixels, frames = source, 1
        else:
            decoded = decode(source.read_bytes())
            pixels, frames = decoded.pixels, decoded.frames
        square = fit_square(pixels, size, fit)
        # Boxes before the triangle filter: a tenth of the time, and near duplicates do not feel it.
        image = Image.fromarray(pixels).convert("L")
        small = image.resize((SMALL, SMALL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except UnreadableImageError as error:
        return Prepared(ImageStats(reason=str(error)), None, np.zeros((SMALL, SMALL), np.uint8))
    except OSError as error:
        reason = f"cannot be opened: {error.strerror or error}"
        return Prepared(ImageStats(reason=reason), None, np.zeros((SMALL, SMALL), np.uint8))
    except Exception as error:  # one odd file never ends a sweep: it is listed with the others that cannot be read
        reason = f"cannot be decoded: {type(error).__name__}: {error}"
        return Prepared(ImageStats(reason=reason), None, np.zeros((SMALL, SMALL), np.uint8))
    facts = ImageStats(
        pixel_hash=_pixel_hash(pixels),
        phash=str(imagehash.phash(small)),
        gray=pixels.ndim == 2,
        blank=bool(pixels.min() == pixels.max()),
        frames=frames,
    )
    return Prepared(facts, square, np.asarray(small, dtype=np.uint8))


def _pixel_hash(pixels: npt.NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()[:32]
