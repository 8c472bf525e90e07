"""The networks of a sweep: which backbones may be tried, with which weights, and which of their layers can train."""

from __future__ import annotations

from search_spaces.errors import UserError, raise_all
from search_spaces.params import BACKBONE_NAMES, TrialParams
from search_spaces.space import RANDOM_TRIALS, Space, random_study
from sweep.config import SweepConfig
from trainables.backbones import BACKBONES
from trainables.data.config import LEAST_IMAGE_SIZE
from trainables.finetune import model_problems
from trainables.weights import FoundWeights, check_weights, find_weights

DEMO_BACKBONES = ("squeezenet1_0", "squeezenet1_1", "mobilenet_v2")
"""Those that learn the demo set from random weights within its few epochs on two cores."""


def asked_backbones(config: SweepConfig) -> tuple[tuple[str, ...], bool]:
    """The backbones to look for, and whether the user wants exactly these; unknown names are left to ``check``."""
    if config.backbones is not None:
        return tuple(name for name in config.backbones if name in BACKBONES), True
    if "backbone" in config.set:
        return (str(config.set["backbone"]),), True
    if config.data == "demo" and not config.space.startswith("studies."):
        return DEMO_BACKBONES, False
    return BACKBONE_NAMES, False


def checked_weights(config: SweepConfig) -> tuple[dict[str, FoundWeights], dict[str, str]]:
    """The weights of each backbone that can run, and for the others why not; exactly those asked for, if they were.

    Raises ``UserError`` with what is wrong with the weights found, with those asked for and missing, and if none is
    left.
    """
    names, exactly = asked_backbones(config)
    size = config.image_size
    assert size is not None
    small = {
        name: f"--image-size {size}: {name} needs images of at least {BACKBONES[name].min_image_size} px"
        for name in names
        if LEAST_IMAGE_SIZE <= size < BACKBONES[name].min_image_size
    }
    found, missing = find_weights(str(config.weights), [name for name in names if name not in small], download=True)
    left_out = small | missing
    problems = list(left_out.values()) if exactly else []
    checked = {}
    for name, weights in found.items():
        try:
            checked[name] = check_weights(weights)
        except UserError as error:
            problems.extend(error.problems)
    if left_out and not checked and not problems:
        first, *others = left_out
        problems = [f"{left_out[first]} (likewise {', '.join(others)}: no backbone is left)"]
    raise_all(problems)
    return checked, left_out


def layer_problems(space: Space, image_size: int) -> list[str]:
    """Why networks that ``space`` asks for by ``unfreeze_layers`` cannot be built, one sentence each.

    A searched space is known by random trials alone: what they miss fails in its trial.
    """
    asked = {(params.backbone, params.unfreeze_layers): params for params in _trials(space) if params.unfreeze_layers}
    found = [problem for params in asked.values() for problem in model_problems(params, image_size)]
    origin = "--set" if "unfreeze_layers" in space.overrides else space.name
    return [f"{origin}: {problem}" for problem in dict.fromkeys(found)]


def _trials(space: Space) -> list[TrialParams]:
    if space.fixed is not None:
        return list(space.fixed)
    with random_study() as study:
        return [space.suggest(study.ask()) for _ in range(RANDOM_TRIALS)]
