"""What the values in a run folder's JSON files must be, so that one damaged value is left out and the rest is read.

A shape is ``TEXT``, ``FLAG``, ``WHOLE`` (0 or more), ``NUMBER`` (finite), ``SCALAR`` (any of these), ``[shape]`` for a
list (``[None]``: of anything), ``{"*": shape}`` for a mapping of any names, or ``{name: shape}`` for one of known ones,
where names that the shape does not know may hold anything. None always fits: not known.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

TEXT, FLAG, WHOLE, NUMBER, SCALAR = "text", "true or false", "a whole number", "a number", "text or a number"

SWEEP: Mapping[str, Any] = {
    **dict.fromkeys(("name", "space", "data", "metric", "mode", "sampler", "scheduler", "storage", "precision"), TEXT),
    **dict.fromkeys(("created", "ended", "positive_class"), TEXT),
    **dict.fromkeys(("trials", "epochs", "grace_period", "finalists", "repeats", "folds", "patience"), WHOLE),
    **dict.fromkeys(("deterministic", "own_epochs"), FLAG),
    "command": [TEXT],
    "compare": [TEXT],
    "reduction_factor": NUMBER,
    "set": {"*": SCALAR},
    "study_rows_left_out": {"*": TEXT},
    "study_rows": [{"*": None}],
}
PROVENANCE: Mapping[str, Any] = {
    "packages": {"*": TEXT},
    "missing_weights": {"*": TEXT},
    "weights": {"*": {**dict.fromkeys(("path", "url", "sha256", "origin", "note"), TEXT), "folded_batchnorm": FLAG}},
    "gpus": [TEXT],
    **dict.fromkeys(("python", "commit", "platform", "cpu"), TEXT),
    **dict.fromkeys(("cpus", "memory_bytes", "nodes"), WHOLE),
}
DATASET: Mapping[str, Any] = {
    **dict.fromkeys(("task", "fit", "cache", "fingerprint", "split_origin"), TEXT),
    **dict.fromkeys(("image_size", "channels"), WHOLE),
    "source": {"kind": TEXT, "path": TEXT},
    "classes": [TEXT],
    "counts": {"*": {"*": WHOLE}},
    "images": {"*": WHOLE},
    "groups": {"column": TEXT, "counts": {"*": WHOLE}},
    "checks": [{"check": TEXT, "severity": TEXT, "message": TEXT, "count": WHOLE, "items": [None]}],
    "dropped": [{"path": TEXT, "reason": TEXT}],
    "subgroups": {"*": {"*": WHOLE}},
    "source_by_class": {"*": {"*": WHOLE}},
    "caveats": [TEXT],
    "demo": FLAG,
}
START: Mapping[str, Any] = {
    "trial_id": TEXT,
    "number": WHOLE,
    "params": {"*": SCALAR},
    "asked": {"finalist": TEXT, "seed": WHOLE, "fold": WHOLE},
}
END: Mapping[str, Any] = {"status": TEXT, "reason": TEXT}
CHOSEN: Mapping[str, Any] = {
    "chosen": TEXT,
    "runs": [TEXT],
    "folds": WHOLE,
    "finalists": [
        {
            "trial_id": TEXT,
            "number": WHOLE,
            "role": TEXT,
            "rank": WHOLE,
            "search_score": NUMBER,
            "cell": {"*": SCALAR},
            "params": {"*": SCALAR},
        }
    ],
}
SELECTION: Mapping[str, Any] = {
    **dict.fromkeys(("decided", "winner", "model", "reason", "metric", "mode"), TEXT),
    "thresholds": {"*": {"*": NUMBER}},
}
MODEL: Mapping[str, Any] = {
    **dict.fromkeys(("backbone", "task", "fit", "trial", "code", "loading"), TEXT),
    **dict.fromkeys(("image_size", "channels", "epoch"), WHOLE),
    "params": {"*": SCALAR},
    "classes": [TEXT],
    "thresholds": {"*": NUMBER},
    "mean": [NUMBER],
    "std": [NUMBER],
    "starting_weights": {"origin": TEXT, "sha256": TEXT, "url": TEXT},
    "files": {"*": {"sha256": TEXT, "bytes": WHOLE}},
    "onnx_difference": NUMBER,
}
TEST_ACCESS: Mapping[str, Any] = {"opened": TEXT, "winner": TEXT, "finalists": [TEXT], "images": WHOLE}


def fitting(value: Mapping[str, Any], shape: Mapping[str, Any], name: str, problems: list[str]) -> dict[str, Any]:
    """``value`` without what does not fit ``shape``, each said in ``problems`` as of the file ``name``."""
    kept = _fit(dict(value), shape, name, problems)
    assert isinstance(kept, dict)
    return kept


_MISFIT = object()


def _fit(value: Any, shape: Any, place: str, problems: list[str]) -> Any:
    """``value`` or what of it fits; ``_MISFIT``, with the reason in ``problems``, if nothing does."""
    if value is None or shape is None:
        return value
    if isinstance(shape, Mapping) and isinstance(value, dict):
        found = {
            key: _fit(one, shape.get(key, shape.get("*")), f"{place}: {key}", problems) for key, one in value.items()
        }
        every = "*" in shape  # of a mapping of any names, what is None is left out as well
        return {key: one for key, one in found.items() if one is not _MISFIT and not (every and _lost(one, shape))}
    if isinstance(shape, list) and isinstance(value, list):
        parts = [_fit(one, shape[0], f"{place}[{at}]", problems) for at, one in enumerate(value)]
        if isinstance(shape[0], Mapping):
            return [one for one in parts if isinstance(one, dict)]
        lost = shape[0] is not None and any(one is _MISFIT or one is None for one in parts)
        return _MISFIT if lost else parts
    if isinstance(shape, str) and _is(value, shape):
        return value
    wanted = shape if isinstance(shape, str) else "a list" if isinstance(shape, list) else "an object"
    problems.append(f"{place} is not {wanted}: left out")
    return _MISFIT


def _lost(value: Any, shape: Mapping[str, Any]) -> bool:
    return value is None and shape["*"] not in (None, SCALAR)


def _is(value: Any, shape: str) -> bool:
    flag, text = isinstance(value, bool), isinstance(value, str)
    number = isinstance(value, int | float) and not flag and abs(value) <= sys.float_info.max
    fits = {
        TEXT: text,
        FLAG: flag,
        NUMBER: number,
        WHOLE: number and value >= 0 and value == int(value),
        SCALAR: text or flag or number,
    }
    return fits[shape]
