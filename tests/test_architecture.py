"""The rules of the house that no one file can keep alone, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("search_spaces", "trainables", "sweep", "reports")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EVERY_FILE = [*SOURCES, *sorted(path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))]

MAY_IMPORT = {
    "search_spaces": ("search_spaces",),
    "trainables": ("trainables", "search_spaces"),
    "sweep": ("sweep", "trainables", "search_spaces"),
    "reports": (
        "reports",
        "sweep.records",
        "sweep.external_records",
        "sweep.model_paths",
        "sweep.run_folder",
        "search_spaces.params",
        "search_spaces.errors",
        "trainables.metrics",
        "trainables.atomic",
    ),
}
# The rooms of reports: each may use itself, the rooms that it is given here, and the evidence.
ROOMS = {
    "page": (),
    "trials": ("page", "scores"),
    "scores": ("page", "trials"),
    "prose": ("page", "trials", "scores"),
    "sections": ("page", "trials", "scores", "prose"),
    "answer": ("page", "trials", "scores", "prose"),
}
# The driver ends with the report, so that its last step, and nothing else of ours, looks that way.
REPORT_AT_THE_END = ("sweep/run.py", "reports.build")
RAY_FILES = {
    "trainables/ray_trainable.py",
    "sweep/ray_tune.py",
    "sweep/run.py",
}
LONGEST_FILE = 550


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(f"{allowed}.")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = [module for module in imports(path) if module.partition(".")[0] in (*PACKAGES, "tests", "benchmarks")]
    against = [module for module in ours if not any(within(module, allowed) for allowed in MAY_IMPORT[package])]
    if name_of(path) == REPORT_AT_THE_END[0]:
        against = [module for module in against if not within(module, REPORT_AT_THE_END[1])]
    assert against == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.match("reports/*/*.py")], ids=name_of)
def test_rooms_of_the_report_build_on_each_other(path: Path) -> None:
    room = path.parent.name
    used = {module.split(".")[1] for module in imports(path) if within(module, "reports")}
    assert used & set(ROOMS) <= {room, *ROOMS[room]}
    assert used - set(ROOMS) <= ({"evidence", "external_evidence"} if room != "page" else set())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_ray_is_imported_in_four_files(path: Path) -> None:
    if name_of(path) not in RAY_FILES:
        assert [module for module in imports(path) if within(module, "ray")] == []


@pytest.mark.parametrize("package", ["search_spaces", "reports"])
def test_spaces_and_reports_need_no_torch(package: str) -> None:
    heavy = {
        name_of(path): module
        for path in (ROOT / package).rglob("*.py")
        for module in imports(path)
        if within(module, "torch") or within(module, "torchvision")
    }
    assert heavy == {}


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").rglob("*.py")), ids=name_of)
def test_spaces_are_written_with_the_standard_library_and_optuna(path: Path) -> None:
    outside = {module.partition(".")[0] for module in imports(path)} - sys.stdlib_module_names
    assert outside <= {"search_spaces", "optuna"}


def test_light_faces_load_neither_torch_nor_ray() -> None:
    modules = ("sweep.records", "sweep.run_folder", "trainables.metrics", "search_spaces.space", "reports.build")
    written = [module for module in modules if (ROOT / f"{module.replace('.', '/')}.py").exists()]
    code = (
        f"import sys, importlib\n"
        f"for name in {written!r}:\n"
        f"    importlib.import_module(name)\n"
        f"    heavy = sorted({{'torch', 'torchvision', 'ray'}} & set(sys.modules))\n"
        f"    assert not heavy, f'{{name}} loads {{heavy}}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_file_is_forgotten() -> None:
    """Each is a command, one of the spaces that are found by their place, or imported by another."""
    used = {module for path in SOURCES for module in imports(path)}
    spaces = set((ROOT / "search_spaces").rglob("*.py"))
    commands = {path for path in SOURCES if "__main__" in path.read_text(encoding="utf-8")}
    forgotten = [
        name_of(path)
        for path in sorted(set(SOURCES) - spaces - commands)
        if path.stem != "__init__" and not any(within(module, name_of(path)[:-3].replace("/", ".")) for module in used)
    ]
    assert forgotten == []


@pytest.mark.parametrize("path", EVERY_FILE, ids=name_of)
def test_a_file_has_a_name_of_its_own(path: Path) -> None:
    assert path.stem.removeprefix("test_") not in {"utils", "util", "helpers", "helper", "misc", "common", "tools"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_fits_one_reading(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)
