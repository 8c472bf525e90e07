"""Methods, limits and checklists: what the records say, in the past tense, and nothing that they do not."""

from __future__ import annotations

import json
import re

import pytest
from in_chapter import notes, results_of, tables, texts
from searched_run import write_searched

from reports.build import CHAPTERS
from reports.caveats import caveats
from reports.chapters.checklists import ANSWERED, checklists
from reports.chapters.methods import chapter
from reports.chapters.references import REFERENCES, cite, full_references, of_backbone
from search_spaces.params import BACKBONE_NAMES
from sweep.run_folder import RunPaths


def paragraphs(root):
    """By heading, the text below it."""
    parts = re.split(r"^### (.+)$", texts(chapter(results_of(root))), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_data_paragraph_names_counts_splits_patients_and_preprocessing(write_run):
    text = paragraphs(write_run())["Data"]
    assert "1,123 images of 3 classes (covid, normal and pneumonia)" in text
    assert "785 for training, 169 for validation and 169 for testing" in text
    assert re.search(r"722 patients \(from “patient\\_id”\), none in two splits\.", text)
    assert "stretched to 224 x 224 pixels" in text
    assert "[name the data set and cite it]" in text


def test_files_left_out_are_counted_as_the_data_chapter_lists_them(write_run):
    assert "No images were excluded." in paragraphs(write_run())["Data"]
    left_out = [{"why": "unreadable", "count": 2, "examples": ["a.png"]}, {"why": "masks", "count": 1300}]
    text = paragraphs(write_run("some", dataset={"left_out": left_out}))["Data"]
    assert "1,302 images or rows were excluded: 2 (unreadable) and 1,300 (masks)." in text
    many = [{"why": f"reason {place}", "count": 10} for place in range(9)]
    text = paragraphs(write_run("many", dataset={"left_out": many}))["Data"]
    assert "90 images or rows were excluded (see Data)." in text
    torn = {"dropped": [{"path": "a.png", "reason": "empty"}]}
    text = paragraphs(write_run("torn", dataset=torn))["Data"]
    assert "1 image or row was excluded: 1 (unreadable: empty)." in text


def test_presets_missing_labels_and_equal_images_are_part_of_the_methods(write_run):
    dataset = {"preset": "chexpert", "missing": {"train": {"covid": 1200}, "val": {"covid": 34}}}
    text = paragraphs(write_run(dataset=dataset | {"split_origin": "seeded"}))["Data"]
    assert "read by the preset “chexpert”" in text
    assert "1,234 were missing" in text
    assert "equal images kept together" in text
    plain = paragraphs(write_run("plain"))["Data"]
    assert not any(words in plain for words in ("preset", "missing", "equal images"))


def test_unknown_patients_and_allowed_leaks_are_part_of_the_methods(write_run):
    found = paragraphs(write_run(dataset={"groups": None, "caveats": ["3 images are in two splits"]}))
    assert "Patients were not known, so a patient may be in two splits." in found["Data"]
    assert "3 images are in two splits" in found["Limits"]


def test_the_limits_hold_every_caveat_in_full(write_run):
    results = results_of(write_run(finals={"opened": 2}, statuses=("failed", "completed")))
    assert caveats(results)
    for caveat in caveats(results):
        assert caveat.text.replace("_", r"\_").split(".")[0] in texts(chapter(results))


def test_the_demo_set_is_called_phantoms(write_run):
    assert "phantoms drawn by a program" in paragraphs(write_run(dataset={"demo": True}))["Data"]


def test_the_search_paragraph_cites_what_ran_and_only_that(write_run):
    root = write_run()
    text = paragraphs(root)["Search"]
    assert "Optuna (Akiba et al., 2019)" in text
    assert "(Bergstra et al., 2011)" in text
    assert "Ray Tune (Liaw et al., 2018) ran 6 trials" in text
    assert "successive halving (Li et al., 2020) after at least 3 epochs, with a reduction factor of 3" in text
    assert "3 completed, 2 were pruned, 1 failed and 0 were unfinished" in text
    full = texts(chapter(results_of(root)))
    assert "Tune: a research platform" in full
    assert "Decoupled weight decay" not in full
    assert "Random search" not in full


def test_a_warm_start_names_the_run_and_the_trials_that_it_began_with(write_run):
    root = write_run(sweep={"warm_start": "/runs/first_try/"})
    saved = json.loads(RunPaths(root).sweep.read_text())
    assert "first_try" not in paragraphs(root)["Search"], "none of its trials was tried"
    trials = [{"trial_id": name, "score": 0.9, "point": {"lr": 0.01}} for name in ("t0007", "t0002")]
    RunPaths(root).sweep.write_text(json.dumps(saved | {"warm_trials": trials}))
    text = paragraphs(root)["Search"]
    assert r"earlier sweep, “first\_try” (t0007 and t0002)" in text


@pytest.mark.parametrize(
    ("sweep", "words", "absent"),
    [
        ({"scheduler": "none"}, "No trial was stopped early", "halving"),
        ({"scheduler": "median"}, "median rule (Golovin et al., 2017)", "halving"),
        ({"sampler": "random"}, "random search (Bergstra & Bengio, 2012)", "Parzen"),
        ({"space": "studies.bscs17028"}, "configurations of the published study bscs17028", "Optuna"),
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
    text = found["Selection and final evaluation"].replace("\\", "")
    assert "The 3 best configurations by validation macro F1 were retrained 3 times with fresh seeds." in text
    assert "the best of each combination of backbone (1 more)" in text
    assert "fixed on 2026-01-05 11:20 UTC, before the test split was opened (2026-01-05 11:20 UTC)" in text
    assert "The test split was opened twice." in text
    assert "Holm's method (Holm, 1979)" in found["Statistics"]


@pytest.mark.parametrize(("repeats", "told"), [(1, False), (2, True)])
def test_the_rule_of_one_standard_error_is_told_where_there_is_one(write_run, repeats, told):
    text = paragraphs(write_run(finals={"repeats": repeats}))["Selection and final evaluation"]
    assert ("standard error" in text) == ("fewest trainable parameters" in text) == told
    assert ("best validation macro F1 when retrained" in text) != told


def test_folds_tuned_thresholds_and_baselines_are_told_where_there_are_any(write_run):
    finals = {"thresholds": {"a": 0.3, "b": 0.5}, "folds": 3}
    root = write_run(finals=finals, task="multi_label", classes=("a", "b"))
    text = paragraphs(root)["Selection and final evaluation"]
    assert "3-fold cross-validation" in text
    assert "threshold that maximised its F1" in text
    assert "Baselines" not in text


def test_patients_that_are_not_known_are_not_said_to_be_kept_in_one_fold(write_run):
    for name, dataset, words in (("known", {}, "no patient"), ("unknown", {"groups": None}, "no equal images")):
        text = paragraphs(write_run(name, finals={"folds": 3}, dataset=dataset))["Selection and final evaluation"]
        assert f"stratified by label, with {words} in two folds." in text


def test_without_a_test_split_thresholds_are_told_all_the_same(write_run):
    root = write_run(finals={"thresholds": {"a": 0.3}, "opened": 0}, task="multi_label", classes=("a", "b"))
    assert "threshold that maximised its F1" in paragraphs(root)["Selection and final evaluation"]


@pytest.mark.parametrize(
    ("space", "words", "absent"),
    [
        ("head_only", "Backbones stayed frozen, and the head alone was trained", "0 to 4"),
        ("full_finetune", "All backbone layers were trained with the head", "0 to 4"),
        ("partial_unfreeze", "of which the last 0 to 4 were trained with the head", "alone was"),
        ("imbalance", "of which the last 1 were trained with the head", "plateaus"),
    ],
)
def test_what_trained_is_what_the_trials_had(tmp_path, space, words, absent):
    root = write_searched(tmp_path / "run", lambda params, epoch: 0.5, trials=24, epochs=1, space=space)
    text = paragraphs(root)["Networks and training"]
    assert words in text
    assert absent not in text


@pytest.mark.parametrize(
    ("finals", "dataset", "words"),
    [
        ({"selected": False, "opened": 0}, {}, "No winner had been selected."),
        ({"opened": 0}, {}, "The test split was not opened."),
        ({"opened": 0}, {"images": {"train": 785, "val": 169, "test": 0}}, "There was no test split."),
    ],
)
def test_what_has_not_happened_yet_is_not_claimed(write_run, finals, dataset, words):
    text = paragraphs(write_run(finals=finals, dataset=dataset))["Selection and final evaluation"]
    assert words in text
    assert "opened once" not in text


def test_a_sweep_that_goes_on_is_marked(write_run):
    assert "has not ended" in notes(chapter(results_of(write_run(statuses=("running",)))))


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
    full = texts(chapter(results_of(root)))
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
    rows = tables(chapter(results_of(root)))["search_space"].frame.set_index("parameter")
    assert rows.loc["learning rate (sgd)", "values"] == "1e-05 to 0.1"
    assert rows.loc["learning rate (sgd)", "scale"] == "logarithmic"
    assert rows.loc["optimizer", "values"] == "sgd, adamw"
    assert rows.loc["unfrozen blocks", "scale"] == "integer"


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_every_backbone_has_a_paper(name):
    assert of_backbone(name) in REFERENCES


def test_citations_are_surnames_and_year_and_are_collected_once():
    expected = "(Akiba et al., 2019) and (Liaw et al., 2018), (Loshchilov & Hutter, 2019)"
    assert cite("[@optuna] and [@tune], [@adamw]") == expected
    assert cite("[@wilson] [@torch] [@densenet]") == "(Wilson, 1927) (Paszke et al., 2019) (Huang et al., 2017)"
    assert cite("[@one_se] [@vgg]") == "(Breiman et al., 1984) (Simonyan & Zisserman, 2015)"
    assert full_references("[@tune] [@optuna] [@tune]") == [REFERENCES["optuna"], REFERENCES["tune"]]
    shape = r"\([A-Z][\w-]+( & [A-Z][\w-]+| et al\.)?, (19|20)\d\d\)"
    assert all(re.fullmatch(shape, cite(f"[@{key}]")) for key in REFERENCES)


def test_the_checklist_names_chapters_that_the_page_has(write_run):
    results = results_of(write_run(finals={}))
    titles = {title for _, title, make in CHAPTERS if make(results)}
    assert {where for *_, where in ANSWERED} <= {*titles, "–"}


def test_between_them_the_two_tables_name_every_item_of_both_guidelines():
    named = {key: set() for key in ("claim", "tripod")}
    for table in checklists():
        for key, found in named.items():
            for text in table.frame[key]:
                found |= numbers(text)
    assert named["claim"] == set(map(str, range(1, 43)))
    assert {re.match(r"\d+", item)[0] for item in named["tripod"]} == set(map(str, range(1, 28)))


def numbers(text):
    """{"3a", "3b", "4"} for "3a–3b, 4"."""
    found = set()
    for part in text.split(", "):
        first, _, last = part.partition("–")
        if first and last and first.isdigit():
            found |= {str(number) for number in range(int(first), int(last) + 1)}
        elif first and last:
            stem = first[:-1]
            found |= {f"{stem}{chr(letter)}" for letter in range(ord(first[-1]), ord(last[-1]) + 1)}
        elif first:
            found.add(first)
    return found
