"""What a user asked for about the data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from search_spaces.errors import unknown

TASKS = ("auto", "single_label", "multi_label")
LEAST_IMAGE_SIZE = 8
FITS = ("squash", "crop", "pad")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data set, and how to read it.

    data: "demo", or a path to a folder or to a .csv / .tsv manifest.
    task: "auto" (multi_label if there are several label columns or ``a|b`` cells), "single_label", "multi_label".
    label_columns: of a manifest: one column (class names or ``a|b`` cells), or several columns of 0 and 1.
    path_column: of a manifest: paths absolute or relative to the manifest's folder.
    split_column: of a manifest; None = the column "split" if there is one.
    group_column: of a manifest: rows with the same value (a patient) never stand in two splits.
    subgroup_columns: of a manifest: carried into splits.csv for the report.
    source_column: of a manifest: where an image comes from, counted against the class.
    image_size: pixels of the square that the network sees, >= 8. fit: "squash", "crop" or "pad".
    seed: of splits that we draw, >= 0.
    allow_leakage: go on, with a mark, where a group or the same pixels stand in two splits.
    skip_unreadable: go on, with a mark, without the files that cannot be decoded.
    """

    data: str
    task: str = "auto"
    label_columns: tuple[str, ...] = ()
    path_column: str = "path"
    split_column: str | None = None
    group_column: str | None = None
    subgroup_columns: tuple[str, ...] = ()
    source_column: str | None = None
    image_size: int = 224
    fit: str = "squash"
    seed: int = 0
    allow_leakage: bool = False
    skip_unreadable: bool = False

    def problems(self) -> list[str]:
        """One sentence for each value that cannot be; [] if all is well."""
        found = []
        if self.task not in TASKS:
            found.append(f"--task: {unknown('task', self.task, TASKS)}")
        if self.fit not in FITS:
            found.append(f"--fit: {unknown('fit', self.fit, FITS)}")
        if self.image_size < LEAST_IMAGE_SIZE:
            found.append(f"--image-size {self.image_size}: at least {LEAST_IMAGE_SIZE} pixels are needed")
        if self.seed < 0:
            found.append(f"--seed {self.seed}: must be 0 or more")
        repeated = sorted({name for name in self.label_columns if self.label_columns.count(name) > 1})
        found += [f"--label-column {name!r} is named twice" for name in repeated]
        return found

    def manifest_options(self) -> dict[str, str]:
        """The options given here that only a manifest can answer: option -> value."""
        named = {
            "--label-column": " ".join(self.label_columns),
            "--path-column": "" if self.path_column == "path" else self.path_column,
            "--split-column": self.split_column or "",
            "--group-column": self.group_column or "",
            "--subgroup-column": " ".join(self.subgroup_columns),
            "--source-column": self.source_column or "",
        }
        return {option: value for option, value in named.items() if value}

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: tuples become lists."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
