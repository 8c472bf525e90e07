"""Which folders of a data set are splits, which are classes, and which images are in neither: judged by names."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from search_spaces.errors import UserError, gathered, raise_all
from trainables.data.config import DataConfig
from trainables.data.files import (
    FileIndex,
    below,
    counted_forms,
    is_archive,
    left_out,
    paths_below,
    shown_path,
    shown_paths,
    stem,
    unread_form,
)
from trainables.data.folder_names import (
    are_counted,
    are_long_ids,
    begin_with_persons,
    finding_of,
    is_mask_folder,
    is_unlabelled,
    look_like_ids,
    masked,
    may_be_masks,
    name_of,
    names_masks,
    parts_of_one_set,
    patient_pattern,
    patients,
    says_drawn,
    says_nothing,
    split_name,
    split_pair,
)
from trainables.data.folder_tables import NamingTable, naming_tables, way_out
from trainables.data.samples import CheckResult, LeftOut, rows_by

_MOST_SUBCLASSES = 20
_FEW = 4  # or fewer classes may have one image each, in a first try


class Image(NamedTuple):
    """class_name: "" = from ``--class-from``. split: "train", "val" or "test"; "" = no folder gives one."""

    path: str
    class_name: str
    split: str


@dataclass(frozen=True)
class Layout:
    """images: those that are used. empty_classes: class folders that contain nothing. checks: a warning about a table
    that has the patients.
    """

    images: tuple[Image, ...]
    empty_classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    checks: tuple[CheckResult, ...]


def read_layout(index: FileIndex, config: DataConfig, elsewhere: Iterable[str] = (), one_split: bool = False) -> Layout:
    """Find the splits and classes of the images below a folder.

    elsewhere: folders in it that are read separately. one_split: it is one split of a set, and contains none.
    Raises ``UserError`` if names look like splits, or classes like something else, and the rules cannot decide.
    """
    tree = _Tree(index, elsewhere)
    _leave_out_masks(tree)
    place, splits = _enter(tree, config, one_split)
    if not splits and not config.class_from and (inner := _splits_in_classes(tree, place)):
        return _layout(tree, inner, {folder: name_of(os.path.dirname(folder)) for folder in inner})
    if config.class_from:
        return _layout(tree, splits, dict.fromkeys(splits or [place], ""))
    levels = _class_levels(tree, list(splits) or [place])
    _check_unread(tree, place, list(levels.values()), config)
    classes = {folder: name_of(folder) for level in levels.values() for folder in tree.children(level)}
    asked = {name for name in classes.values() if not config.classes or name in config.classes}
    tables = [] if one_split or config.has_preset else naming_tables(index)[0]
    _check_classes(tree, place, [folder for folder, name in classes.items() if name in asked], bool(splits), tables)
    of_class = {folder: splits[split] for split, level in levels.items() for folder in tree.children(level) if splits}
    empty = [name_of(folder) for level in levels.values() for folder in tree.empty(level)]
    return _layout(tree, of_class, classes, sorted(set(empty)), tables)


class _Tree:
    """images: those of an index that are not left out so far, sorted. unused: the others, by reason."""

    def __init__(self, index: FileIndex, elsewhere: Iterable[str]) -> None:
        self.index = index
        self.images = list(index.images)
        self.unused: dict[str, list[str]] = defaultdict(list)
        self.notes: list[str] = []
        self._children: dict[str, list[str]] = defaultdict(list)
        self._with_images: dict[str, list[str]] = {}
        for folder in index.folders[1:]:
            self._children[os.path.dirname(folder)].append(folder)
        for folder in elsewhere:
            del self.images[self._span(folder)]

    def _span(self, folder: str) -> slice:
        places = below(self.images, folder)
        return slice(places.start, places.stop)

    def paths(self, folder: str) -> list[str]:
        """The images below a folder."""
        return self.images[self._span(folder)]

    def count(self, folder: str) -> int:
        """The number of images below a folder."""
        return len(below(self.images, folder))

    def children(self, folder: str) -> list[str]:
        """The subfolders with images."""
        if folder not in self._with_images:
            self._with_images[folder] = [child for child in self._children[folder] if self.count(child)]
        return self._with_images[folder]

    def without_images(self, folder: str) -> list[str]:
        """The subfolders without an image."""
        return [child for child in self._children[folder] if not self.index.below(child)]

    def empty(self, folder: str) -> list[str]:
        """The subfolders that contain nothing at all."""
        held = (self.index.others, self.index.images, self.index.folders)
        return [child for child in self._children[folder] if not any(below(paths, child) for paths in held)]

    def loose(self, folder: str) -> list[str]:
        """The images directly in a folder."""
        start = len(folder) + 1 if folder else 0
        return [path for path in self.paths(folder) if "/" not in path[start:]]

    def leave_out(self, why: str, folder: str, only: Collection[str] | None = None) -> None:
        """Leave out images below a folder. only: these; default: all."""
        found, span = self.paths(folder), self._span(folder)
        self.unused[why] += [path for path in found if only is None or path in only]
        self.images[span] = [path for path in found if only is not None and path not in only]
        self._with_images.clear()


def _leave_out_masks(tree: _Tree) -> None:
    """Leave out folders of masks beside the folder of their images, or within it; and NAME_mask* beside NAME."""
    for folder in tree.index.folders[1:]:
        if not may_be_masks(name_of(folder)):
            continue
        parent = os.path.dirname(folder)
        siblings = [child for child in tree.children(parent) if child != folder]
        if (
            is_mask_folder(name_of(folder), map(name_of, siblings))
            or (names_masks(name_of(folder)) and _same_stems(tree, folder, tree.loose(parent)))
            or (says_drawn(name_of(folder)) and any(_same_stems(tree, folder, tree.paths(one)) for one in siblings))
        ):
            tree.leave_out("masks, in a folder next to the images", folder)
    if heads := {path: found for path in tree.images if (found := masked(path))}:
        stems = set(map(stem, tree.images))
        masks = {path for path, found in heads.items() if not stems.isdisjoint(found)}
        tree.leave_out("masks, next to the image of the same name", "", masks)


def _same_stems(tree: _Tree, folder: str, others: Iterable[str]) -> bool:
    """Whether at least half of a folder's images are named like one of ``others``, or as its mask."""
    known = {name_of(stem(path)) for path in others}
    names = list(map(stem, tree.paths(folder)))
    found = [name_of(name) in known or any(name_of(head) in known for head in masked(name)) for name in names]
    return 2 * sum(found) >= len(found) > 0


