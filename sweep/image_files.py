"""The image files that a user means by a list of files and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainables.data.folder import EXTENSIONS, images_below


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
        found = list(images_below(place, ignored=[]))
        files |= dict.fromkeys(found)
        if not found:
            problems.append(f"{place}: no images in this folder ({', '.join(sorted(EXTENSIONS))} files, or DICOM)")
    return list(files), problems
