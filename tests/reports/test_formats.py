"""Numbers and names as the page shows them."""

from __future__ import annotations

import html
import math
import re

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from reports import formats
from reports.chapters.methods import WORDS
from reports.drawing import short
from search_spaces.params import AUGMENTS, LOSSES, OPTIMIZERS, TrialParams
from sweep.records import SweepRecord

HOSTILE = ["![x](http://e/x.png)", "[a](javascript:x)", "# h", "1. x", "2) x", "- x", "+ x", "> x", "~~~", "```", "|",
           "a`b`", "*b*", "_b_", "a\n\nb",
           "</td><script>", "a\nb", "    code", "---", "===", "<http://e>", "&lt;", "\\"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("before", ["", "- ", "> ", "words\n", "| a |\n|---|\n| "])
def test_an_escaped_text_shows_as_it_is_wherever_it_stands(text, before):
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

    def tags_and_text(content: str) -> tuple[list[str], str]:
        page = parser.render(before + content)
        return re.findall("<[^>]*>", page), html.unescape(re.sub("<[^>]*>", "", page)).strip()

    tags, shown = tags_and_text(formats.escape(text))
    plain, placed = tags_and_text("@")
    assert tags == plain
    assert shown == placed.replace("@", " ".join(text.split()))


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("score", 0.8934, "0.893"),
        ("score", math.nan, "–"),
        ("integer", None, "–"),
        ("integer", pd.NA, "–"),
        ("integer", 1123.0, "1,123"),
        ("si", 513, "513"),
        ("si", 1539, "1.54 k"),
        ("si", 999_960, "1.00 M"),
        ("si", 11_178_051, "11.2 M"),
        ("si", 134_000_000, "134 M"),
        ("duration", 3.21, "3.2 s"),
        ("duration", 59.6, "1 min 00 s"),
        ("duration", 200, "3 min 20 s"),
        ("duration", 3599.7, "1 h 00 min"),
        ("duration", 4000, "1 h 07 min"),
        ("duration", 100_000, "1 d 4 h"),
        ("percent", 0.125, "12 %"),
        ("general", 0.00123456, "0.00123"),
        ("general", 32.0, "32"),
        ("general", "none", "none"),
    ],
)
def test_a_number_is_shown_with_sensible_digits(kind, value, shown):
    assert formats.show(kind, value) == shown


def test_a_configuration_is_told_in_words():
    params = TrialParams(
        backbone="resnet18", unfreeze_depth=2, head_widths=(512, 128), dropout=0.3, lr=0.01, backbone_lr_factor=0.1,
        loss="focal", focal_gamma=2.0, focal_alpha=0.25, augment="flip",
    )  # fmt: skip
    words = dict(formats.in_words(params))
    assert words["Trained"] == "the new head and the last 2 blocks of four"
    assert words["Head"] == "hidden layers of 512 and 128 units, then a linear layer, dropout 0.3"
    assert words["Optimiser"] == "SGD, momentum 0.9, learning rate 0.01 for the head, 0.001 for the backbone, constant"
    assert words["Loss"] == "focal loss, gamma 2, alpha 0.25"


def test_the_hyperparameters_of_a_row_come_back_exactly():
    params = TrialParams(backbone="vgg16", unfreeze_depth=None, unfreeze_layers=("features.10",), lr=1 / 3)
    row = {f"param_{key}": value for key, value in params.to_flat().items()} | {"score": 0.5}
    row["param_unfreeze_depth"] = math.nan  # as a table of floats holds None
    assert formats.trial_params(row) == params
    assert formats.trial_params(row | {"param_backbone": "resnet99"}) is None


