"""The YAML file of ``--config``: options by name, with dashes or underscores."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import UserError
from sweep.values import unknown_option


def read_config_file(path: Path, allowed: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings of a YAML file, and one sentence for each key of it that is none or stands there twice.

    allowed: the names of the options that a file may set, with underscores. A null is left out: it means the default.
    Raises ``UserError`` if the file cannot be read at all.
    """
    named = f"--config {path}"
    try:
        written = path.read_text(encoding="utf-8")
        content = yaml.safe_load(written)
    except OSError as error:
        raise UserError(f"{named} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{named} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{named} is not YAML: {_located(error)}") from None
    if content is None:
        return {}, []
    if not isinstance(content, dict):
        raise UserError(f"{named} must hold lines of `option: value`, such as `epochs: 20`; it holds {content!r:.80}")

    # Of two equal keys the content has the last one; the nodes still have both.
    problems = [f"{named}: {key}" for key in _repeated(yaml.compose(written, Loader=yaml.SafeLoader))]
    spellings = {name: f"`{name}`" for name in allowed}
    settings: dict[str, Any] = {}
    for key, value in content.items():
        name = _name(key)
        if name not in allowed:
            problems.append(f"{named}: {unknown_option(str(key), 'option', spellings)}")
        elif value is not None:
            settings[name] = value
    return settings, problems


def _repeated(node: yaml.Node | None) -> Iterator[str]:
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = _name(key.value), key.start_mark.line + 1
        if name in lines:
            yield f"{name} is given twice, in line {lines[name]} and line {line}"
        lines[name] = line
        yield from _repeated(value)


def _name(key: object) -> str:
    return str(key).replace("-", "_")


def _located(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    return what if mark is None else f"{what} in line {mark.line + 1}, column {mark.column + 1}"
