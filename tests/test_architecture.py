"""The rules of the house that no one file can keep alone, read from the source."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
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
        "sweep.evaluation_records",
        "sweep.trial_records",
        "sweep.endings",
        "sweep.run_folder",
        "search_spaces.params",
        "search_spaces.errors",
        "search_spaces.paths",
        "search_spaces.studies",
        "trainables.metrics",
        "trainables.maps",
        "trainables.predictions",
        "trainables.atomic",
        "trainables.spreadsheet",
    ),
}
# Inside reports each level may use itself and those before it.
REPORT_LEVELS = (
    {"blocks", "drawing", "formats", "figures", "class_panels", "tables", "thumbnails"},
    {"data"},
    {"bootstrap", "intervals", "comparisons", "probabilities"},
    {"results", "leaderboard", "importance", "caveats", "conclusion"},
    {"chapters"},
    {"render", "model_card", "external"},
    {"build"},
)
RAY_FILES = {"trainables/ray_trainable.py", "sweep/cluster.py", "sweep/ray_tune.py", "sweep/workers.py"}
PYDANTIC_PACKAGES = ("sweep", "reports")
PYDANTIC_FILES = {"trainables/data/config.py", "trainables/data/prepare.py"}
A_TRIAL = (
    "search_spaces.params",
    "trainables.trial",
    "trainables.engine",
    "trainables.batches",
    "trainables.data.dataset",
    "trainables.data.image",
    "trainables.data.cache",
    "trainables.data.decoded",
    "trainables.data.near_duplicates",
    "trainables.weights",
    "trainables.export",
    "trainables.metrics",
    "trainables.maps",
    "trainables.predictions",
)
# Beside torch and Ray, what importing each must not load; nor may those before it have done so.
LIGHT: dict[str, set[str]] = {
    "sweep.cli": {"optuna", "numpy", "pandas", "rich"},
    "trainables.metrics": {"pandas"},
    "reports.build": {"matplotlib.pyplot"},
    "sweep.records": set(),
    "sweep.status": set(),
    "sweep.run_folder": set(),
    "search_spaces.space": set(),
    "trainables.data.prepare": set(),
}
LONGEST_FILE = 550
SHORTEST_OF_ONE_IMPORTER = 80
SHORT_BY_KIND = {
    *("search_spaces/errors.py", "search_spaces/partial_unfreeze.py", "search_spaces/head_only.py"),
    *("search_spaces/full_finetune.py", "search_spaces/imbalance.py"),
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return name_of(path)[:-3].replace("/", ".").removesuffix(".__init__")


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, at its top or inside a function; ``from a import b`` gives ``a.b``."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            assert node.module is not None
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(f"{allowed}.")


@functools.cache
def imported_files(path: Path) -> set[Path]:
    """Our own files that ``path`` imports; a name of a package's ``__init__`` counts as that file."""
    modules = {module_of(source): source for source in SOURCES}
    found = set()
    for name in imports(path):
        target = modules.get(name) or modules.get(name.rpartition(".")[0])
        if target is not None and target != path:
            found.add(target)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = [module for module in imports(path) if module.partition(".")[0] in (*PACKAGES, "tests", "benchmarks")]
    assert [module for module in ours if not any(within(module, allowed) for allowed in MAY_IMPORT[package])] == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.match("reports/**/*.py")], ids=name_of)
def test_the_levels_of_the_report_build_on_each_other(path: Path) -> None:
    level_of = {name: place for place, names in enumerate(REPORT_LEVELS) for name in names}
    room = path.relative_to(ROOT / "reports").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    used = {module.split(".")[1] for module in imports(path) if within(module, "reports")}
    assert {name for name in used if level_of[name] > level_of[room]} == set()


