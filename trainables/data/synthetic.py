"""The built-in demo set: chest-X-ray-like phantoms drawn by code, so that a first run needs no download.

Three findings: ``normal``; ``consolidation``, one larger opacity in one lung; ``diffuse``, several small ones in both
lungs. They overlap on purpose (faint findings, overlying shadows on normals, noise), so that no network gets all of
them right. Nothing here is, or is made from, a patient's image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trainables.data.samples import Samples

SIZE = 128
CLASSES = ("consolidation", "diffuse", "normal")
PATIENTS = {"consolidation": 120, "diffuse": 100, "normal": 140}
_SEED = 20200401

Plane = npt.NDArray[np.float32]


def list_demo() -> Samples:
    """Draw the demo set: the same pixels each time (within rounding on other processors), split by patient."""
    rows = []
    for patient, label, split, rng in _patients():
        anatomy = _Anatomy(rng)
        for view in range(int(rng.integers(1, 4))):
            name, image = f"phantom_{patient:03d}", _draw(anatomy, CLASSES[label], rng)
            rows.append((f"{split}/{CLASSES[label]}/{name}_{view}.png", label, split, name, image))
    paths, labels, splits, groups, pixels = zip(*rows, strict=True)
    return Samples(
        kind="demo",
        path="demo",
        task="single_label",
        classes=CLASSES,
        paths=paths,
        files=(),
        labels=np.array(labels, dtype=np.int64),
        splits=splits,
        group_from="patient",
        groups=groups,
        pixels=np.stack(pixels),
    )


def _patients() -> Iterator[tuple[int, int, str, np.random.Generator]]:
    """Number, class, split and generator of each patient; of 20 patients of a class 14 train, 3 validate, 3 test."""
    number = 0
    for label, name in enumerate(CLASSES):
        for place in range(PATIENTS[name]):
            turn = place % 20
            split = "train" if turn < 14 else "val" if turn < 17 else "test"
            yield number, label, split, np.random.default_rng([_SEED, number])
            number += 1


class _Anatomy:
    """What all images of one patient share; lengths are fractions of the image's side."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.width = rng.uniform(0.93, 1.07)
        self.lung = rng.uniform([0.145, 0.27], [0.165, 0.31])  # half width, half height
        self.gap = rng.uniform(0.185, 0.205)  # from the spine to a lung's middle
        self.heart = rng.uniform([0.09, 0.10], [0.17, 0.17])
        self.rib_count = rng.uniform(8.0, 11.0)
        self.rib_strength = rng.uniform(0.02, 0.06)
        self.air = rng.uniform(0.34, 0.40)


def _draw(anatomy: _Anatomy, finding: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One image: uint8 [SIZE, SIZE]. Only + - * / and floor, which round alike on nearly all processors."""
    y, x = _grid(rng)
    x = x / np.float32(anatomy.width)
    image = 0.30 + 0.32 * _bump(x / 0.62, (y - 0.15) / 0.95)  # soft tissue
    lungs = np.zeros_like(image)
    for side in (-1, 1):
        lung = _bump((x - side * anatomy.gap) / (anatomy.lung[0] * 1.5), (y + 0.02) / (anatomy.lung[1] * 1.5))
        lungs = np.maximum(lungs, np.minimum(lung * 3.0, 1.0))
    image -= anatomy.air * lungs
    image += anatomy.rib_strength * _ribs(x, y, anatomy.rib_count) * (0.3 + 0.7 * lungs)
    image += 0.20 * _bump(x / 0.10, y / 1.5)  # spine and mediastinum
    image += 0.30 * _bump((x - 0.06) / (anatomy.heart[0] * 1.5), (y - 0.14) / (anatomy.heart[1] * 1.5))
    image += _finding(anatomy, finding, x, y, rng) * (0.25 + 0.75 * lungs)
    image = rng.uniform(-0.03, 0.03) + rng.uniform(0.9, 1.1) * image
    noise = rng.random((4, SIZE, SIZE), dtype=np.float32).sum(axis=0) - 2.0  # nearly normal, sd 0.58
    image += rng.uniform(0.04, 0.08) * noise
    return np.asarray(np.clip(image * 255.0 + 0.5, 0, 255), dtype=np.uint8)


def _grid(rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Coordinates y, x in -0.5..0.5, moved, scaled and sheared a little, as patients stand differently each time."""
    line = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE - 0.5
    scale, lean = rng.uniform(0.82, 0.96), rng.uniform(-0.03, 0.03)
    y = np.broadcast_to(line[:, None], (SIZE, SIZE)) * scale + rng.uniform(-0.03, 0.03)
    x = np.broadcast_to(line[None, :], (SIZE, SIZE)) * scale + rng.uniform(-0.03, 0.03) + lean * y
    return y.astype(np.float32), x.astype(np.float32)


def _finding(anatomy: _Anatomy, finding: str, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """What the class adds to the image."""
    sides = [-1, 1] if rng.random() < 0.5 else [1, -1]
    # Overlying shadows, as of soft tissue or a vessel, on any image: the confounder.
    spots = [(sides[1], rng.uniform(0.05, 0.09), rng.uniform(0.0, 0.12)) for _ in range(int(rng.integers(0, 3)))]
    # One finding in eight is too faint to be seen: no network gets all images right.
    severity = 0.05 if rng.random() < 0.125 else rng.uniform(0.5, 1.2)
    if finding == "consolidation":
        spots += [(sides[0], rng.uniform(0.20, 0.28), 0.50 * severity)]
    elif finding == "diffuse":
        count = int(rng.integers(10, 18))
        spots += [
            (sides[i % 2], rng.uniform(0.06, 0.10), 0.40 * severity * rng.uniform(0.6, 1.3)) for i in range(count)
        ]
    added = np.zeros_like(x)
    for side, radius, strength in spots:
        across, down = rng.uniform(-0.7, 0.7, size=2)
        middle_x = side * anatomy.gap + across * anatomy.lung[0]
        middle_y = -0.02 + down * anatomy.lung[1]
        stretch = rng.uniform(0.7, 1.4)
        added += strength * _bump((x - middle_x) / (radius * stretch), (y - middle_y) / (radius / stretch))
    return added


def _bump(u: Plane, v: Plane) -> Plane:
    """1 in the middle, falling smoothly to 0 on the unit circle."""
    inside = np.maximum(1.0 - u * u - v * v, 0.0)
    return np.asarray(inside * inside, dtype=np.float32)


def _ribs(x: Plane, y: Plane, count: float) -> Plane:
    """Bright arcs, in 0..1: parabolas that hang down to both sides."""
    phase = (y - 1.1 * x * x) * np.float32(count)
    wave = phase - np.floor(phase) - 0.5
    return np.asarray(np.maximum(1.0 - 10.0 * wave * wave, 0.0), dtype=np.float32)