def _enter(tree: _Tree, config: DataConfig, one_split: bool) -> tuple[str, dict[str, str]]:
    """The folder that contains the splits or the classes, and the split folders in it: folder -> split."""
    place = ""
    while True:
        _leave_out_copies(tree, place)
        children = tree.children(place)
        splits = {} if one_split else _splits_at(tree, place, config)
        inner = tree.children(children[0]) if len(children) == 1 else []
        if splits or len(children) != 1 or (not inner and not config.class_from):
            break
        place = children[0]
    folders = [name_of(child) for child in children]
    if strange := [name for name in config.split_names if name not in folders and not one_split]:
        where = f"no such folder in {tree.index.root / place}, which has {shown_paths(folders) or 'none with images'}"
        raise UserError(f"--split-names {shown_paths(strange)}: {where}")
    if place:
        tree.notes.append(f"the data set is read from the folder {shown_path(place)}")
    return place, splits


def _leave_out_copies(tree: _Tree, place: str) -> None:
    """Leave out copies (chest_xray/chest_xray): folders whose images all lie beside them, equal in name and size."""
    for child in tree.children(place):
        if tree.count(child) < tree.count(place) and _is_copy(tree, place, child):
            tree.leave_out(f"a second copy of the same files, in the folder {shown_path(child)}", child)


def _is_copy(tree: _Tree, place: str, child: str) -> bool:
    paths = tree.paths(child)
    twins = [f"{place}{path[len(child) + (not place) :]}" for path in paths]
    if any(twin.startswith(f"{child}/") or twin not in tree.index for twin in twins):
        return False
    return all(_size(tree.index, one) == _size(tree.index, other) for one, other in zip(paths, twins, strict=True))


def _size(index: FileIndex, path: str) -> int:
    try:
        return os.stat(index.root / path).st_size
    except OSError:
        return -1


