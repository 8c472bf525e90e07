"""The model to use: ``models/`` of a run folder, made of the winner's weights; also ``python -m sweep.model RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from search_spaces.errors import UserError, raise_all
from sweep.cli import Arguments, build_page, path
from sweep.endings import leave_with, run_command, tell
from sweep.records import Run, read_run
from sweep.run_folder import ModelPaths, TrialPaths
from trainables.atomic import FORMAT, disk_error, sha256_of, write_json
from trainables.export import ModelFacts, plain_network, restore, torchvision_lines, write_model, write_onnx
from trainables.metrics import UNTUNED, OperatingPoint
from trainables.weights import FoundWeights, find_weights


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The trial, or the repeat of a finalist, whose weights become the model. thresholds: by class, or None;
    operating_point: the source of one of them, or None."""

    trial: str
    files: TrialPaths
    seed: int | None = None
    thresholds: dict[str, float] | None = None
    operating_point: OperatingPoint | None = None


def write_models(run: Run) -> list[str]:
    """Write ``best.pt``, ``best.onnx`` and, last, ``best.json`` (the facts of both as JSON, readable without torch).

    Returns what failed, one sentence each: a sweep does not fail because its model cannot be exported. An earlier model
    stays if there is no new one.
    """
    files = ModelPaths(run.paths.models)
    try:
        chosen = choose(run)
        if not chosen.files.weights.is_file():
            raise UserError(f"the weights of {chosen.trial} are not on disk ({chosen.files.weights})")
        return _write(run, chosen, files)
    except UserError as error:
        return [f"{files.model} was not written: {problem}" for problem in error.problems]
    except OSError as error:
        if disk_error(error):
            raise
        return [f"{error.filename or files.root} was not written: {error.strerror}"]


def renew_models(run: Run) -> list[str]:
    """``write_models``, unless the present model has the same weights, thresholds and operating point, and its files
    are intact."""
    files = ModelPaths(run.paths.models)
    try:
        chosen, before = choose(run), run.model
        tuned = _tuned(chosen, run.dataset.task, run.dataset.classes)
        made = chosen.trial, sha256_of(chosen.files.weights), tuned, chosen.operating_point
        if before and (before.trial, before.weights_sha256, before.thresholds, before.operating_point) == made:
            written = {name: one.sha256 for name, one in before.files.items()}
            if written == {one.name: sha256_of(one) for one in (files.model, files.onnx)}:
                return []
    except (UserError, OSError):
        pass  # no trial, no model yet, or a damaged one: ``write_models`` reports what is wrong
    return write_models(run)


