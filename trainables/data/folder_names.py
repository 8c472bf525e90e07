"""What names of folders and files mean: a split, a part of one set, a patient, a mask, or a class."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainables.data.files import stem
from trainables.data.samples import SPLIT_WORDS, rows_by

_FILLERS = frozenset(
    {
        *("data", "dataset", "datasets", "set", "sets", "split", "splits", "files", "folder", "and"),
        *("images", "image", "imgs", "img"),
    }
)
_VARIANTS = frozenset({"original", "augmented", "augmentation", "aug", "raw", "processed", "cropped", "resized"})
_IMAGES = frozenset({"images", "image", "imgs", "img", "jpeg", "cxr", "xray", "xrays", "scans", "png", "jpg"})
_MASKS = frozenset({"mask", "masks", "leftmask", "rightmask"})
_DRAWN = frozenset({"segmentation", "segmentations", "annotation", "annotations", "groundtruth", "groundtruths"})
_OTHER_MASKS = frozenset({"seg", "label", "labels", "gt", "manual", "trimaps", *_DRAWN})
_UNLABELLED = frozenset({"unlabeled", "unlabelled", "predict", "pred", "prediction", "predictions"})
_FINDINGS = frozenset({"positive", "negative", "normal", "abnormal", "benign", "malignant", "healthy", "diseased"})
_WORDS = re.compile(r"\d+|[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+")
_LETTER = re.compile(r"^\s*[A-Za-z][.)]\s*(?=\w)")  # "a. " before a name
_LONG_ID = re.compile(r"[0-9a-f-]{16,}|[\d.]{20,}", re.IGNORECASE)
_PART = re.compile(
    r"(?P<stem>.*?(?:images?|imgs?|parts?|batch(?:es)?|shards?|folds?|chunks?))[\s_.-]*\d+", re.IGNORECASE
)
_PATIENT = re.compile(
    r"(?P<stem>patients?|pat|sub(?:j|jects?)?|persons?|cases?|study|series|pid|p(?=\d\d))[\s_.-]*\d+", re.IGNORECASE
)
_MASK_FILE = re.compile(r"(?P<head>.+?)[\s_.-]*(?:masks?|segmentation|superpixels)(?:[\s_.-].*|\d*)", re.IGNORECASE)
_MOST_OF_A_PATIENT = 20  # images, on average
_MOST_LOOKED_AT = 50_000
_MOST_CLASSES = 50
_FEW = 2
_ZOOM = re.compile(r"\d+x", re.IGNORECASE)  # of a microscope
_MASK_HINT = re.compile("mask|segm|superp", re.IGNORECASE)
_PERSON = re.compile(r"(patient|person|subject|subj|sub|pat|pid|case|oas\d)([_-]?)\d+", re.IGNORECASE)
_PLAIN_COUNTED = r"\d{3,}(?=[_-]\d)"
_COUNTED = r"[^/]*?\d{3,}(?=[_-]\d{1,4}(?!\d))"
"""A name with an id of three digits or more, and then a number of one to four digits that counts its images."""
_SIDES = r"[^/]*?\d+(?=[_-](?i:left|right|[lr])(?![A-Za-z]))"  # of a patient: eyes, breasts
_LETTERED = r"[^/]*?\d+(?=[LR]\.\w+$)"  # the same, as in 9003175L.png


@dataclass(frozen=True)
class SplitName:
    """splits: those that words of a name mean. rest: its other words, lower case, without numbers and fillers."""

    splits: frozenset[str]
    rest: tuple[str, ...]

    @property
    def split(self) -> str | None:
        """The split of a name with exactly one split word."""
        return next(iter(self.splits)) if len(self.splits) == 1 else None

    @property
    def plain(self) -> bool:
        """Whether the name says a split and nothing else: train, test_images, 1. Training Set."""
        return self.split is not None and not self.rest


def name_of(path: str) -> str:
    return posixpath.basename(path)


def split_name(name: str) -> SplitName:
    """Find split words among others: train_images, TrainingSet, trainset, seg_test, "a. Training Set"."""
    splits: set[str] = set()
    rest = []
    for word in _words(_LETTER.sub("", name)):
        parts = _split_parts(word)
        splits |= {SPLIT_WORDS[part] for part in parts if part in SPLIT_WORDS}
        if not parts and word not in _FILLERS and not word.isdecimal():
            rest.append(word)
    return SplitName(frozenset(splits), tuple(rest))


def split_pair(names: Sequence[str]) -> list[str]:
    """Names of different splits with the same other words: seg_val, seg_test; [] if there are none."""
    read = {name: split_name(name) for name in names if split_name(name).split}
    alike = [[names for names in read if read[names].rest == rest] for rest in {name.rest for name in read.values()}]
    return next((sorted(some) for some in alike if len({read[name].splits for name in some}) > 1), [])


def says_nothing(name: str) -> bool:
    """Whether a name cannot be a class: images, data, Original Dataset."""
    words = [word for word in _words(name) if not word.isdecimal()]
    return bool(words) and set(words) <= _FILLERS | _VARIANTS


def is_unlabelled(name: str) -> bool:
    return bool(_UNLABELLED & set(_words(name)))


def parts_of_one_set(names: Sequence[str]) -> list[str]:
    """Names of one stem with image, part, batch, shard or fold and a number; [] unless there are two."""
    return _numbered(names, _PART)


def patients(names: Sequence[str]) -> list[str]:
    """Names of one stem with patient, subject, case, ... and a number; [] unless there are two."""
    return _numbered(names, _PATIENT)


def look_like_ids(names: Sequence[str]) -> bool:
    """Whether five or more names all share a stem and a number of three digits or more (LIDC-0001), or are long ids."""
    stems = {re.sub(r"\d+", "0", name) for name in names}
    numbered = len(stems) == 1 and all(re.search(r"\d{3}", name) for name in names)
    return len(names) > 4 and (numbered or are_long_ids(names))


def begin_with_persons(names: Iterable[str]) -> bool:
    """Whether each name begins with patient, subject, case, ... and a number: patient_004_node_4."""
    return all(map(_PERSON.match, names))


def are_long_ids(names: Iterable[str]) -> bool:
    """Whether all names are like UIDs of DICOM, or hashes."""
    return all(map(_LONG_ID.fullmatch, names))


def are_counted(names: Iterable[str]) -> bool:
    """Whether each number in the names starts at 0 or 1: 1, 2, 3, or scan_0_1, scan_0_2."""
    numbers = [re.findall(r"\d+", name) for name in names]
    alike = len(set(map(len, numbers))) == 1 and numbers[0] != []
    return alike and all(min(map(int, some)) < 2 for some in zip(*numbers, strict=True))


def finding_of(name: str) -> str | None:
    """ "positive" of study1_positive: the last word if classes are called so, else None."""
    words = _WORDS.findall(name)
    return words[-1] if words and words[-1].lower() in _FINDINGS else None


def is_mask_folder(name: str, beside: Iterable[str]) -> bool:
    """Whether a mask folder of this name contains the masks of the images in one of the folders ``beside`` it."""
    rest = _other_words(name)
    others = [(set(_words(other)), _other_words(other)) for other in beside]
    return any(
        has & _IMAGES and not has & (_MASKS | _OTHER_MASKS) and (not rest_of or rest_of == rest)
        for has, rest_of in others
    )


def may_be_masks(name: str) -> bool:
    return bool(set(_words(name)) & (_MASKS | _OTHER_MASKS))


def says_drawn(name: str) -> bool:
    """Whether a folder beside images of the same names cannot be a class: Segmentation, Annotation-Training400."""
    return bool(set(_words(name)) & _DRAWN)


def names_masks(name: str) -> bool:
    """Whether a name is mask, masks, leftmask or rightmask, and nothing else."""
    return name.lower() in _MASKS


def masked(path: str) -> list[str]:
    """For a mask NAME_mask*.png the paths, without suffix, that its image may have; [] for other images."""
    folder, _, name = stem(path).rpartition("/") if _MASK_HINT.search(path) else ("", "", "")
    match = _MASK_FILE.fullmatch(name)
    if not match:
        return []
    head = match["head"].rstrip(" _.-")
    shorter = re.sub(r"[\s_.-]+[^\s_.-]+$", "", head)
    return [f"{folder}/{one}" if folder else one for one in dict.fromkeys((head, shorter)) if one]


def patient_pattern(paths: Sequence[str]) -> str | None:
    """A regular expression whose first group is the patient of a path, if file names look like patients.

    A file without a patient is its own, by its name. None if fewer than one image in ten shares its patient with
    another, or a patient has over 20 images on average; one called patient or the like may have hundreds of slices.
    """
    some = sorted(paths)[:_MOST_LOOKED_AT]  # sorted: images of one patient are mostly adjacent
    words = Counter(match[1] + match[2] for path in some if (match := _PERSON.search(path)))
    persons = [rf"{word}\d+" for word, count in words.most_common(3) if count * 20 >= len(some)]
    found = [*persons, _plainer(_COUNTED, some), _SIDES, _LETTERED]
    parts = [part for part in found if _looks_like_patients(f"({part})", some, part in persons)]
    if not parts:
        return None
    plain, filled = f"({'|'.join(parts)})", f"({'|'.join([*parts, '[^/]+$'])})"
    pattern = plain if all(groups_of(plain, paths)) else filled
    return pattern if _looks_like_patients(pattern, some, parts[0] in persons) else None


def patient_folders(paths: Sequence[str], labels: Sequence[str]) -> str | None:
    """A regular expression whose first group is the folder of a patient below a class folder; None if there are none.

    These are the outermost folders with numbers in their names, other than 40X, and two images or more on average.
    """
    parts = [path.split("/") for path in paths]
    depths = {one.index(label) if label in one[:-1] else -1 for one, label in zip(parts, labels, strict=True)}
    if len(depths) != 1 or depths == {-1}:
        return None
    depth = depths.pop()
    for level in range(depth + 1, max(map(len, parts)) - 1):
        inside = [one for one in parts if len(one) > level + 1]
        names = {one[level] for one in inside}
        folders = {tuple(one[depth : level + 1]) for one in inside}
        numbered = sum(bool(re.search(r"\d", name)) and not _ZOOM.fullmatch(name) for name in names)
        if 10 * numbered >= 9 * len(names) > 9 * _FEW and 2 * len(folders) <= len(inside):
            start = level if len(names) == len(folders) else depth
            pattern = f"^(?:[^/]+/){{{start}}}({'/'.join(['[^/]+'] * (level - start + 1))})"
            return pattern if all(groups_of(pattern, paths)) else None
    return None


def _plainer(pattern: str, paths: Sequence[str]) -> str:
    """A pattern that is easier to read if it groups the paths in the same way, else ``pattern``."""
    one, other = groups_of(f"({pattern})", paths), groups_of(f"({_PLAIN_COUNTED})", paths)
    return _PLAIN_COUNTED if len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other)) else pattern


def _looks_like_patients(pattern: str, paths: Sequence[str], named: bool) -> bool:
    """named: a word such as patient is in the pattern."""
    groups = Counter(group for group in groups_of(pattern, paths) if group)
    shared = sum(count for count in groups.values() if count > 1)
    few_each = named or len(groups) * _MOST_OF_A_PATIENT >= groups.total()
    return shared * 10 >= len(paths) and few_each and len(groups) > 2


def class_pattern(paths: Sequence[str]) -> str | None:
    """A regular expression whose first group may be the class in names of files: scan_12_ill.png, ill.12.png."""
    for pattern in (r"[_-]([A-Za-z]+|\d)\.\w+$", r"([^/]*?[A-Za-z])[_. -]*\d+\.\w+$"):
        found = Counter(groups_of(pattern, paths))
        most = 5 if any(map(str.isdecimal, found)) else _MOST_CLASSES
        if "" not in found and 2 <= len(found) <= most and min(found.values()) > 1:
            return pattern
    return None


def groups_of(pattern: str, paths: Iterable[str]) -> list[str]:
    """The first group of the match in each path, "" without a match."""
    search = re.compile(pattern).search
    return [(match[1] or "") if (match := search(path)) else "" for path in paths]


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]


def _other_words(name: str) -> list[str]:
    """The words that say what the images or masks show."""
    ignored = _FILLERS | _IMAGES | _MASKS | _OTHER_MASKS
    return [word for word in _words(name) if word not in ignored and not word.isdecimal()]


def _split_parts(word: str) -> list[str]:
    """["train", "set"] of trainset: the parts of a word that begins or ends with a split word; [] of others."""
    if word in SPLIT_WORDS:
        return [word]
    for split in SPLIT_WORDS:
        for part in (word.removeprefix(split), word.removesuffix(split)):
            if part != word and (part in _FILLERS or part in SPLIT_WORDS):
                return [split, part]
    return []


def _numbered(names: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    matches = [pattern.fullmatch(name) for name in names]
    stems = rows_by(match["stem"].lower() if match else "" for match in matches)
    return [names[row] for text, rows in stems.items() if text and len(rows) > 1 for row in rows]