def _splits_at(tree: _Tree, place: str, config: DataConfig) -> dict[str, str]:
    """Folder -> split of the folders in ``place``, {} if they are none. Others are left out, or an error."""
    children = tree.children(place)
    names = {child: split_name(name_of(child)) for child in children}
    splits = {child: config.split_names[name_of(child)] for child in children if name_of(child) in config.split_names}
    if not splits:
        trains = [child for child in children if "train" in names[child].splits]
        if config.class_from:
            named = {child: str(name.split) for child, name in names.items() if name.split}
            if trains and len(named) == len(names):
                return named
            if not trains or len({*named.values()}) < 2:
                return {}
        if len(children) == 1 and names[children[0]].plain and _is_flat(tree, children[0]):
            return _with_classes(tree, place, {children[0]: "train"})
        if not trains or len(children) == 1:
            return {}
        rest = names[trains[0]].rest
        if rest and not any({*rest} <= {*names[child].rest} for child in children if child != trains[0]):  # seg_train
            return {}
    else:
        rest = names[next(iter(splits))].rest
    said = dict(splits)
    problems = []
    for child in children:
        name = names[child]
        if child in said:
            continue
        if name.split and (name.rest == rest or (said and name.plain)):
            splits[child] = name.split
        elif not config.class_from and _is_flat(tree, child):
            tree.leave_out(f"in {shown_path(child)}, next to the splits and without class folders", child)
        else:
            shown = shown_path(name_of(child))
            problems.append(
                f"--data {tree.index.root / place}: folder {shown!r} contains images and is next to folders named as "
                f"splits; give its split with --split-names {shown}=train (or =val, =test), or move it elsewhere"
            )
    for split, places in rows_by(splits.values()).items():
        twins = [name_of(list(splits)[row]) for row in places]
        if len(twins) > 1 and not all(list(splits)[row] in said for row in places):
            problems.append(
                f"--data {tree.index.root / place}: folders {' and '.join(map(repr, twins))} both mean {split}; "
                f"to merge them: --split-names {','.join(f'{twin}={split}' for twin in twins)}"
            )
    with gathered(problems):
        if not config.class_from:
            splits = _with_classes(tree, place, splits)
    raise_all(problems)
    return splits


def _with_classes(tree: _Tree, place: str, splits: Mapping[str, str]) -> dict[str, str]:
    """The splits that have class folders: others are left out as unlabelled, or, for train, raise ``UserError``."""
    flat = [child for child in splits if _is_flat(tree, child)]
    if any(splits[child] == "train" for child in flat):
        shown = shown_paths([name_of(child) for child in flat])
        images = [path for child in flat if splits[child] == "train" for path in tree.paths(child)]
        plain = all(split_name(name_of(child)).plain for child in flat)
        folders = "" if plain else "; or --class-from '([^/]+)/[^/]+$' if the folders are classes"
        what = f"{shown}: images, but no class folders; {way_out(tree.index, images)}{folders}"
        raise UserError(f"--data {tree.index.root / place}: {what}")
    for child in flat:
        tree.leave_out(f"in {shown_path(child)}, which has no class folders", child)
    return {child: split for child, split in splits.items() if child not in flat}


def _is_flat(tree: _Tree, folder: str) -> bool:
    """Whether its images lie in no class folders, but directly in it or in a lone folder whose name is no class."""
    children = tree.children(folder)
    if len(children) == 1 and _is_wrapper(children[0]):
        return not tree.loose(folder) and _is_flat(tree, children[0])
    return not children


def _splits_in_classes(tree: _Tree, place: str) -> dict[str, str]:
    """Folder -> split if each class folder contains splits (CLASS/train/*), else {}."""
    found: dict[str, str] = {}
    children = tree.children(place)
    for child in children:
        names = {folder: split_name(name_of(folder)) for folder in tree.children(child)}
        trains = any("train" in name.splits for name in names.values())
        if not trains or not all(name.plain for name in names.values()) or any(map(tree.children, names)):
            return {}
        found |= {folder: str(name.split) for folder, name in names.items()}
    return found if len(children) > 1 else {}


