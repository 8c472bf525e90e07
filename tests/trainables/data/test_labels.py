from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import UserError
from trainables.data.classes import keep_classes
from trainables.data.config import DataConfig
from trainables.data.labels import Labels, RowUse, read_labels
from trainables.data.samples import MISSING, Samples


def read(columns: dict[str, list[str]], **options: Any) -> tuple[Labels, RowUse]:
    """The labels of a table of these columns, whose first row is row 2."""
    cells = pd.DataFrame(columns, dtype=str)
    use = RowUse(len(cells), lambda row: str(row + 2))
    config = DataConfig.model_validate({"label_column": list(columns), **options})
    return read_labels(cells, config, use), use


def samples(classes: tuple[str, ...], labels: list[Any]) -> Samples:
    values = np.array(labels, dtype=np.int8 if isinstance(labels[0], list) else np.int64)
    return Samples(
        kind="table",
        path="m.csv",
        task="multi_label" if values.ndim == 2 else "single_label",
        classes=classes,
        paths=tuple(f"{row}.png" for row in range(len(labels))),
        files=(),
        labels=values,
        splits=None,
    )


NAMES = {
    "names": (["b", "a", "b"], "single_label", ("a", "b"), [1, 0, 1]),
    "names that look like no value": (["NA", "None", "x"], "single_label", ("NA", "None", "x"), [0, 1, 2]),
    "bars": (["a|b", "b", "a"], "multi_label", ("a", "b"), [[1, 1], [0, 1], [1, 0]]),
    "lists": (["['a', 'b c']", '["b c"]', "['a']"], "multi_label", ("a", "b c"), [[1, 1], [0, 1], [1, 0]]),
    "a list as numpy prints it": (["['a' 'b']", "['b']"], "multi_label", ("a", "b"), [[1, 1], [0, 1]]),
    "an apostrophe in a list": (["[\"can't\", 'a']", "['a']"], "multi_label", ("a", "can't"), [[1, 1], [1, 0]]),
    "a list in an object": (
        ['{"choices": ["b", "a"]}', "{'choices': ['b']}"],
        "multi_label",
        ("a", "b"),
        [[1, 1], [0, 1]],
    ),
    "lists of one": (["['b']", "['a']"], "single_label", ("a", "b"), [1, 0]),
    "whole numbers by value": (["10", "9", "2"], "single_label", ("2", "9", "10"), [2, 1, 0]),
    "whole numbers as floats": (["10.0", "9.0", "2.0"], "single_label", ("2", "9", "10"), [2, 1, 0]),
    "codes with zeros": (["01", "02", "10"], "single_label", ("01", "02", "10"), [0, 1, 2]),
    "0 and 1": (["1", "0.0", "1.0"], "single_label", ("0", "1"), [1, 0, 1]),
    "yes and no": (["Yes", "no", "TRUE"], "single_label", ("0", "1"), [1, 0, 1]),
    "a class name with a slash": (["a / b", "c", "d"], "single_label", ("a / b", "c", "d"), [0, 1, 2]),
    "class names with blanks": (["a b", "a c", "d"], "single_label", ("a b", "a c", "d"), [0, 1, 2]),
}


@pytest.mark.parametrize(("cells", "task", "classes", "values"), NAMES.values(), ids=NAMES)
def test_one_column_is_read_by_what_its_cells_hold(
    cells: list[str], task: str, classes: tuple[str, ...], values: list[Any]
) -> None:
    labels, use = read({"label": cells})
    assert (labels.task, labels.classes, labels.values.tolist()) == (task, classes, values)
    assert use.problems == []


def test_a_class_a_row_is_no_class() -> None:
    for count, problems in ((6, 1), (5, 0)):
        _, use = read({"image": [f"a{row}" for row in range(count)]})
        assert len(use.problems) == problems
        assert use.undecided.all() == bool(problems)


def test_a_column_without_a_label_has_no_class() -> None:
    labels, use = read({"label": ["", ""]})
    assert labels.classes == ()
    assert "'label' has 2 blank cells" in use.problems[0]
    assert use.undecided.all()


@pytest.mark.parametrize("cells", [["a|b", "a"], ["['a', 'b']", "['a']"]])
def test_cells_of_several_labels_are_announced(cells: list[str]) -> None:
    _, use = read({"label": cells})
    assert len(use.notes) == 1
    assert "column 'label'" in use.notes[0]


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["normal", "effusion;edema"], ";"),
        (["edema", "effusion,edema"], ","),
        (["edema/left", "edema/right"], "/"),
        (["1 2", "2", "1"], " "),
    ],
)
def test_a_separator_that_may_be_one_is_asked_about(cells: list[str], separator: str) -> None:
    _, use = read({"label": cells})
    assert use.undecided.any()
    assert f"--label-separator '{separator}'" in use.problems[0]
    labels, use = read({"label": cells}, label_separator=separator)
    assert labels.task == "multi_label"
    assert {one for cell in cells for one in cell.split(separator)} == set(labels.classes)
    labels, use = read({"label": cells}, label_separator="none")
    assert (labels.task, set(labels.classes), use.problems) == ("single_label", set(cells), [])


