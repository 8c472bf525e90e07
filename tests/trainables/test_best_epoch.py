"""Which epoch wins, and when a trial ends by itself."""

import math

import pytest

from search_spaces.errors import UserError
from trainables.best_epoch import BestEpochTracker
from trainables.settings import TrialSettings


def verdict(*, epochs=10, patience=None, metric="val_f1_macro", mode="max"):
    return BestEpochTracker(
        TrialSettings(
            run_dir="run",
            epochs=epochs,
            weights="random",
            precision="fp32",
            metric=metric,
            mode=mode,
            patience=patience,
            time_limit_s=None,
            seed=0,
            cpus=1,
            use_gpu=False,
            deterministic=False,
        )
    )


def judge_all(one, scores, metric="val_f1_macro"):
    return [one.judge({metric: score}) for score in scores]


def test_the_best_epoch_is_the_first_of_the_highest():
    one = verdict()
    said = judge_all(one, [0.2, 0.6, 0.4, 0.6])
    assert [each["best_epoch"] for each in said] == [1, 2, 2, 2]
    assert said[-1] == {"best_epoch": 2, "best_val_f1_macro": 0.6}


def test_a_loss_is_best_where_it_is_lowest():
    said = judge_all(verdict(metric="val_nll", mode="min"), [0.9, 0.5, 0.7], "val_nll")
    assert said[-1] == {"best_epoch": 2, "best_val_nll": 0.5}


def test_only_the_epoch_that_is_best_counts_as_improved():
    one = verdict()
    seen = []
    for score in (0.2, 0.1, 0.3):
        one.judge({"val_f1_macro": score})
        seen.append(one.improved)
    assert seen == [True, False, True]


def test_a_trial_ends_with_its_budget():
    said = judge_all(verdict(epochs=2), [0.1, 0.2])
    assert "done" not in said[0]
    assert (said[1]["done"], said[1]["end"]) == (True, "budget")


def test_a_trial_ends_after_its_patience_counted_from_the_best_epoch():
    one = verdict(patience=2)
    said = judge_all(one, [0.1, 0.3, 0.2, 0.3])
    assert [each.get("end") for each in said] == [None, None, None, "plateau"]
    assert said[-1]["reason"] == "2 epochs without a better val_f1_macro"
    assert one.ended


def test_a_broken_epoch_ends_the_trial_and_keeps_its_best():
    one = verdict()
    judge_all(one, [0.4])
    said = one.broken("the loss was no number")
    expected = {"done": True, "end": "nan", "reason": "the loss was no number"}
    assert said == {"best_epoch": 1, "best_val_f1_macro": 0.4} | expected
    assert not one.improved


def test_an_undefined_metric_is_the_users_to_change():
    with pytest.raises(UserError, match="val_auroc_macro is undefined"):
        verdict(metric="val_auroc_macro").judge({"val_auroc_macro": math.nan})


def test_patience_goes_on_from_its_state():
    one, other = verdict(patience=2), verdict(patience=2)
    judge_all(one, [0.5, 0.4])
    other.load_state_dict(one.state_dict())
    assert other.judge({"val_f1_macro": 0.4})["end"] == "plateau"
