"""Walk a folder once: which images it contains, and which of them the cells of a table name."""

from __future__ import annotations

import filecmp
import math
import os
import posixpath
import re
import stat
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeVar

from search_spaces.errors import UserError, reason_of, some
from trainables.data.samples import MOST_ITEMS, LeftOut, rows_by

EXTENSIONS = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
        *(".jp2", ".j2k", ".pgm", ".ppm", ".pnm", ".pbm", ".dcm", ".dicom", ".dic", ".ima"),
    }
)
_UNREAD = re.compile(
    r"\.(heic|heif|avif|jxl|svs|ndpi|mrxs|nrrd|mh[ad]|npy|mat|h5|hdf5|tfrec(ords?)?|dng|cr2|nef|arw|img|raw"
    r"|nii|(nii|dcm|dicom|png|jpe?g|tiff?|bmp)\.(gz|bz2|xz)|(?P<archive>zip|tar|tar\.(gz|bz2|xz)|tgz|7z|rar))$",
    re.IGNORECASE,
)
MOST_BYTES = 2_000_000_000  # of an image file
_HIDDEN = "a hidden file, or in a hidden folder"
_JUNK = {
    "__MACOSX": "in __MACOSX, which macOS adds to archives",
    "@eaDir": "thumbnails that a NAS wrote to @eaDir",
    **dict.fromkeys(("@__thumb", "@Recycle", "#recycle"), "in a system folder of a NAS"),
    **dict.fromkeys(("$RECYCLE.BIN", "System Volume Information", "lost+found"), "in a folder of the file system"),
}
_HEAD_BYTES = 1024
_MAGIC = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WEBP": rb"RIFF....WEBP",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "BMP": rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}",
    "PPM": rb"P[1-6]\s(?:\s|#[^\n]*\n)*\d+\s",
    "DICOM": rb".{128}DICM",
}
_PATTERNS = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in _MAGIC.items()}
_DICOM_DIRECTORY = b"1.2.840.10008.1.3.10"  # of a file named DICOMDIR: a list of images, not an image
_FILES_AT_ONCE, _FILES_TOGETHER = 32, 16
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Located:
    """Which images the given cells name.

    images: those of the index, then files outside its root as absolute paths.
    rows: for each cell, positions in ``images``: none (missing or ambiguous), one, or all that lie below a folder.
    ambiguous: the position of a cell -> two images that it may mean.
    notes: one sentence for each way in which files were found other than by their path.
    """

    images: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    ambiguous: dict[int, tuple[str, str]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FileIndex:
    """The contents of a folder: posix paths relative to ``root``, sorted.

    images: regular files that are images by suffix or by content, and broken links with such a suffix.
    folders: every folder that was entered, "" is the root. others: regular files that are not images.
    left_out: images that are not read, such as hidden ones.
    """

    root: Path
    images: tuple[str, ...]
    folders: tuple[str, ...]
    others: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    def below(self, folder: str) -> range:
        """The positions in ``images`` of those below a folder."""
        return below(self.images, folder)

    def __contains__(self, image: str) -> bool:
        return image in self._place

    def locate(self, cells: Sequence[str], not_asked: Iterable[str] = ()) -> Located:
        """Find the image, or the folder of images, that each cell names.

        First by the path itself (relative to the root, or absolute; tables made on Windows have backslashes); else by
        the longest end of the path that some image's path ends with, down to the file's name; a folder likewise; else
        without the suffixes. Of two identical files of one name the first is taken. An image that several cells name
        goes only to the cell that agrees best with its path. not_asked: cells of rows that are left out; they compete
        for images, too.
        """
        finder = _Finder(self)
        matches = {cell: finder.find(cell) for cell in dict.fromkeys(cells)}
        others = {cell: finder.find(cell) for cell in not_asked if cell not in matches}
        self._take_copies(matches)
        self._refuse_doubtful(list(matches.values()), list(others.values()))
        rows = tuple(matches[cell].rows for cell in cells)
        ambiguous = {place: pair for place, cell in enumerate(cells) if (pair := matches[cell].between)}
        images = (*self.images, *finder.outside)
        return Located(images, rows, ambiguous, _notes(matches, images))

    def _take_copies(self, matches: Mapping[str, _Match]) -> None:
        """If a cell may mean either of two files of one name and of equal bytes, take the first."""
        for match in matches.values():
            pair = match.between
            if pair is None or not match.only or match.agreed < math.inf or not all(one in self for one in pair):
                continue
            if posixpath.basename(pair[0]) == posixpath.basename(pair[1]) and self._equal(*pair):
                match.rows, match.between = (self._place[pair[0]],), None
                match.how = "as the first of two identical files"

    def _equal(self, one: str, other: str) -> bool:
        try:
            size = os.stat(self.root / one).st_size
            return size > 0 and filecmp.cmp(self.root / one, self.root / other, shallow=False)
        except OSError:
            return False

    def _refuse_doubtful(self, found: Sequence[_Match], others: Sequence[_Match]) -> None:
        """Give what several cells name to the cell whose path agrees best: the files of the others are missing, and so
        is the file of a cell that may mean one of two, both named by other cells. ``others`` only compete.
        """
        claims: dict[tuple[int, ...], list[_Match]] = defaultdict(list)
        for match in found:
            claims[match.rows].append(match)
        best_of: dict[tuple[int, ...], float] = {}
        for match in others:
            best_of[match.rows] = max(match.agreed, best_of.get(match.rows, 0.0))
        for rows, claiming in claims.items():
            best = max(match.agreed for match in claiming)
            tie = sum(match.agreed == best for match in claiming) > 1
            best = max(best, best_of.get(rows, 0.0))
            for match in claiming:
                if match.agreed < math.inf and (tie or match.agreed < best):
                    match.rows = ()
        named = {row for match in (*found, *others) for row in match.rows}
        for match in found:
            if match.between and match.agreed < math.inf and all(map(named.issuperset, map(self._of, match.between))):
                match.between = None

    def _of(self, path: str) -> Sequence[int]:
        """The position of an image, or the positions of those below a folder."""
        return (self._place[path],) if path in self else self.below(path)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {image: place for place, image in enumerate(self.images)}

    @cached_property
    def _image_ends(self) -> dict[str, tuple[str, ...]]:
        return _ends(self.images)

    @cached_property
    def _stem_ends(self) -> dict[str, tuple[str, ...]]:
        return _ends(self.images, stems=True)

    @cached_property
    def _folder_ends(self) -> dict[str, tuple[str, ...]]:
        return _ends(folder for folder in self.folders if folder and self.below(folder))


def index_folder(root: Path) -> FileIndex:
    """Walk a folder once. Links are followed, each folder is entered once; hidden ones only count in ``left_out``.

    Raises ``UserError`` that names the folders that cannot be read.
    """
    found = _Found(root)
    pending, links = [""], list[str]()
    while pending:
        found.enter(pending.pop(), pending, links)
        if not pending:  # Links come last: a folder below the root is read by its own path.
            pending, links = sorted(links, reverse=True), []
    if "" in found.closed:
        raise UserError(f"{root}: cannot read this folder: {found.closed['']}")
    if found.closed:
        shown = some(f"{shown_path(place)} ({why})" for place, why in sorted(found.closed.items()))
        raise UserError(
            f"{root}: {len(found.closed)} folder(s) in it cannot be entered, and their images would be missing: "
            f"{shown}; make them readable (chmod -R u+rX) or move them elsewhere"
        )
    return found.index()


def image_kind(file: Path) -> str | None:
    """ "PNG", "JPEG", "GIF", "TIFF", "WEBP", "JPEG2000", "BMP", "PPM" (and PGM, PBM) or "DICOM", by its first bytes.

    None: something else, no regular file, more than ``MOST_BYTES``, or one that cannot be opened.
    """
    try:
        facts = os.stat(file)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MOST_BYTES:
            return None
        with open(file, "rb", buffering=0) as opened:
            head = opened.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return None
    kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.match(head)), None)
    return None if kind == "DICOM" and _DICOM_DIRECTORY in head else kind