def test_no_circle() -> None:
    """Lazy imports count: a circle behind one is a circle."""
    done: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, " -> ".join(name_of(one) for one in (*above[above.index(path) :], path))
        if path not in done:
            for other in sorted(imported_files(path)):
                visit(other, (*above, path))
            done.add(path)

    for path in SOURCES:
        visit(path, ())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_ray_is_imported_in_few_files(path: Path) -> None:
    if name_of(path) not in RAY_FILES:
        assert [module for module in imports(path) if within(module, "ray")] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_pydantic_stays_out_of_what_a_trial_imports(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] not in PYDANTIC_PACKAGES and name_of(path) not in PYDANTIC_FILES:
        assert [module for module in imports(path) if within(module, "pydantic")] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_imported_that_only_unix_has(path: Path) -> None:
    assert {*imports(path)} & {"fcntl", "grp", "pwd", "resource", "termios"} == set()


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


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dicom"]]
    declared = {re.split(r"[\[<>=]", one)[0].lower() for one in needed}
    of_module = packages_distributions()
    used = {module.partition(".")[0] for path in SOURCES for module in imports(path)}
    undeclared = {
        module
        for module in used - sys.stdlib_module_names - {*PACKAGES}
        if declared.isdisjoint(name.lower() for name in of_module.get(module, ()))
    }
    assert undeclared <= {"markupsafe", "pydantic_core"}  # which Jinja and pydantic bring


def run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_light_faces_load_neither_torch_nor_ray() -> None:
    run_python(
        "import sys, importlib\n"
        f"for name, more in {LIGHT!r}.items():\n"
        "    importlib.import_module(name)\n"
        "    heavy = sorted(({'torch', 'torchvision', 'ray'} | more) & set(sys.modules))\n"
        "    assert not heavy, f'{name} loads {heavy}'\n"
    )


def test_trials_and_decoding_run_with_torch_and_the_scientific_packages_alone() -> None:
    blocked = ("pydantic", "optuna", "ray", "pydicom")
    run_python(
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"for name in {A_TRIAL!r}:\n"
        "    importlib.import_module(name)\n"
    )


def test_what_is_imported_is_looked_through_by_few_full_collections() -> None:
    for module, most in {"trainables.ray_trainable": 0, "sweep.run, sweep.ray_tune": 0, "reports.build": 2}.items():
        run_python(f"import gc, {module}\nassert gc.get_stats()[2]['collections'] <= {most}, gc.get_stats()")


def importers(path: Path) -> list[Path]:
    return [other for other in SOURCES if path in imported_files(other)]


def commands() -> Iterator[Path]:
    yield from (path for path in SOURCES if "__main__" in path.read_text(encoding="utf-8"))


def test_no_file_is_forgotten() -> None:
    """Each is a command, one of the spaces that are found by their place, or imported by another."""
    spaces = set((ROOT / "search_spaces").rglob("*.py"))
    forgotten = [
        name_of(path)
        for path in sorted(set(SOURCES) - spaces - set(commands()))
        if path.stem != "__init__" and not importers(path)
    ]
    assert forgotten == [], "nothing imports these: a chapter, for one, is imported by reports/build.py"


def test_a_short_file_serves_more_than_its_neighbour() -> None:
    """A file of few lines whose only importer is in the same folder belongs to that one."""
    short = []
    for path in sorted(set(SOURCES) - set(commands())):
        exempt = path.stem == "__init__" or name_of(path) in SHORT_BY_KIND
        if exempt or path.parent.name == "chapters":
            continue
        lines = len(path.read_text(encoding="utf-8").splitlines())
        users = importers(path)
        if lines < SHORTEST_OF_ONE_IMPORTER and len(users) == 1 and users[0].parent == path.parent:
            short.append(f"{name_of(path)}: {lines} lines, only imported by {name_of(users[0])}")
    assert short == []


@pytest.mark.parametrize("path", EVERY_FILE, ids=name_of)
def test_a_file_has_a_name_of_its_own(path: Path) -> None:
    assert path.stem.removeprefix("test_") not in {"utils", "util", "helpers", "helper", "misc", "common", "tools"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_fits_one_reading(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_make_help_lists_each_target_in_two_columns() -> None:
    """Also by the sed of macOS, which knows no tab, and for the longest name."""
    targets = re.findall(r"^([a-z-]+):.*## (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    done = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name:14}{what}" for name, what in targets]
    assert max(len(name) for name, _ in targets) < 14


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)