def test_a_separator_that_no_cell_has_is_a_mistake() -> None:
    assert "--label-separator ';'" in read({"label": ["a", "b"]}, label_separator=";")[1].problems[0]


@pytest.mark.parametrize("cell", ['{"a": 0.9}', '{"a": true}', '{"a": ["b"], "c": ["d"]}', '[{"x": 1, "l": ["a;b"]}]'])
def test_an_object_that_is_no_list_of_names_is_refused(cell: str) -> None:
    _, use = read({"y": [cell, "a", "b"]})
    [problem] = use.problems
    assert f"column 'y': {cell} is a JSON object" in problem
    assert use.undecided.all()
    assert read({"y": [cell, "a", "b"]}, label_separator="none")[1].problems == []


def test_a_list_of_0_and_1_does_not_say_which_labels_it_means() -> None:
    _, use = read({"label": ["[0, 1, 0]", "[1, 0, 0]"]})
    assert use.undecided.any()
    assert "[0, 1, 0]" in use.problems[0]


FINDINGS = {"Edema": ["1.0", "0", "-1", "", "yes"], "Mass": ["False", "-1.0", "nan", "1", "0"]}


def test_cells_that_only_the_user_can_decide_are_counted_by_column_with_the_option() -> None:
    _, use = read(FINDINGS)
    assert use.undecided.any()
    assert use.problems == [
        "'Edema' has 1 cells of -1, 'Mass' 1 (rows 3, 4): state their meaning with --uncertain-label 0|1|missing|drop; "
        "by label: --uncertain-label Edema=0,Mass=0",
        "'Edema' has 1 blank cells, 'Mass' 1 (rows 4, 5): state their meaning with --blank-label 0|missing|drop; "
        "by label: --blank-label Edema=0,Mass=0",
    ]


@pytest.mark.parametrize(
    ("uncertain", "blank", "values", "dropped"),
    [
        ("1", "0", [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], []),
        ("0", "missing", [[1, 0], [0, 0], [0, MISSING], [MISSING, 1], [1, 0]], []),
        ("missing", "0", [[1, 0], [0, MISSING], [MISSING, 0], [0, 1], [1, 0]], []),
        ("Edema=1,0", "0", [[1, 0], [0, 0], [1, 0], [0, 1], [1, 0]], []),
        ("drop", "0", [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], [1, 2]),
        ("0", "Mass=drop,0", [[1, 0], [0, 0], [1, 0], [0, 1], [1, 0]], [2]),
    ],
)
def test_decided_cells_become_what_was_decided(
    uncertain: str, blank: str, values: list[list[int]], dropped: list[int]
) -> None:
    labels, use = read(FINDINGS, uncertain_label=uncertain, blank_label=blank)
    assert use.problems == []
    assert labels.classes == ("Edema", "Mass")
    assert np.flatnonzero(~use.usable).tolist() == dropped
    assert [row for place, row in enumerate(labels.values.tolist()) if place not in dropped] == [
        row for place, row in enumerate(values) if place not in dropped
    ]
    assert sum(one.count for one in use.left_out) == len(dropped)


def test_a_row_with_two_reasons_is_left_out_once() -> None:
    _, use = read(FINDINGS, uncertain_label="drop", blank_label="drop")
    assert [(one.why.split(" (")[0], one.count, one.examples) for one in use.left_out] == [
        ("rows with an uncertain cell", 2, ("row 3", "row 4")),
        ("rows with a blank cell", 1, ("row 5",)),
    ]


def test_a_decision_for_a_label_that_is_none_is_a_mistake() -> None:
    problems = read(FINDINGS, uncertain_label="Edma=1,0", blank_label="0")[1].problems
    assert len(problems) == 1
    assert "--uncertain-label Edma=1" in problems[0]
    assert "did you mean 'Edema'?" in problems[0]
    problems = read({"finding": ["a", "b"]}, blank_label="findin=drop")[1].problems
    assert len(problems) == 1
    assert "did you mean 'finding'?" in problems[0]


