"""From what a space suggested to ``TrialParams``: whose value a name is, and who wins where two give one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from search_spaces.errors import UserError, raise_all, unknown
from search_spaces.params import Scalar, SpaceContext, TrialParams, parse_text

FIELDS = tuple(field.name for field in dataclasses.fields(TrialParams))


def resolve(
    suggested: Mapping[str, Scalar],
    constants: Mapping[str, Scalar],
    overrides: Mapping[str, Scalar] | None = None,
) -> TrialParams:
    """One trial's parameters from what was suggested, what the space returned, and what the user fixed.

    suggested: a field of ``TrialParams``, or ``<field>.<branch>``, to its value. constants: fields to values; naming
    a suggested field again is fine if the value is the same. overrides: fields to values; they win over both.
    An override of ``unfreeze_layers`` takes the place of ``unfreeze_depth``, and the other way round; layers without
    a depth need no ``unfreeze_depth=None`` beside them.
    Unknown names and two different values for one field raise ``UserError``, all of them together.
    """
    flat: dict[str, Scalar] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    named = [(name, "suggested as", value) for name, value in suggested.items()]
    named += [(name, "returned as", value) for name, value in constants.items()]
    for name, how, value in named:
        field = name.partition(".")[0] if how == "suggested as" else name
        if field not in FIELDS:
            problems.append(unknown("hyperparameter", name, FIELDS))
            continue
        source = f"{how} {name}={value!r}"
        if field in flat and (flat[field] != value or (how == "suggested as")):
            problems.append(f"two values for {field}: {sources[field]} and {source}; a trial takes one")
        flat[field], sources[field] = value, source
    raise_all(problems)
    fixed = overrides or {}
    flat.update(fixed)
    if "unfreeze_depth" not in fixed and _names_layers(fixed):
        flat["unfreeze_depth"] = None
    elif "unfreeze_depth" in fixed and "unfreeze_layers" not in fixed:
        flat["unfreeze_layers"] = "none"
    elif "unfreeze_depth" not in flat and _names_layers(flat):  # the field's default is a depth, 0
        flat["unfreeze_depth"] = None
    return TrialParams.from_flat(flat)


def _names_layers(values: Mapping[str, Scalar]) -> bool:
    return values.get("unfreeze_layers") not in (None, "", "none")


def field_of(name: str) -> str:
    """The field of ``TrialParams`` that ``lr`` or ``lr.sgd`` gives a value to; ``UserError`` if there is none."""
    field = name.partition(".")[0]
    if field not in FIELDS:
        raise UserError(
            f"{unknown('hyperparameter', name, FIELDS)} (a conditional value is named <hyperparameter>.<branch>)"
        )
    return field


def checked_overrides(overrides: Mapping[str, object]) -> dict[str, Scalar]:
    """``--set`` values with the type of their field: text is read, a number kept; ``UserError`` with all problems."""
    values: dict[str, Scalar] = {}
    problems: list[str] = []
    for field, value in overrides.items():
        try:
            values[field] = parse_text(field, value)  # type: ignore[arg-type]  # reads numbers and None, too
        except UserError as error:
            problems += [f"--set {field}={value}: {problem}" for problem in error.problems]
    raise_all(problems)
    return values


def fitting_overrides(overrides: Mapping[str, Scalar], context: SpaceContext) -> tuple[dict[str, Scalar], list[str]]:
    """The ``--set`` values that can run on the data and weights of ``context``, and a sentence for each other one."""
    fits: dict[str, Scalar] = {"backbone": context.backbones[0], "loss": "bce", "batch_size": 1}
    problems: list[str] = []
    fitting = dict(overrides)
    for field in (name for name in fits if name in overrides):
        told = misfits(TrialParams.from_flat(fits | {field: overrides[field]}), context)
        problems += [f"--set {field}={overrides[field]}: {problem}" for problem in told]
        if told:
            del fitting[field]
    return fitting, problems


def misfits(params: TrialParams, context: SpaceContext) -> list[str]:
    """Why ``params`` cannot run on the data and weights of ``context``, one sentence each; empty if it can."""
    found = []
    if context.task == "multi_label" and params.loss == "cross_entropy":
        found.append("loss cross_entropy cannot train a multi-label task: give bce or focal")
    if params.batch_size > context.train_count:
        found.append(f"batch_size {params.batch_size} is above the {context.train_count} images of the training split")
    if params.backbone not in context.backbones:
        found.append(f"backbone {params.backbone} is not among those of this sweep: {', '.join(context.backbones)}")
    return found
