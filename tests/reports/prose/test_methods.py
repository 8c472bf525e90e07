"""The methods paragraphs: what the records say, in the past tense, and nothing that they do not."""

from __future__ import annotations

import json

import pytest
from searched_run import write_searched

from reports.data import gather
from reports.page.blocks import Heading, Note, Table, Text
from reports.prose import methods
from reports.prose.references import REFERENCES, Citations, of_backbone
from search_spaces.params import BACKBONE_NAMES
from sweep.run_folder import RunPaths


def paragraphs(root):
    """By heading, the first text below it."""
    blocks = methods.section(gather(root)).blocks
    found = {}
    for place, block in enumerate(blocks[:-1]):
        if isinstance(block, Heading) and isinstance(blocks[place + 1], Text):
            found.setdefault(block.text, blocks[place + 1].text)
    return found


def references(root):
    texts = [block.text for block in methods.section(gather(root)).blocks if isinstance(block, Text)]
    return [text for text in texts if text in {full for _, full in REFERENCES.values()}]


def test_the_data_paragraph_names_counts_splits_patients_and_preprocessing(write_run):
    text = paragraphs(write_run())["Data"]
    assert "1,123 images of 3 classes (covid, normal and pneumonia)" in text
    assert "785 for training, 169 for validation and 169 for testing" in text
    assert "722 groups (column “patient_id”, the patient), none of them in two splits." in text
    assert "squashed to 224 x 224 pixels" in text
    assert "[name the data set and cite it]" in text


def test_unknown_patients_and_allowed_leaks_are_part_of_the_methods(write_run):
    text = paragraphs(write_run(dataset={"groups": None, "caveats": ["3 images are in two splits"]}))["Data"]
    assert "Which images are of one patient was not known" in text
    assert "To be known: 3 images are in two splits." in text


def test_the_demo_set_is_called_phantoms(write_run):
    assert "phantoms drawn by a program" in paragraphs(write_run(dataset={"demo": True}))["Data"]


def test_the_search_paragraph_cites_what_ran_and_only_that(write_run):
    root = write_run()
    text = paragraphs(root)["Search"]
    assert "Optuna (Akiba et al., 2019)" in text
    assert "(Bergstra et al., 2011)" in text
    assert "Ray Tune (Liaw et al., 2018): 6 trials" in text
    assert "successive halving (Li et al., 2020) after no fewer than 3 epochs, with a reduction factor of 3" in text
    assert "3 ran to their end, 2 were stopped early, 1 failed and 0 had no end" in text
    full = " ".join(references(root))
    assert "Tune: a research platform" in full
    assert "Decoupled weight decay" not in full
    assert "Random search" not in full


@pytest.mark.parametrize(
    ("sweep", "words", "absent"),
    [
        ({"scheduler": "none"}, "No trial was stopped early", "halving"),
        ({"scheduler": "median"}, "median rule (Golovin et al., 2017)", "halving"),
        ({"sampler": "random"}, "random search (Bergstra & Bengio, 2012)", "Parzen"),
        ({"space": "studies.bscs17028"}, "configurations of the study bscs17028", "Optuna"),
        ({"patience": 4}, "ended after 4 epochs without a better score", "median"),
    ],
)
def test_the_search_paragraph_follows_the_settings(write_run, sweep, words, absent):
    text = paragraphs(write_run(sweep=sweep))["Search"]
    assert words in text
    assert absent not in text


def test_without_finalists_it_is_said_that_nothing_was_repeated_or_opened(write_run):
    found = paragraphs(write_run())
    assert "the test split was not opened" in found["Selection and final evaluation"]
    assert "Holm" not in found["Statistics"]


def test_with_finalists_rule_times_and_openings_are_told(write_run):
    found = paragraphs(write_run(finals={"opened": 2, "compare": (2,)}, sweep={"compare": ["backbone"]}))
    text = found["Selection and final evaluation"]
    assert "The 3 best configurations by validation macro F1 were trained again 3 times with fresh seeds." in text
    assert "the best of each combination of backbone (1 more)" in text
    assert "fixed on 2026-01-05 11:20 UTC, before the test split was opened (2026-01-05 11:20 UTC)" in text
    assert "The test split was opened 2 times." in text
    assert "Holm's method (Holm, 1979)" in found["Statistics"]


@pytest.mark.parametrize(
    ("finals", "dataset", "words"),
    [
        ({"selected": False, "opened": 0}, {}, "No winner had been decided."),
        ({"opened": 0}, {}, "The test split was not opened."),
        ({"opened": 0}, {"images": {"train": 785, "val": 169, "test": 0}}, "There was no test split."),
    ],
)
def test_what_has_not_happened_yet_is_not_claimed(write_run, finals, dataset, words):
    text = paragraphs(write_run(finals=finals, dataset=dataset))["Selection and final evaluation"]
    assert words in text
    assert "opened once" not in text


def test_a_sweep_that_goes_on_is_marked(write_run):
    blocks = methods.section(gather(write_run(statuses=("running",)))).blocks
    assert any(isinstance(block, Note) and "has not ended" in block.text for block in blocks)


def test_missing_files_are_told(write_run):
    root = write_run(trials=0)
    RunPaths(root).dataset.unlink()
    RunPaths(root).provenance.unlink()
    found = paragraphs(root)
    assert "The data set is not recorded" in found["Data"]
    assert "not recorded" in found["Software and hardware"]
    assert "No trial had begun" in found["Networks and training"]


def test_losses_and_optimisers_in_use_are_cited(tmp_path):
    root = write_searched(tmp_path / "run", lambda params, epoch: 0.5 + params.dropout, trials=12, epochs=2)
    full = " ".join(references(root))
    assert "Focal loss" in full
    assert "Decoupled weight decay" in full
    assert "Very deep convolutional networks" in full


def test_weights_of_a_folder_are_not_called_imagenets(write_run):
    text = paragraphs(write_run())["Networks and training"]
    assert "[name their source]" in text
    weights = json.loads(RunPaths(write_run("other")).provenance.read_text())["weights"]
    weights = dict.fromkeys(("mobilenet_v2", "resnet18", "squeezenet1_1"), weights["mobilenet_v2"])
    text = paragraphs(write_run("third", provenance={"weights": weights}))["Networks and training"]
    assert "pretrained on ImageNet (Deng et al., 2009)" in text


def test_the_search_space_is_a_table_of_what_was_offered(tmp_path):
    root = write_searched(tmp_path / "run", lambda params, epoch: 0.5 + params.dropout, trials=16, epochs=2)
    table = next(b for b in methods.section(gather(root)).blocks if isinstance(b, Table) and b.name == "search_space")
    rows = table.frame.set_index("parameter")
    assert rows.loc["learning rate (sgd)", "values"] == "1e-05 to 0.1"
    assert rows.loc["learning rate (sgd)", "scale"] == "logarithmic"
    assert rows.loc["optimizer", "values"] == "sgd, adamw"
    assert rows.loc["unfrozen blocks", "scale"] == "whole numbers"


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_every_backbone_has_a_paper(name):
    assert of_backbone(name) in REFERENCES


def test_citations_are_collected_once():
    cite = Citations()
    assert cite("optuna", "tune") == "(Akiba et al., 2019; Liaw et al., 2018)"
    cite("optuna")
    assert len(cite.full) == 2