def _class_levels(tree: _Tree, tops: Sequence[str]) -> dict[str, str]:
    """Split folder -> the folder that contains the classes: lone folders are entered, unless they are a class that
    another split has, too.
    """
    levels = {top: top for top in tops}
    while True:
        for level in levels.values():
            _leave_out_copies(tree, level)
        lone = {
            top: children[0]
            for top, level in levels.items()
            if len(children := tree.children(level)) == 1 and tree.children(children[0])
        }
        known = {name_of(child) for top, level in levels.items() if top not in lone for child in tree.children(level)}
        entered = {top: child for top, child in lone.items() if _is_wrapper(child)}
        entered = entered or {top: child for top, child in lone.items() if name_of(child) not in known}
        if not entered:
            return levels
        levels |= entered


def _is_wrapper(folder: str) -> bool:
    """Whether the name of a folder cannot be a class: train/train, train/images."""
    name = name_of(folder)
    return name == name_of(os.path.dirname(folder)) or says_nothing(name) or split_name(name).plain


def _check_unread(tree: _Tree, place: str, levels: Sequence[str], config: DataConfig) -> None:
    """Raise if a folder beside the class folders has no image, but files in a format that is not supported."""
    known = {name_of(child) for level in levels for child in tree.children(level)}
    problems = []
    for folder in (child for level in levels for child in tree.without_images(level)):
        unread = [path for path in paths_below(tree.index.others, folder) if unread_form(path)]
        if not unread or not known or (config.classes and name_of(folder) not in config.classes):
            continue
        what = "unpack it" if is_archive(unread[0]) else "save them as PNG, JPEG, TIFF or DICOM"
        problems.append(
            f"--data {tree.index.root / place}: {shown_path(folder)} is next to class folders and has no supported "
            f"image, but {shown_paths(unread, 3)} ({counted_forms(unread)}): {what}, or leave the class out with "
            f"--classes {','.join(sorted(known - {name_of(folder)}))}"
        )
    raise_all(problems)


def _check_classes(
    tree: _Tree, place: str, folders: Sequence[str], has_splits: bool, tables: Sequence[NamingTable]
) -> None:
    """Raise if class folders look like splits, parts, patients or body parts, or contain the classes themselves, or
    if a table that names the images contradicts them.
    """
    names = sorted({name_of(folder) for folder in folders})
    above = "[^/]+/" * (folders[0].count("/") if folders else 0)
    outer, inner = f"--class-from '^{above}([^/]+)/'", f"--class-from '^{above}[^/]+/([^/]+)/'"
    class_of = {path: name_of(folder) for folder in folders for path in tree.paths(folder)}
    parts = parts_of_one_set(names)
    problem = ""
    if table := next((one for one in tables if len(names) > 1 and one.contradicts(tree.index, class_of)), None):
        problem = (
            f"{table.path} names the images by its column {table.column!r}, and no column of it agrees with the "
            f"folders {shown_paths(names, 5)}; give {table.option(tree.index)}, or {outer} if the folders are the "
            "classes"
        )
    elif inside := [] if has_splits else _splits_below(tree, folders):
        around = next(folder for folder in folders if inside[0].startswith(f"{folder}/"))
        problem = (
            f"{shown_paths(inside)}: named like splits, below {shown_paths(names)}; give one folder, such as --data "
            f"{tree.index.root / around}, or leave it out with --classes, or give {outer} if all are classes"
        )
    elif parts:
        problem = f"{shown_paths(parts)} are not classes but parts of one set by their names; "
        problem += _instead(tree, folders, parts, inner)
    elif why := _why_ids(tree, folders, names):
        problem = (
            f"{shown_paths(patients(names) or names)} are not classes but patients or studies{why}; "
            f"{_instead(tree, folders, parts, inner)}, or read class and patient from the path with "
            f"--class-from and --group-from, or give {outer} if they are classes"
        )
    elif above_words := {} if _may_hold_classes(tree, folders) else _above_findings(tree, folders):
        words = "|".join(sorted({word for _, word in above_words}))
        group = patient_pattern(list(class_of))
        above_all = sorted({name_of(part) for part, _ in above_words})
        problem = (
            f"{shown_paths(above_all)} are probably body parts, not classes, as they contain folders such as "
            f"{next(iter(above_words.values()))}; "
            f"{_instead(tree, folders, parts, inner)}, or read the class from the path with --class-from '({words})/'"
            + (f" and the patient with --group-from '{group}'" if group else "")
        )
    elif splits := [name for name in names if split_name(name).plain] or split_pair(names):
        shown = ",".join(f"{name}={split_name(name).split}" for name in splits)
        problem = (
            f"{shown_paths(splits)} among the classes {shown_paths(names)} is named like a split; give --split-names "
            f"{shown}, with one for each folder, or {outer} if these are classes"
        )
    elif odd := [name for name in names if is_unlabelled(name) or (name.lower() == "masks" and len(names) > 1)]:
        kept = ",".join(name for name in names if name not in odd)
        only = [folder for folder in folders if name_of(folder) == kept and len(tree.children(folder)) > 1]
        leave = f"give --data {tree.index.root / only[0]}" if only else f"leave it out with --classes {kept}"
        problem = f"{shown_paths(odd)}: not named like a class; {leave}, or give {outer}"
    elif holders := [
        one for one in folders if _holds_classes(tree, one, names) or (len(names) > 1 and all(map(says_nothing, names)))
    ]:
        problem = (
            f"{shown_paths(sorted(set(map(name_of, holders))))}: not named like a class, or with folders named as the "
            f"classes next to it; give one folder, such as --data {tree.index.root / holders[0]}, or {outer}"
        )
    elif _are_versions(tree, folders):
        problem = (
            f"{shown_paths(names)} contain images of the same names, as versions of one set do (raw, enhanced); "
            f"{way_out(tree.index)}, or give {outer} if they are classes"
        )
    elif _may_hold_classes(tree, folders):
        last = max(folders, key=lambda folder: len(tree.children(folder)))
        has_deeper = any(tree.children(child) for folder in folders for child in tree.children(folder))
        problem = (
            f"the class may be {shown_paths(names)}, or a folder in it ({name_of(last)} contains "
            f"{shown_paths(sorted(map(name_of, tree.children(last))))}); give {outer} for the outer, {inner} for the "
            "inner "
            + ("ones, --class-from '([^/]+)/[^/]+$' for the innermost" if has_deeper else "ones")
            + ("" if has_splits else f", --data {tree.index.root / last} for {name_of(last)} only")
            + (f", or --split-names {names[0]}=train,... if the outer ones are splits" if len(names) <= 5 else "")
        )
        if len(names) > 5:
            problem += f", with --group-from '^{above}([^/]+)/' if the outer ones are patients"
    if problem:
        raise UserError(f"--data {tree.index.root / place}: {problem}")
    if deeper := sorted({name_of(child) for folder in folders for child in tree.children(folder)}):
        tree.notes.append(f"folders in a class folder belong to its class: {shown_paths(deeper, 3)}")


