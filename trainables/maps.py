"""Attribution maps without torch: their file, their share in the frame, and overlays on images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.atomic import write_atomically

SMALLEST_GRID = 7
"""Positions per side. On a coarser grid, the frame is within cells that reach far into the image."""
FRAME_PART = 1 / 16
"""Width of the frame as a part of the side, also in the border baseline."""
FRAME_OF_SIDE = 64
"""Side, in pixels, to which a map is enlarged, or an image reduced, before its frame is taken: .234 of the area."""
HEAT = (213, 94, 0)
"""Red, green and blue of attribution over an image: vermillion of Okabe and Ito's palette."""
OPACITY = 0.65
"""Opacity of the colour where a map is highest."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Maps:
    """``maps.npz``: Grad-CAM of one split, a row for each image and class; see ``trainables.attribution``.

    path: str [M], in split order; label: int64 [M], the class whose logit it is, an index of ``classes``; has: bool
    [M], whether the image truly has this class; map: float16 [M, h, w], 0 or more, sum 1, or all 0 if nothing speaks
    for the class. If the grid has fewer than ``SMALLEST_GRID`` positions per side, M is 0. epoch: of the weights.
    """

    path: NDArray[np.str_]
    label: NDArray[np.int64]
    has: NDArray[np.bool_]
    map: NDArray[np.float16]
    split: str
    classes: tuple[str, ...]
    epoch: int

    def write(self, path: Path) -> None:
        """Write the file atomically; numpy reads it without pickle."""
        write_atomically(path, lambda beside: np.savez_compressed(beside, **vars(self)))

    @property
    def grid(self) -> tuple[int, int]:
        """Positions down and across."""
        return self.map.shape[1], self.map.shape[2]


def read_maps(path: Path) -> Maps:
    """The maps in a file that ``Maps.write`` wrote; ValueError if its arrays do not fit each other."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:  # numpy leaves a truncated file open
        found = Maps(
            **{name: saved[name] for name in ("path", "label", "has", "map")},
            split=str(saved["split"]),
            classes=tuple(map(str, saved["classes"])),
            epoch=int(saved["epoch"]),
        )
    rows = found.path.shape
    kinds = [one.dtype.kind for one in (found.path, found.label, found.has, found.map)]
    if not (len(rows) == 1 and found.label.shape == found.has.shape == rows == found.map.shape[:1]):
        raise ValueError("its arrays do not fit each other")
    if kinds != ["U", "i", "b", "f"] or found.map.ndim != 3 or 0 in found.map.shape[1:]:
        raise ValueError("its arrays have wrong types or values")
    if not (np.isfinite(found.map).all() and (found.map >= 0).all()):
        raise ValueError("attribution is negative or not finite")
    if not ((found.label >= 0) & (found.label < len(found.classes))).all():
        raise ValueError("it has maps of classes that it does not name")
    return found


def enlarged(maps: NDArray[Any], side: int) -> Floats:
    """[..., h, w] -> float64 [..., side, side], bilinear, as torch's ``interpolate`` without ``align_corners``."""
    down, across = (_bilinear(cells, side) for cells in maps.shape[-2:])
    larger: Floats = down @ maps.astype(np.float64) @ across.T
    return larger


def frame_share(maps: NDArray[Any]) -> Floats:
    """The part of each map, [M, h, w], in the outermost sixteenth of each side: float64 [M] in 0..1, NaN if all 0.

    That of the map ``enlarged`` to 64 x 64, without enlarging it: all steps are linear. A uniform map has 960/4096.
    """
    width = round(FRAME_OF_SIDE * FRAME_PART)
    sides = [_bilinear(cells, FRAME_OF_SIDE) for cells in maps.shape[1:]]
    whole, inside = (
        np.einsum("mhw,h,w->m", maps.astype(np.float64), *(side[part].sum(axis=0) for side in sides))
        for part in (slice(None), slice(width, -width))
    )
    shares: Floats = 1 - np.divide(inside, whole, out=np.full(len(maps), np.nan), where=whole > 0)
    return shares


def overlay(image: NDArray[np.uint8], attribution: NDArray[Any]) -> NDArray[np.uint8]:
    """A map, [h, w], over ``image``, [S, S] or [S, S, 3]: uint8 [S, S, 3], more coloured where attribution is higher.

    Each map is scaled by its own highest value.
    """
    heat = enlarged(attribution, len(image))
    opacity = (OPACITY * heat / max(float(heat.max()), np.finfo(np.float64).tiny))[..., None]
    colours = np.broadcast_to(image[..., None] if image.ndim == 2 else image, (*image.shape[:2], 3))
    coloured: NDArray[np.uint8] = np.rint((1 - opacity) * colours + opacity * np.array(HEAT)).astype(np.uint8)
    return coloured


def _bilinear(cells: int, pixels: int) -> Floats:
    """The matrix [pixels, cells] that interpolates between the centres of cells; beyond the outer ones, constant."""
    place = ((np.arange(pixels) + 0.5) * cells / pixels - 0.5).clip(0, cells - 1)
    matrix: Floats = np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(cells)))
    return matrix
