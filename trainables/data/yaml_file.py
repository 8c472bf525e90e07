"""Read a YAML file of settings: lines of ``name: value``, with an error for everything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import UserError, reason_of

_MOST_BYTES = 100_000
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


def read_settings(
    path: Path, named: str, example: str, allowed: Collection[str], strange: Callable[[str], str]
) -> tuple[dict[str, Any], list[str]]:
    """The settings in a YAML file, and one sentence for each key that is unknown or given twice.

    Keys have dashes or underscores. A null is left out: it means the default. named: what the file is called in errors.
    example: a valid line. allowed: the names of the settings, with underscores. strange: gives the sentence about an
    unknown key. Raises ``UserError`` if the file cannot be read, is larger than 100 KB, is not YAML, has an alias, is
    nested too deeply, or is not a mapping.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{named} is not a regular file")
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{named} has {path.stat().st_size:,} bytes, too many for settings")
        written = path.read_text(encoding="utf-8")
        content = yaml.load(written, Loader=_Loader)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{named} is nested too deeply: a setting is a value, a list or a mapping of values") from None
    except OSError as error:
        raise UserError(f"{named} cannot be read: {reason_of(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{named} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    except (yaml.YAMLError, ValueError) as error:
        mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise UserError(f"{named} is not YAML: {what}{place}") from None
    if content is None:
        return {}, []
    if not isinstance(content, dict):
        raise UserError(f"{named} must contain lines such as `{example}`, received {content!r:.80}")
    # The content has only the last of two equal keys; the nodes have both.
    problems = [*_repeated(yaml.compose(written, Loader=_Loader))]
    problems += [strange(str(key)) for key in content if underscored(key) not in allowed]
    given = {underscored(key): value for key, value in content.items() if value is not None}
    return {name: given[name] for name in given if name in allowed}, [f"{named}: {problem}" for problem in problems]


def underscored(key: object) -> str:
    """A key, spelled like a field name."""
    return str(key).replace("-", "_")


class _Loader(yaml.SafeLoader):
    """Reads numbers as in YAML 1.2 (in 1.1, 1:30 is 90 and 010 is 8), and refuses aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            problem = f"*{event.anchor} is an alias: write its value out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in known if tag not in (_INT, _FLOAT)]
    for start, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)


def _repeated(node: yaml.Node | None, name_of: Callable[[str], str] = underscored) -> Iterator[str]:
    """Keys given twice. name_of: of a key; two spellings of a setting are one name, those of a user's label are two."""
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = name_of(key.value), key.start_mark.line + 1
        if name in lines:
            yield f"{name} is given twice, in line {lines[name]} and line {line}"
        lines[name] = line
        yield from _repeated(value, str)