def _patients_in_tables(index: FileIndex, tables: Sequence[NamingTable], has_splits: bool) -> Iterator[CheckResult]:
    """A warning about the first table that names most images and has the patients. has_splits: folders are splits."""
    for table in [one for one in tables if one.names_most(index) and one.patients][:1]:
        what = "seems to say which images are of one patient, lesion or study, and they may be in two splits"
        way_out = f"{table.option(index, 'COLUMN')} keeps them in one, where COLUMN has the classes"
        way_out += "; the splits of the folders are not used then" if has_splits else ""
        message = f"column {table.patients!r} of {table.path} {what}: {way_out}"
        yield CheckResult("unused_patients", "warning", message, len(index.images))


def _instead(tree: _Tree, folders: Sequence[str], parts: Sequence[str], inner: str) -> str:
    """The advice if folders, or those named in ``parts``, are not classes: give the folders in them, or a table."""
    alike = [folder for folder in folders if name_of(folder) in parts or not parts]
    above = {os.path.dirname(folder) for folder in alike}
    if not _may_hold_classes(tree, alike):
        return way_out(tree.index)
    if parts and len(above) == 1:
        return f"--data {tree.index.root / above.pop()} --class-from '^[^/]+/([^/]+)/' takes the folders in them"
    return f"{inner} if the folders in them are classes"


def _above_findings(tree: _Tree, folders: Sequence[str]) -> dict[tuple[str, str], str]:
    """(folder, "positive") -> "study1_positive", for folders with two or more such words below them."""
    found: dict[tuple[str, str], str] = {}
    for folder in folders:
        inside = paths_below(tree.index.folders, folder)
        named = {word: name_of(one) for one in inside if (word := finding_of(name_of(one))) and tree.count(one)}
        found |= {(folder, word): name for word, name in named.items()} if len(named) > 1 else {}
    return found


