"""Which rows of a study this sweep can run, and why not the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from search_spaces.errors import UserError, raise_all, unknown
from search_spaces.params import Scalar, SpaceContext, TrialParams
from search_spaces.resolve import misfits, resolve
from search_spaces.studies.row import StudyRow


def runnable_rows(
    name: str,
    rows: Sequence[StudyRow],
    context: SpaceContext,
    overrides: Mapping[str, Scalar],
    asked: Sequence[str] = (),
) -> tuple[tuple[StudyRow, ...], dict[str, str]]:
    """The rows that fit ``context``, with ``overrides`` in their parameters, and the reason for each row left out.

    asked: ids of the rows that are wanted, () = all. ``UserError`` if the study has no row for the task, none that can
    run, not one that was asked for or that it cannot run, or an override that a row cannot take.
    """
    ids = [row.id for row in rows]
    raise_all([f"--rows: {unknown('row', one, ids)}" for one in dict.fromkeys(asked) if one not in ids])
    chosen: list[StudyRow] = []
    left_out: dict[str, str] = {}
    problems: list[str] = []
    for row in rows:
        if asked and row.id not in asked:
            left_out[row.id] = "not among --rows"
        elif row.params is None:
            left_out[row.id] = row.reason
        elif row.task != context.task:
            left_out[row.id] = f"a {row.task} trial, and the task is {context.task}"
        else:
            try:
                params = _with(row.params, overrides)
            except UserError as error:
                problems += [f"{name} {row.id}: {problem}" for problem in error.problems]
                continue
            if reasons := misfits(params, context):
                left_out[row.id] = "; ".join(reasons)
            else:
                chosen.append(dataclasses.replace(row, params=params))
    problems += [
        f"--rows {one}: {name} cannot run it here: {left_out[one]}" for one in dict.fromkeys(asked) if one in left_out
    ]
    raise_all(problems)
    if not chosen:
        own = [row for row in rows if row.params is not None and row.task == context.task]
        if not own:
            others = {row.task for row in rows if row.params is not None}
            raise UserError(f"{name} has no {context.task} trial: all it has are {' and '.join(sorted(others))}")
        rows_of: dict[str, list[str]] = {}
        for row in own:
            rows_of.setdefault(left_out[row.id], []).append(row.id)
        raise UserError(*(f"{name} cannot run here: {why} ({', '.join(ids)})" for why, ids in rows_of.items()))
    return tuple(chosen), left_out


def _with(params: TrialParams, overrides: Mapping[str, Scalar]) -> TrialParams:
    return resolve({}, params.to_flat(), overrides) if overrides else params
