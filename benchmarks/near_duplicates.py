"""How many re-exported films the checks find, how many false pairs they report, and how long that takes.

Each real image is copied: shifted by up to 8 px, cropped by up to 6 % per side, mirrored or not, gamma .8 to 1.25, at
another size, JPEG 60 to 95. Patients are split in halves: the settings of ``trainables.data.near_duplicates`` were
chosen on one half, the other is reported. A pair of two patients is false; two films of one patient may look as similar
as two copies of one film.

    python -m benchmarks.near_duplicates [--data FOLDER] [--images 12000]

The folder holds ``manifest.csv`` with the columns path and group_id, by default ``data/xray_a`` in ``$SHARED_DIR``.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from benchmarks.data_scale import draw_alike
from trainables.data.image import prepare_image
from trainables.data.near_duplicates import LEAST_CORRELATION, NearPairs, find_near_pairs

THREADS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SHARED_DIR", "../shared")) / "data" / "xray_a"
    )
    parser.add_argument("--images", type=int, default=12_000, help="drawn images of which the time is measured")
    options = parser.parse_args()
    manifest = pd.read_csv(options.data / "manifest.csv")
    images = [Image.open(options.data / path).convert("L") for path in manifest["path"]]
    patients = manifest["group_id"].to_numpy()
    chance = np.random.default_rng(0)
    copies = [exported_again(image, chance) for image in images]
    smalls = np.stack([prepare_image(np.asarray(image), 32, "squash").small for image in (*images, *copies)])
    order = np.random.default_rng(1).permutation(np.unique(patients))
    tuned = np.isin(patients, order[: len(order) // 2])
    print(f"pairs that correlate by {LEAST_CORRELATION} or more")
    for name, half in (("tuned", tuned), ("reported", ~tuned)):
        rows = np.flatnonzero(half)
        near, _ = searched(smalls[np.concatenate([rows, rows + len(images)])])
        found = np.array([(one.first, one.second) for one in near.pairs])
        again = found[:, 0] + len(rows) == found[:, 1]
        of_two = patients[rows][found[:, 0] % len(rows)] != patients[rows][found[:, 1] % len(rows)]
        share = of_two.sum() / (2 * len(rows)) * 500
        print(
            f"{name}: {2 * len(rows):,} images, recall {again.sum() / len(rows):.3f} of {len(rows)}; pairs of two "
            f"patients {of_two.sum()}, in 500 images {share:.2f}; others of one patient {(~again & ~of_two).sum()}"
        )
    near, (cpu_s, wall_s) = searched(draw_alike(options.images, chance))
    taken = f"{cpu_s:.0f} CPU s, {wall_s:.0f} s in {THREADS} threads"
    print(f"{options.images:,} drawn images: {taken}, {near.skipped} candidates skipped")


def exported_again(image: Image.Image, chance: np.random.Generator) -> Image.Image:
    x, y = map(int, chance.integers(-8, 9, 2))
    image = image.transform(image.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y))
    share = chance.uniform(0, 0.06)
    image = ImageOps.crop(image, (round(share * image.width), round(share * image.height)))
    image = ImageOps.mirror(image) if chance.random() < 0.5 else image
    gamma = np.exp(chance.uniform(np.log(0.8), np.log(1.25)))
    image = image.point([round(255 * (level / 255) ** gamma) for level in range(256)])
    scale = chance.uniform(0.8, 1.2)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(chance.integers(60, 96)))
    return Image.open(buffer).convert("L")


def searched(smalls: np.ndarray) -> tuple[NearPairs, tuple[float, float]]:
    """The pairs found, and the CPU and wall-clock seconds of the search."""
    rows, cpu_s, wall_s = np.arange(len(smalls)), time.process_time(), time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        near = find_near_pairs(smalls, rows, rows, pool)
    return near, (time.process_time() - cpu_s, time.monotonic() - wall_s)


if __name__ == "__main__":
    main()
