"""A data set that is a folder: ``train|val|test/<class>/*``, or ``<class>/*`` that we split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.dicom import is_dicom
from trainables.data.samples import MOST_ITEMS, SPLIT_WORDS, CheckResult, Samples

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".dcm"})

HIDDEN = (".", "__MACOSX")


def list_folder(root: Path, config: DataConfig) -> Samples:
    """List the images below ``root``; deeper folders within a class belong to the class, links are followed.

    Hidden files and files that are no images by their name are left out, and named in ``checks``. Raises ``UserError``
    where there is no image, or where some folders are splits and others are not.
    """
    if config.task == "multi_label":
        raise UserError("--task multi_label: folders hold one class an image; give a .csv manifest with label columns")
    layout = _split_folders(root)
    ignored: list[str] = []
    rows: list[tuple[str, str, Path]] = []  # split or "", class, file
    classes: set[str] = set()
    for split, folder in layout or [("", root)]:
        for class_folder in _visible_folders(folder):
            classes.add(class_folder.name)
            rows += [(split, class_folder.name, file) for file in images_below(class_folder, ignored)]
        ignored += _outside_classes(folder)
    if layout:
        ignored += _outside_classes(root)
    badly_named = [file for _, _, file in rows if not _is_utf8(str(file))]
    rows = [row for row in rows if _is_utf8(str(row[2]))]
    if not rows:
        loose = sum(Path(path).suffix.lower() in EXTENSIONS for path in ignored)
        what = f"{loose} image(s), but none in a class folder" if loose else "no images found"
        raise UserError(
            f"--data {root}: {what}; expected train|val|test/<class>/* or <class>/* with "
            f"{', '.join(sorted(EXTENSIONS))} files, or a .csv manifest"
        )
    names = tuple(sorted(classes))
    return Samples(
        kind="folder",
        path=str(root),
        task="single_label",
        classes=names,
        paths=tuple(file.relative_to(root).as_posix() for _, _, file in rows),
        files=tuple(file for _, _, file in rows),
        labels=np.array([names.index(name) for _, name, _ in rows], dtype=np.int64),
        splits=tuple(split for split, _, _ in rows) if layout else None,
        checks=_ignored(ignored, root),
        problems=tuple(_problems(root, names, badly_named)),
    )


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """(split, folder) of each folder named as a split; [] if none is."""
    folders = _visible_folders(root)
    layout = [(SPLIT_WORDS[folder.name.lower()], folder) for folder in folders if folder.name.lower() in SPLIT_WORDS]
    if not layout:
        return []
    strangers = [
        folder.name
        for folder in folders
        if folder.name.lower() not in SPLIT_WORDS and next(images_below(folder, []), None)
    ]
    problems = [
        f"--data {root}: folder {name!r} holds images and stands beside folders named as splits; "
        f"known names are {', '.join(sorted(SPLIT_WORDS))}"
        for name in strangers
    ]
    for split in sorted({split for split, _ in layout}):
        twins = [folder.name for word, folder in layout if word == split]
        if len(twins) > 1:
            problems.append(f"--data {root}: folders {' and '.join(map(repr, twins))} both mean {split}")
    if problems:
        raise UserError(*problems)
    return layout


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(HIDDEN))


def _outside_classes(folder: Path) -> list[str]:
    """What lies beside the folders that are read."""
    return sorted(str(entry) for entry in folder.iterdir() if not entry.is_dir() or entry.name.startswith(HIDDEN))


def images_below(folder: Path, ignored: list[str]) -> Iterator[Path]:
    """Image files below ``folder`` in the order of their names; others go to ``ignored``, hidden folders unopened."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        ignored += [str(Path(place, name)) for name in sorted(folders) if name.startswith(HIDDEN)]
        folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
        for name in sorted(files):
            file = Path(place, name)
            if not name.startswith(".") and (file.suffix.lower() in EXTENSIONS or _is_bare_dicom(file)):
                yield file
            else:
                ignored.append(str(file))


def _is_bare_dicom(file: Path) -> bool:
    """Archives often store DICOM files without an extension."""
    if file.suffix and not file.suffix[1:].isdigit():
        return False
    try:
        with file.open("rb") as opened:
            return is_dicom(opened.read(132))
    except OSError:
        return False


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _problems(root: Path, classes: tuple[str, ...], badly_named: list[Path]) -> list[str]:
    problems = []
    if len(classes) < 2:
        problems.append(f"--data {root}: one class only ({classes[0]!r}); at least two are needed")
    if badly_named:  # tables and reports are UTF-8: such a name could not be written down
        shown = ", ".join(ascii(str(file.relative_to(root))) for file in badly_named[:5])
        problems.append(f"--data {root}: {len(badly_named)} file name(s) are not UTF-8 ({shown}): rename them")
    return problems


def _ignored(ignored: list[str], root: Path) -> tuple[CheckResult, ...]:
    if not ignored:
        return ()
    message = f"{len(ignored)} file(s) are no images by their name, or lie outside a class folder: left out"
    shown = [Path(path).relative_to(root).as_posix() for path in ignored[:MOST_ITEMS]]
    items = tuple((path if _is_utf8(path) else ascii(path),) for path in shown)
    return (CheckResult("ignored_files", "info", message, len(ignored), items),)