def of_files(work: Callable[[Path], _Out], files: Sequence[Path]) -> list[_Out]:
    """``work`` of each file, in order; of many in parallel, as a file server takes milliseconds to answer for each."""
    parts = [files[start : start + _FILES_TOGETHER] for start in range(0, len(files), _FILES_TOGETHER)]
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return [*chain.from_iterable(pool.map(lambda part: [*map(work, part)], parts))]


def below(paths: Sequence[str], folder: str) -> range:
    """The positions in sorted ``paths`` of those below a folder."""
    if not folder:
        return range(len(paths))
    start = bisect_left(paths, f"{folder}/")
    return range(start, bisect_left(paths, f"{folder}0", start))  # "0" follows "/"


def paths_below(paths: Sequence[str], folder: str) -> Sequence[str]:
    """Those of sorted ``paths`` that lie below a folder."""
    places = below(paths, folder)
    return paths[places.start : places.stop]


def has_image_suffix(path: str) -> bool:
    return posixpath.splitext(path)[1].lower() in EXTENSIONS


def is_archive(path: str) -> bool:
    match = _UNREAD.search(path)
    return match is not None and match["archive"] is not None


def unread_form(path: str) -> str | None:
    """ ".heic", ".nii.gz", ".zip": the suffix of a file that may contain images in an unsupported format; else None."""
    match = _UNREAD.search(path)
    return match and match[0].lower()