def _splits_below(tree: _Tree, folders: Sequence[str]) -> list[str]:
    """Folders named as train and as another split, anywhere below class folders."""
    inside = [one for folder in folders for one in paths_below(tree.index.folders, folder)]
    inside = [one for one in inside if split_name(name_of(one)).plain and tree.count(one)]
    splits = {split_name(name_of(one)).split for one in inside}
    return inside if "train" in splits and len(splits) > 1 else []


def _holds_classes(tree: _Tree, folder: str, classes: Sequence[str]) -> bool:
    """Whether it has several folders, and a name like "Original Dataset" or two folders named as classes beside it."""
    inside = set(map(name_of, tree.children(folder)))
    return len(inside) > 1 and (says_nothing(name_of(folder)) or len(inside & {*classes} - {name_of(folder)}) > 1)


def _are_versions(tree: _Tree, folders: Sequence[str]) -> bool:
    """Whether the folders of all classes contain files of the same names, other than counted ones (``are_counted``)."""
    held: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        held[name_of(folder)] |= {name_of(stem(path)) for path in tree.paths(folder)}
    alike = {frozenset(one) for one in held.values()}
    return len(held) > 1 == len(alike) and all(len(one) > 1 and not are_counted(one) for one in alike)


def _may_hold_classes(tree: _Tree, folders: Sequence[str]) -> bool:
    """Whether each folder contains only folders, of several names in all: colon/{colon_aca, colon_n}, 8863/{0, 1}.
    Names with digits, as of patients, must be few, and fewer than the folders around them.
    """
    inside: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        inner = set(map(name_of, tree.children(folder)))
        if not inner or tree.loose(folder):
            return False
        inside[name_of(folder)] |= {name for name in inner if name != name_of(folder) and not says_nothing(name)}
    names = set().union(*inside.values())
    numbered = any(letter.isdigit() for name in names for letter in name)
    few = len(names) < len(inside) and len(names) <= _MOST_SUBCLASSES
    return len(names) > 1 and len(inside) > 1 and (few or not numbered)


def _why_ids(tree: _Tree, folders: Sequence[str], names: Sequence[str]) -> str:
    """Why the names are ids of patients, in words; "" if they may be classes."""
    if patients(names):
        return " by their names"
    inner = [[name_of(child) for child in tree.children(folder)] for folder in folders]
    deep = all(some and not all(map(says_nothing, some)) for some in inner) and not any(map(tree.loose, folders))
    if look_like_ids(names) and (deep or are_long_ids(names) or begin_with_persons(names)):
        return " by their names"
    of_split = Counter(map(os.path.dirname, folders))
    if len(names) <= _FEW:
        return ""
    if len(folders) == len(names) and len(of_split) > 1 < min(of_split.values()):
        return ", as no two splits have a folder of the same name"
    images = sum(map(tree.count, folders))
    return ", as they have hardly more than one image each" if 2 * images < 3 * len(names) else ""


def _layout(
    tree: _Tree,
    splits: Mapping[str, str],
    classes: Mapping[str, str],
    empty: Sequence[str] = (),
    tables: Sequence[NamingTable] = (),
) -> Layout:
    """The images below the folders of ``classes``; all others are left out. splits: of these folders, {} if none."""
    pairs = sorted((path, folder) for folder in classes for path in tree.paths(folder))
    others = [path for folder in classes for path in paths_below(tree.index.others, folder)]
    unread = sorted(filter(unread_form, others))
    used = {path for path, _ in pairs}
    tree.unused["in no class folder"] += [path for path in tree.images if path not in used]
    tree.unused[f"files in an unsupported format ({counted_forms(unread)})"] += unread
    if {*splits.values()} == {"train"}:
        tree.notes.append("only training images are given: validation and test images are drawn from them")
        splits = {}
    return Layout(
        images=tuple(Image(path, classes[folder], splits.get(folder, "")) for path, folder in pairs),
        empty_classes=tuple(empty),
        left_out=tuple(left_out(why, sorted(paths)) for why, paths in tree.unused.items() if paths),
        notes=tuple(tree.notes),
        checks=tuple(_patients_in_tables(tree.index, tables, bool(splits))),
    )