def test_a_row_of_a_study_is_trained_again_for_its_own_epochs_and_without_the_list():
    rows = ({"id": "A2", "number": 1, "epochs": 30},)
    given = ["--space", "studies.msds19058", "--rows", "A1,A2", "--sampler", "grid", "--weights", "w"]
    sweep = SweepRecord.model_validate({"command": given, "epochs": 7, "own_epochs": True, "study_rows": rows})
    params = TrialParams(backbone="vgg16")
    assert "--rows" not in formats.again(sweep, params, "run", 1)
    assert "--epochs 30" in formats.again(sweep, params, "run", 1)
    assert "--epochs 7" in formats.again(sweep, params, "run", 0)


def test_what_a_resumed_sweep_was_asked_anew_is_part_of_its_command():
    later = ["--resume", "my run", "--trials", "200"]
    told = formats.sweep_command(SweepRecord(command=("--name", "my run"), resumed=(tuple(later),)))
    assert told.splitlines() == [
        "python -m sweep.run --name 'my run'",
        "python -m sweep.run --resume 'my run' --trials 200",
    ]


def test_the_command_to_train_again_names_layers_in_place_of_a_depth():
    params = TrialParams(backbone="vgg16", unfreeze_depth=None, unfreeze_layers=("features.10", "features.12"))
    given = ["--data", "demo", "--trials=40", "--set", "lr=0.1", "--space", "studies.msds19058", "--seed", "5"]
    command = formats.again(SweepRecord(command=tuple(given), epochs=7), params, "my run", 0)
    start = (
        "python -m sweep.run --data demo --seed 5 --space partial_unfreeze --name 'my run-again' --trials 1 --epochs 7"
    )
    assert command.startswith(f"{start} --set")
    assert command.count("lr=") == 1
    assert "--set unfreeze_layers=features.10+features.12" in command
    assert "unfreeze_depth" not in command
    assert "focal" not in command


def test_the_command_to_train_again_names_every_network_that_weights_has_a_file_of():
    """Alone, --set backbone=vgg16 leaves the others out, and a file of a network that is not tried is refused."""
    weights = "imagenet,resnet18=a.pt,vgg16=b.pt,range=0:1"
    given = tuple(f"--weights={one}" for one in ("imagenet", "resnet18=a.pt", "vgg16=b.pt,range=0:1"))
    params = TrialParams(backbone="vgg16")
    command = formats.again(SweepRecord(command=given, weights=weights), params, "run", 0)
    assert "--backbones vgg16,resnet18 " in command
    alone = SweepRecord(command=given[:1] + given[2:], weights="imagenet,vgg16=b.pt,range=0:1")
    assert "--backbones" not in formats.again(alone, params, "run", 0)


def test_metrics_have_names_that_a_reader_knows():
    assert formats.metric_name("val_f1_macro") == "validation macro F1"
    assert formats.metric_name("val_recall:covid") == "validation recall of class covid"


def test_long_names_keep_both_ends_in_a_figure_and_lose_what_xml_cannot_hold():
    assert short("pneumonia", 18) == "pneumonia"
    assert short("a very long class name 7", 12) == "a very…ame 7"
    assert short("a\x00b\ud800") == "a?b?"


def test_the_time_between_two_moments_is_told_and_a_missing_end_too():
    assert formats.elapsed("2026-01-05T10:00:00+00:00", "2026-01-05T11:23:20+00:00") == "1 h 23 min"
    assert formats.elapsed("2026-01-05T10:00:00+00:00", None) == "no end recorded"
    assert formats.elapsed(None, "today") == "no end recorded"


@pytest.mark.parametrize(
    ("known", "here", "in_methods"),
    [
        (LOSSES, formats.LOSSES, WORDS["loss"]),
        (OPTIMIZERS, formats.OPTIMIZERS, WORDS["optimizer"]),
        ([one for one in AUGMENTS if one != "none"], formats.AUGMENTATIONS, WORDS["augment"]),
    ],
    ids=["loss", "optimizer", "augment"],
)
def test_every_value_of_a_hyperparameter_has_a_name_on_the_page_and_in_the_methods(known, here, in_methods):
    assert set(known) == set(here) == set(in_methods)