def counted_forms(paths: Iterable[str]) -> str:
    """ ".heic: 5, .zip: 1": how many files of each suffix there are, the most first."""
    forms = Counter(unread_form(path) or posixpath.splitext(path)[1].lower() or "no suffix" for path in paths)
    return some(f"{form}: {count}" for form, count in forms.most_common())


def stem(path: str) -> str:
    """The path without an image suffix; other suffixes are part of the name, as in 1.2.840.113."""
    start, dot, suffix = path.rpartition(".")
    return start if dot and f".{suffix.lower()}" in EXTENSIONS else path


def shown_path(path: str) -> str:
    """The path for printing and for UTF-8 files: escaped if it is not UTF-8 or has control characters."""
    return path if path.isprintable() else ascii(path)


def shown_paths(paths: Iterable[str], most: int = 10) -> str:
    """The first of the paths, and how many more there are."""
    return some(map(shown_path, paths), most)


def left_out(why: str, paths: Sequence[str]) -> LeftOut:
    """Images left out for one reason; ``paths``: all of them."""
    return LeftOut(why, len(paths), tuple(map(shown_path, paths[:MOST_ITEMS])))


@dataclass
class _Found:
    """What a walk has found so far.

    unsure: files that are images or not by their content, and why such an image is not used ("" = it is used).
    closed: a folder that cannot be read -> why. entered: device and inode -> folder. repeated: a link -> the folder
    that was entered before.
    """

    root: Path
    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unsure: list[tuple[str, str]] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    closed: dict[str, str] = field(default_factory=dict)
    entered: dict[tuple[int, int], str] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)

    def enter(self, folder: str, folders: list[str], links: list[str]) -> None:
        """Read one folder; its subfolders are appended to ``folders`` and ``links``."""
        place = os.path.join(self.root, folder)
        try:
            facts = os.stat(place)
            earlier = self.entered.setdefault((facts.st_dev, facts.st_ino), folder)
            if earlier != folder:
                self.repeated[folder] = earlier
                return
            with os.scandir(place) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if not _is(entry.is_dir):
                        self._add(path, entry)
                    elif why := _why_junk(entry.name):
                        self._look_into(path, why)
                    else:
                        (links if entry.is_symlink() else folders).append(path)
            self.folders.append(folder)
        except (OSError, ValueError) as error:
            self.closed[folder] = reason_of(error)

    def _add(self, path: str, entry: os.DirEntry[str]) -> None:
        image = has_image_suffix(entry.name)
        if why := _why_junk(entry.name):
            self.unsure.append((path, why))
        elif _is(entry.is_file):
            if image:
                self.images.append(path)
            else:
                self.unsure.append((path, ""))
        elif image and entry.is_symlink() and not os.path.exists(entry.path):
            self.images.append(path)  # A broken link, as of git-annex: reading it reports the missing file.
        elif image:
            self.unused["a pipe, a socket or a device, not a regular file"].append(path)

    def _look_into(self, folder: str, why: str) -> None:
        """Collect the files of a folder whose images are not used; unreadable folders in it are ignored."""
        for place, _, names in os.walk(os.path.join(self.root, folder)):
            below = Path(place).relative_to(self.root).as_posix()
            self.unsure += [(f"{below}/{name}", why) for name in names]

    def index(self) -> FileIndex:
        kinds = of_files(image_kind, [Path(self.root, path) for path, _ in self.unsure])
        for (path, why), kind in zip(self.unsure, kinds, strict=True):
            if kind is not None:
                (self.unused[why] if why else self.images).append(path)
            elif not why:
                self.others.append(path)
        images = tuple(sorted(self.images))
        for link, folder in self.repeated.items():
            if not (folder == "" or link.startswith(f"{folder}/")):  # not a loop
                again = [f"{link}{image.removeprefix(folder)}" for image in paths_below(images, folder)]
                self.unused["in a link to a folder that is already read"] += again
        unused = tuple(left_out(why, sorted(paths)) for why, paths in sorted(self.unused.items()) if paths)
        return FileIndex(self.root, images, tuple(sorted(self.folders)), tuple(sorted(self.others)), unused)


def _is(question: Callable[[], bool]) -> bool:
    """The answer; False if a link leads to itself."""
    try:
        return question()
    except OSError:
        return False


def _why_junk(name: str) -> str | None:
    """Why a file or folder of this name is not read; None: it is."""
    return _HIDDEN if name.startswith(".") else _JUNK.get(name)