def choose(run: Run) -> Chosen:
    """The repeat that the selection names; without a selection the best trial. ``UserError`` if there is none."""
    finals = run.finals
    if finals is not None and finals.model is not None:
        repeats = (repeat for one in finals.finalists for repeat in one.repeats)
        return Chosen(
            trial=finals.model,
            files=run.paths.trial(finals.model),
            seed=next((repeat.seed for repeat in repeats if repeat.trial_id == finals.model), None),
            thresholds=finals.thresholds_of(finals.winner),
            operating_point=finals.operating_point,
        )
    if run.best is None:
        raise UserError(f"no trial of {run.paths.root} has a score: there is no model to write")
    return Chosen(trial=run.best.trial_id, files=run.paths.trial(run.best.trial_id))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, or 2 if a file could not be made."""
    return run_command(_run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = Arguments(
        "sweep.model",
        "Create models/best.pt and best.onnx of a run, with the report and the model card, as a sweep does at its end: "
        "for a run that was killed before, or whose starting weights were missing.",
        "exit codes: 0 done   2 bad input, or a file could not be written",
    )
    parser.add_argument("run", type=path, metavar="RUN", help="a run folder: <storage>/<name> of a sweep")
    asked, wrong = parser.read(argv)
    raise_all(wrong)
    run = read_run(asked.run)
    files, problems = ModelPaths(run.paths.models), write_models(run)
    if files.model.exists() and not files.card.exists():  # the report writes the card, and says that there is a model
        _, problem = build_page("reports.build", run.paths.root)
        problems += [f"the report could not be written: {problem}"] if problem is not None else []
    tell(problems)
    for made in (files.model, files.onnx):
        if made.exists() and not any(str(made) in problem for problem in problems):
            print(made)
    return 2 if problems else 0


def _write(run: Run, chosen: Chosen, files: ModelPaths) -> list[str]:
    model, found, content = restore(chosen.files.weights, lambda backbone: _starting_weights(run, backbone))
    facts = _facts(run, chosen, content, found)
    network = plain_network(model)
    files.root.mkdir(exist_ok=True)
    for old in (files.facts, files.onnx, files.card):  # of an earlier model: they must not stand beside this one
        old.unlink(missing_ok=True)
    write_model(files.model, network, facts)
    difference, problems = _write_onnx(files.onnx, network, facts)
    made = [one for one in (files.model, files.onnx) if one.exists()]
    described = {
        "format": FORMAT,
        **facts.to_dict(),
        "weights_sha256": sha256_of(chosen.files.weights),
        "starting_weights": {name: getattr(found, name) for name in ("origin", "sha256", "url", "range")},
        "files": {one.name: {"sha256": sha256_of(one), "bytes": one.stat().st_size} for one in made},
        "onnx_difference": difference,
        "loading": torchvision_lines(facts),
    }
    write_json(files.facts, described)
    return problems


def _facts(run: Run, chosen: Chosen, content: dict[str, Any], found: FoundWeights) -> ModelFacts:
    if run.dataset.fit is None:
        raise UserError(f"{run.paths.dataset} is missing or damaged: how images are made square is unknown: restore it")
    classes = tuple(content["classes"])
    return ModelFacts(
        **{name: content[name] for name in ("params", "task", "image_size", "channels", "epoch")},
        backbone=content["params"]["backbone"],
        classes=classes,
        fit=run.dataset.fit,
        thresholds=_tuned(chosen, content["task"], classes),
        trial=chosen.trial,
        seed=chosen.seed,
        code=run.provenance.commit,
        mean=found.scale.mean,
        std=found.scale.std,
        ordered=run.dataset.ordered,
        operating_point=chosen.operating_point,
        preprocessing=content.get("preprocessing"),  # which files of earlier versions lack
    )


def _tuned(chosen: Chosen, task: str, classes: Sequence[str]) -> dict[str, float] | None:
    """The thresholds by class, for every class of a multi-label model; None if there are none."""
    tuned = {name: value for name, value in (chosen.thresholds or {}).items() if name in classes}
    if task == "multi_label":
        tuned = {name: float(tuned.get(name, UNTUNED)) for name in classes}
    return tuned or None


def _starting_weights(run: Run, backbone: str) -> FoundWeights:
    """The file that the sweep recorded; if it is gone, what the sweep's --weights finds now."""
    recorded = run.provenance.weights.get(backbone)
    if recorded is not None and (recorded.origin in ("imagenet", "random") or Path(str(recorded.path)).is_file()):
        return FoundWeights(backbone=backbone, **dict(recorded) | {"note": recorded.note or ""})
    found, missing = find_weights(str(run.sweep.weights), [backbone], download=True)
    if backbone not in found:
        raise UserError(missing[backbone])
    return found[backbone]


def _write_onnx(path: Path, network: nn.Module, facts: ModelFacts) -> tuple[float | None, list[str]]:
    """The largest difference from torch, if it was measured, and what went wrong."""
    try:
        return write_onnx(path, network, facts), []
    except ImportError as error:
        return None, [f"{path} was not written: {error.name} is not installed (pip install -U onnx onnxscript)"]
    except Exception as error:  # the exporter is large and changes often, and the model is usable without it
        if disk_error(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return None, [f"{path} was not written: {reason}"]


if __name__ == "__main__":
    leave_with(main)
