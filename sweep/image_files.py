"""The image files that a user means by a list of files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainables.data.dicom import is_dicom
from trainables.data.folders import EXTENSIONS, HIDDEN


def image_files(places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Files as they are named, and in place of a folder the images below it, by name; each file once.

    A file is not asked what it is: it may be an image whatever its name, and if it is none, or is not there, reading it
    will tell. In folders, what is hidden or no image by its name is passed over. Returns the files, and one sentence
    for each folder without any.
    """
    files: dict[Path, None] = {}
    problems = []
    for place in places:
        if not place.is_dir():
            files[place] = None
            continue
        found = list(_below(place))
        files |= dict.fromkeys(found)
        if not found:
            problems.append(f"{place}: no images in this folder ({', '.join(sorted(EXTENSIONS))} files, or DICOM)")
    return list(files), problems


def _below(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
        yield from (file for name in sorted(names) if _is_image(file := Path(place, name)))


def _is_image(file: Path) -> bool:
    if file.name.startswith(HIDDEN):
        return False
    return file.suffix.lower() in EXTENSIONS or _is_bare_dicom(file)


def _is_bare_dicom(file: Path) -> bool:
    """Archives often store DICOM files without an extension."""
    if file.suffix and not file.suffix[1:].isdigit():
        return False
    try:
        with file.open("rb") as opened:
            return is_dicom(opened.read(132))
    except OSError:
        return False