def test_one_finding_alone_is_two_classes_or_by_option_one_label() -> None:
    cells = {"Edema": ["1", "0", "-1", ""]}
    labels, use = read(cells, uncertain_label="1", blank_label="0")
    assert (labels.task, labels.classes, labels.values.tolist()) == ("single_label", ("0", "1"), [1, 0, 1, 0])
    labels, use = read(cells, uncertain_label="1", blank_label="missing", task="multi_label")
    assert (labels.task, labels.classes) == ("multi_label", ("Edema",))
    assert labels.values.tolist() == [[1], [0], [1], [MISSING]]
    assert use.problems == []
    _, use = read(cells, uncertain_label="1", blank_label="missing")
    assert "--blank-label 0|drop" in use.problems[0]  # a class cannot be missing


@pytest.mark.parametrize(("cell", "option"), [("", "--blank-label"), ("-1", "--uncertain-label")])
def test_a_blank_or_uncertain_grade_is_no_class(cell: str, option: str) -> None:
    cells = {"grade": ["0", "1", "2", cell]}
    _, use = read(cells)
    assert "'grade' has 1" in use.problems[0]
    assert f"{option} drop" in use.problems[0]
    labels, use = read(cells, **{option[2:].replace("-", "_"): "drop"})
    assert (labels.classes, use.usable.tolist()) == (("0", "1", "2"), [True, True, True, False])


def test_a_blank_cell_among_cells_of_several_labels_is_asked_about() -> None:
    cells = {"label": ["a|b", "", "nan", "a"]}
    _, use = read(cells)
    assert "'label' has 2 blank cells (rows 3, 4)" in use.problems[0]
    assert read(cells, blank_label="0")[0].values.tolist() == [[1, 1], [0, 0], [0, 0], [1, 0]]
    labels = read(cells, blank_label="a=missing,0")[0]
    assert labels.values.tolist() == [[1, 1], [MISSING, 0], [MISSING, 0], [1, 0]]


def test_no_finding_is_no_label_and_counts_for_nothing_beside_one() -> None:
    for columns, nothing in (
        ({"label": ["a", "none", "a|none", "b"]}, "none"),
        ({"a": ["1", "0", "1", "0"], "b": ["0", "0", "0", "1"], "none": ["0", "1", "1", ""]}, "none"),
    ):
        labels, use = read(columns, no_finding=nothing)
        assert (labels.classes, labels.values.tolist()) == (("a", "b"), [[1, 0], [0, 0], [1, 0], [0, 1]])
        assert use.problems == []
        assert any(note.startswith("1 row has 'none' together with a finding") for note in use.notes)


@pytest.mark.parametrize(("cells", "given"), [(["a", "none|a", "b"], "nonne"), (["a", "none", "b"], "none")])
def test_no_finding_must_be_a_label_of_several(cells: list[str], given: str) -> None:
    assert f"--no-finding {given}" in read({"label": cells}, no_finding=given)[1].problems[0]


def test_columns_of_one_class_each() -> None:
    columns = {"nv": ["1.0", "0.0", "0.0"], "mel": ["0.0", "1.0", "1.0"], "unk": ["0.0", "0.0", "0.0"]}
    for options in ({"one_hot": True}, {"task": "single_label"}):
        labels, use = read(columns, **options)
        assert (labels.task, labels.classes, labels.values.tolist()) == ("single_label", tuple(columns), [0, 1, 1])
        assert use.problems == []
    labels, use = read(columns)
    assert labels.task == "multi_label"
    assert "--task single_label" in use.notes[0]
    columns["nv"][1] = "1.0"
    labels, use = read(columns, one_hot=True)
    assert "row 3: 2 of them are set" in use.problems[0]
    assert "--task multi_label" in use.problems[0]


def test_a_cell_of_a_finding_that_is_none_is_named() -> None:
    _, use = read({"Edema": ["1", "perhaps"], "Mass": ["0", "1"]})
    assert "label column 'Edema', row 3: 'perhaps' is not 0, 1, -1 or blank" in use.problems[0]
    assert use.usable.tolist() == [True, False]


@pytest.mark.parametrize("cells", [[str(age / 7) for age in range(60)], [f"a report of {n} words" for n in range(60)]])
def test_measurements_and_free_text_are_no_classes(cells: list[str]) -> None:
    _, use = read({"label": cells})
    assert use.undecided.any()
    assert "60 different" in use.problems[0]
    assert "--min-class-images" in use.problems[0]
    assert read({"label": cells}, min_class_images=1)[1].problems == []


def test_only_the_columns_of_the_labels_to_keep_are_asked_about() -> None:
    labels, use = read(FINDINGS | {"Fracture": ["", "", "", "", ""]}, classes="Edema", blank_label="0")
    assert [problem.partition(" has")[0] for problem in use.problems] == ["'Edema'"]
    assert labels.classes == ("Edema",)