@dataclass(slots=True)
class _Match:
    """rows: as in ``Located``. how: in words, "" = by the path itself. agreed: how many characters at the end of the
    cell's path match the image's; math.inf = all. between: two images that the cell may mean; only: there is no third.
    """

    rows: tuple[int, ...] = ()
    how: str = ""
    agreed: float = math.inf
    between: tuple[str, str] | None = None
    only: bool = False


class _Finder:
    """Finds the images of one cell at a time. outside: absolute path of a file outside the root -> its position in
    ``Located.images``.
    """

    def __init__(self, index: FileIndex) -> None:
        self._index = index
        self._root = index.root.as_posix()
        self._roots = {f"{root}/" for root in (self._root, os.path.realpath(index.root))}
        self._absent: set[str] = set()  # folders outside the root that do not exist
        self.outside: dict[str, int] = {}

    def find(self, cell: str) -> _Match:
        path = cell if cell in self._index else self._normal(cell)
        place = self._index._place.get(path)
        if place is None and path.startswith(("/", "../")):
            place = self._elsewhere(path)
            path = "/".join(part for part in path.split("/") if part and part != "..")
        if place is not None:
            return _Match((place,))
        return _Match() if path in ("", ".", "..") else self._by_end(path, cell.endswith(("/", "\\")))

    def _normal(self, path: str) -> str:
        path = path.replace("\\", "/")
        for root in self._roots:
            path = path.removeprefix(root)
        odd = "//" in path or "./" in path or path.endswith(("/", "/.", "/.."))
        return posixpath.normpath(path) if odd else path

    def _elsewhere(self, path: str) -> int | None:
        """The position of a file outside the root; None if there is no such file."""
        path = posixpath.normpath(posixpath.join(self._root, path)) if path.startswith(".") else path
        folder = path.rpartition("/")[0]
        if folder in self._absent:
            return None
        if os.path.isfile(path):
            return self.outside.setdefault(path, len(self._index.images) + len(self.outside))
        if not os.path.isdir(folder):
            self._absent.add(folder)
        return None

    def _by_end(self, path: str, is_folder: bool) -> _Match:
        index = self._index
        path = unicodedata.normalize("NFC", path)  # Archives made on macOS store accents as separate characters.
        image = None if is_folder else self._among(path, index._image_ends, "by the end of the path")
        if image:
            return image
        folder = self._among(path, index._folder_ends, "as folders")
        named = None if is_folder else self._among(stem(path), index._stem_ends, "by name without suffix")
        if not folder or not named:
            return folder or named or _Match()
        if folder.agreed == named.agreed and not folder.between and not named.between:
            return _Match(between=(posixpath.dirname(index.images[folder.rows[0]]), index.images[named.rows[0]]))
        return max(folder, named, key=lambda match: match.agreed)

    def _among(self, path: str, ends: dict[str, tuple[str, ...]], how: str) -> _Match | None:
        """The image or folder whose path ends with the longest end of ``path``; None if there is none."""
        end = path
        while end not in ends:
            _, slash, end = end.partition("/")
            if not slash:
                return None
        if ends is self._index._folder_ends and self._index.below(path):  # A folder in it may have the same name.
            return _Match(tuple(self._index.below(path)), how)
        found = ends[end]
        agreed = math.inf if end == path else len(end)
        if len(found) > 1:
            return _Match(agreed=agreed, between=(found[0], found[1]), only=len(found) == 2)
        if ends is self._index._image_ends and "/" not in end:
            how = "by file name"
        return _Match(tuple(self._index._of(found[0])), how, agreed)


def _ends(paths: Iterable[str], stems: bool = False) -> dict[str, tuple[str, ...]]:
    """Every end of each path, from the whole path to the last name -> the first three paths that have it.

    The ends are in Unicode's NFC. stems: without an image suffix.
    """
    ends: dict[str, tuple[str, ...]] = {}
    for path in paths:
        end, one = unicodedata.normalize("NFC", stem(path) if stems else path), (path,)
        while True:
            known = ends.setdefault(end, one)
            if known is not one and len(known) < 3:
                ends[end] = (*known, path)
            _, slash, end = end.partition("/")
            if not slash:
                break
    return ends


def _notes(matches: dict[str, _Match], images: Sequence[str]) -> tuple[str, ...]:
    found = [(match.how, cell, match.rows[0]) for cell, match in matches.items() if match.rows]
    return tuple(
        f"{len(cells)} of {len(matches)} paths were found {how}, such as {shown_path(found[cells[0]][1])} at "
        f"{shown_path(images[found[cells[0]][2]])}"
        for how, cells in sorted(rows_by(how for how, _, _ in found).items())
        if how
    )
