"""Where the network looks: mean maps of each class, their share in the frame, and maps over the images of a list."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import figures, formats, intervals, thumbnails
from reports.blocks import Block, Figure, Folded, Sample, Samples, Table, Text, columns
from reports.bootstrap import Scores, with_means
from reports.drawing import short
from reports.results import Results
from trainables.maps import FRAME_OF_SIDE, FRAME_PART, SMALLEST_GRID, Maps, enlarged, frame_share, overlay

MOST_PANELS = 30
EVEN = 1 - (1 - 2 * FRAME_PART) ** 2
"""Share in the frame of a uniform map: the frame's share of the area."""
METHOD = (
    "Grad-CAM (Selvaraju et al., ICCV 2017) shows which positions of the network's last feature map raise the score of "
    "a class. A map does not delineate a finding, does not prove what a prediction is based on, and does not show its "
    "confidence, since each map sums to 1."
)
OF_FRAME = (
    "Mean share of attribution in the frame, the outermost sixteenth of each side, over the images that have the "
    f"class. A uniform map has {formats.score(EVEN)}; a much larger share suggests markers and borders."
)


def blocks(results: Results, rows: pd.DataFrame, images: Mapping[str, npt.NDArray[np.uint8]]) -> list[Block]:
    """Mean maps, frame shares, and ``rows`` of ``examples`` overlaid with their maps. images: thumbnails, by path."""
    maps, model = results.maps, results.model
    runs, scores = (results.model_runs(maps.split), results.model_scores(maps.split)) if maps else (None, None)
    if maps is None or model is None or runs is None or scores is None:
        none = "No attribution maps can be read; resuming the run creates them if its data and weights still exist."
        return [Text(f"### Where the network looks\n\n{none}")]
    if min(maps.grid) < SMALLEST_GRID:
        grid, least = (f"{down} x {across}" for down, across in (maps.grid, (SMALLEST_GRID, SMALLEST_GRID)))
        coarse = f"Not shown: at this image size the last feature map has {grid} positions, fewer than {least}."
        return [Text(f"### Where the network looks\n\n{coarse}")]
    frame, below = frame_shares(maps, runs.paths, scores)
    table = Table(f"frame_share_{maps.split}", f"{OF_FRAME} {below}".strip(), frame, _COLUMNS)
    found: list[Block] = [Text(f"### Where the network looks\n\n{METHOD}"), *_mean_maps(maps, frame), table]
    over = _over_images(maps, rows, images, str(model.judged), several=model.predictions.label.ndim == 2)
    return [*found, Folded("The images above with their maps", tuple(over))] if over else found


def frame_shares(maps: Maps, paths: npt.NDArray[np.str_], scores: Scores) -> tuple[pd.DataFrame, str]:
    """One row per class, of the maps of its own logit over the images that have it; and the text on its intervals.

    Columns: class, images, zero (how many of their maps are 0 everywhere), share (mean of ``frame_share`` of the
    others; NaN without any), share_low, share_high, share_shown. scores: of one network on ``paths``, the maps' split.
    """
    shares, rows, of_images = frame_share(maps.map), [], {}
    for place, name in enumerate(maps.classes):
        mine = maps.has & (maps.label == place)
        share = dict(zip(maps.path[mine].tolist(), shares[mine].tolist(), strict=True))
        of_images[f"frame:{name}"] = np.array([[share.get(path, np.nan) for path in paths.tolist()]])
        rows.append({"class": name, "images": mine.sum(), "zero": np.isnan(shares[mine]).sum()})
    scores = with_means(scores, of_images)
    frame = [row | intervals.cells(scores, {"share": f"frame:{row['class']}"}) for row in rows]
    return pd.DataFrame(frame), intervals.below([(scores, name) for name in of_images], method=False)


_COLUMNS = columns("class", "images", zero="all-zero maps", share_shown="share in the frame (95 %)")


def mean_maps(maps: Maps) -> dict[str, npt.NDArray[np.float64]]:
    """By class, [h, w]: the mean of the maps of its own logit over the images that have it, without all-zero maps.

    Each sums to 1; a class without any is left out.
    """
    some = maps.has & maps.map.any(axis=(1, 2))
    rows = {name: np.flatnonzero(some & (maps.label == place)) for place, name in enumerate(maps.classes)}
    return {name: maps.map[mine].astype(np.float64).mean(axis=0) for name, mine in rows.items() if len(mine)}


def gallery(caption: str, rows: pd.DataFrame, classes: tuple[str, ...], split: str) -> Samples:
    """One row of images per class; without a thumbnail only the name is shown.

    rows: columns class, path, uri ("" without a thumbnail), probability and note.
    """
    found: dict[str, list[Sample]] = {name: [] for name in classes}
    for row in rows.to_dict("records"):
        note = f"p {formats.score(row['probability'])}, {row['note']}"
        found[row["class"]].append(Sample(row["uri"], row["path"], split, note))
    return Samples(caption, tuple((name, tuple(images)) for name, images in found.items() if images))


def _mean_maps(maps: Maps, frame: pd.DataFrame) -> list[Block]:
    means = mean_maps(maps)
    if not means:
        return []
    drawn = {name: enlarged(one, FRAME_OF_SIDE) for name, one in list(means.items())[:MOST_PANELS]}
    split, grid = formats.SPLIT_NAMES[maps.split], f"{maps.grid[0]} x {maps.grid[1]}"
    caption = (
        f"Mean map of each class over its {split} images, {grid} positions, common scale; the line bounds the frame."
    )
    if len(drawn) < len(means):
        caption += f" The first {len(drawn)} of {len(means)} classes."
    known = frame[frame["class"].isin(drawn)].to_dict("records")
    shares = "; ".join(f"{row['class']} {row['share_shown']}" for row in known)
    cells = [(name, *place, value) for name, one in means.items() for place, value in np.ndenumerate(one)]
    numbers = pd.DataFrame(cells, columns=["class", "row", "column", "attribution"])
    drawing = figures.mean_maps(drawn, FRAME_PART)
    return [Figure(f"mean_maps_{maps.split}", caption, f"Mean maps; in the frame: {shares}.", drawing, numbers)]


def _over_images(
    maps: Maps, rows: pd.DataFrame, images: Mapping[str, npt.NDArray[np.uint8]], split: str, *, several: bool
) -> list[Block]:
    """The galleries of ``rows`` again, each image overlaid with its map: of the predicted class, or, if multi-label,
    of the label of its row. Images without thumbnail or map are left out."""
    kept = zip(maps.path.tolist(), maps.label.tolist(), strict=True)
    place = {(path, maps.classes[label]): row for row, (path, label) in enumerate(kept)}
    of = rows["class" if several else "decision"]
    able = [path in images and (path, name) in place for path, name in zip(rows["path"], of, strict=True)]
    if not any(able):
        return []
    shown, of = rows[able].copy(), of[able]
    mine = maps.map[[place[key] for key in zip(shown["path"], of, strict=True)]]
    shown["uri"] = [
        thumbnails.data_uri(overlay(images[path], one)) for path, one in zip(shown["path"], mine, strict=True)
    ]
    shown["note"] = [
        f"map of {short(name)}, {'all zero' if np.isnan(share) else f'{formats.score(float(share))} in the frame'}"
        for name, share in zip(of, frame_share(mine), strict=True)
    ]
    whose = "the label of the row" if several else "the predicted class"
    caption = f"Overlaid with the map of {whose}: stronger colour means more attribution, each map on its own scale."
    kinds = dict.fromkeys(shown["kind"])
    return [gallery(f"{kind}. {caption}", shown[shown["kind"] == kind], maps.classes, split) for kind in kinds]