def test_classes_get_other_names_and_may_become_one() -> None:
    labels, _ = read({"label": ["nv", "mel", "bcc"]}, class_names={"mel": "malignant", "bcc": "malignant"})
    assert (labels.classes, labels.values.tolist()) == (("malignant", "nv"), [1, 0, 0])
    columns = {"a": ["1", "0", ""], "b": ["0", "0", "0"], "c": ["1", "0", "1"]}
    labels, _ = read(columns, class_names={"a": "x", "b": "x"}, blank_label="missing")
    assert (labels.classes, labels.values.tolist()) == (("x", "c"), [[1, 1], [0, 0], [0, 1]])


def test_rows_of_other_classes_are_left_out_and_counted() -> None:
    _, use = read({"label": ["a", "b", "c", "c"]}, classes="a,b")
    assert use.usable.tolist() == [True, True, False, False]
    assert [(one.why, one.count) for one in use.left_out] == [("classes that --classes does not name: c", 2)]


@given(st.lists(st.lists(st.sampled_from(["a", "b c", "d'e", 'f"g', "h\\i"]), unique=True), min_size=1, max_size=9))
def test_any_python_list_of_names_is_read_back(cells: list[list[str]]) -> None:
    labels, use = read({"label": [repr(cell) for cell in cells]}, task="multi_label", blank_label="0")
    assert use.problems == []
    found = [{name for name, value in zip(labels.classes, row, strict=True) if value} for row in labels.values.tolist()]
    assert found == [set(cell) for cell in cells]


def test_few_classes_are_left_out_with_their_numbers() -> None:
    kept = keep_classes(samples(("a", "b", "c"), [0, 1, 0, 1, 2]), DataConfig(min_class_images=2))
    assert (kept.classes, kept.labels.tolist(), kept.paths[-1]) == (("a", "b"), [0, 1, 0, 1], "3.png")
    assert [(one.why, one.count, one.examples) for one in kept.left_out] == [
        ("classes of fewer than 2 images: c (1)", 1, ("4.png",))
    ]


def test_labels_that_are_not_kept_leave_their_rows() -> None:
    kept = keep_classes(samples(("a", "b", "c"), [[1, 0, 1], [1, 1, 0], [0, 0, 1]]), DataConfig(min_class_images=2))
    assert (kept.classes, kept.labels.tolist()) == (("a", "c"), [[1, 1], [1, 0], [0, 1]])
    assert kept.left_out == ()
    assert kept.notes == ("labels of fewer than 2 images are not used: b (1)",)
    kept = keep_classes(samples(("a", "b", "c"), [[1, 0, 1], [1, 1, 0], [0, 0, 1]]), DataConfig(classes=("b",)))
    assert (kept.classes, kept.labels.tolist()) == (("b",), [[0], [1], [0]])


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, ("2", "10", "low")),
        ({"ordered_classes": True}, ("2", "10", "low")),
        ({"ordered_classes": True, "classes": "low,2,10"}, ("low", "2", "10")),
        ({"classes": "low,2,10"}, ("2", "10", "low")),
    ],
)
def test_classes_are_ordered_by_number_then_name_or_as_asked(options: dict[str, Any], order: tuple[str, ...]) -> None:
    kept = keep_classes(samples(("10", "2", "low"), [0, 1, 2, 0]), DataConfig.model_validate(options))
    assert kept.classes == order
    assert [order[label] for label in kept.labels] == ["10", "2", "low", "10"]


def test_classes_to_keep_go_by_the_new_names_or_the_old() -> None:
    for asked in ("akiec,nevus", "akiec,nv"):
        config = DataConfig.model_validate({"classes": asked, "class_names": {"nv": "nevus"}})
        kept = keep_classes(samples(("akiec", "mel", "nv"), [0, 1, 2]), config)
        assert (kept.classes, kept.labels.tolist()) == (("akiec", "nevus"), [0, 1])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1, 1], {"classes": "a,c"}, "--classes c: unknown class 'c'"),
        ([0, 1, 0], {"min_class_images": 3}, "no label; at least one.*--min-class-images"),
    ],
)
def test_classes_that_are_not_there_are_refused(labels: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        keep_classes(samples(("a", "b"), labels), DataConfig.model_validate(options))


def test_one_class_that_is_left_is_told() -> None:
    for options, name in (({"classes": "a"}, "a"), ({"min_class_images": 2}, "b")):
        kept = keep_classes(samples(("a", "b"), [0, 1, 1]), DataConfig.model_validate({"data": "x", **options}))
        way_out = "--classes and --min-class-images leave out the others"
        assert kept.nothing_to_tell == f"--data x: one class only ({name!r}); at least two are needed; {way_out}"
    assert keep_classes(samples(("a", "b"), [0, 1, 1]), DataConfig()).nothing_to_tell == ""
    rare = keep_classes(samples(("a", "b"), [[1, 0], [0, 0]]), DataConfig(min_class_images=2))
    assert "no label; at least one is needed; --classes" in rare.nothing_to_tell
