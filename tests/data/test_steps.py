"""Solutions in labeled steps: the rows of the format, and what an objective makes of them."""

from __future__ import annotations

import pytest
from zoo import make

from alignzoo.core.errors import UserError
from alignzoo.data.convert import convert_rows
from alignzoo.data.formats.steps import Steps
from alignzoo.interfaces.rows import Skipped

RECORD = {"prompt": "2 + 3 + 4?", "completions": ["2 + 3 = 5", "5 + 4 = 8", "So 8"], "labels": [True, False, False]}
"""In the columns of TRL's stepwise supervision."""


def test_each_step_is_a_completion_after_the_steps_before_it():
    row = Steps().row("a", RECORD, "here")
    assert [(one.context, one.text, one.columns["desirable"]) for one in row.completions] == [
        ("", "2 + 3 = 5", 1.0),
        ("2 + 3 = 5\n", "5 + 4 = 8", 0.0),
        ("2 + 3 = 5\n5 + 4 = 8\n", "So 8", 0.0),
    ]
    assert row.group == RECORD["prompt"]


def test_a_marker_divides_a_text_into_steps():
    whole = RECORD | {"completions": " #".join(RECORD["completions"]), "labels": ["true", "0", 0]}
    row = Steps(separator=" #").row("a", whole, "here")
    assert [one.text for one in row.completions] == RECORD["completions"]
    assert row.completions[2].context == "2 + 3 = 5 #5 + 4 = 8 #"
    assert [one.columns["desirable"] for one in row.completions] == [1.0, 0.0, 0.0]
    ended = Steps(separator=" #").row("a", whole | {"completions": whole["completions"] + " #"}, "here")
    assert ended.completions == row.completions, "a marker after the last step ends it"


def test_the_outcome_alone_is_the_last_step():
    row = Steps(last_only=True).row("a", RECORD, "here")
    assert [(one.context, one.text) for one in row.completions] == [("2 + 3 = 5\n5 + 4 = 8\n", "So 8")]


def test_an_objective_on_labels_reads_each_step_as_a_row_of_the_same_group():
    rows, skipped = convert_rows([Steps().row("a", RECORD, "here")], make("process_reward"), "extremes")
    assert not skipped
    assert [(row.id, len(row.completions), row.completions[0].columns["desirable"]) for row in rows] == [
        ("a/1", 1, 1.0), ("a/2", 1, 0.0), ("a/3", 1, 0.0),
    ]  # fmt: skip
    assert {row.group for row in rows} == {RECORD["prompt"]}


def test_steps_are_nothing_to_compare():
    with pytest.raises(UserError, match="dpo compares completions, and row a/1 has a single labeled completion"):
        convert_rows([Steps().row("a", RECORD, "here")], make("dpo"), "extremes")


def test_a_solution_without_steps_is_skipped():
    assert Steps().row("a", RECORD | {"completions": [], "labels": []}, "here") == Skipped("a", "no steps")


@pytest.mark.parametrize(
    ("fields", "change", "message"),
    [
        ({}, {"labels": [True]}, "here: completions has 3 steps, and labels 1 labels; expected a label for each step"),
        ({}, {"labels": [True, "maybe", False]}, "here: labels has 'maybe'; expected a list of true or false"),
        ({}, {"labels": True}, "here: labels has True; expected a list of true or false"),
        ({}, {"completions": ["a", "", "b"]}, "here: completions is no list of texts"),
        ({}, {"completions": "one text"}, "completions has 1 steps, and labels 3 labels"),
        ({}, {"prompt": ["a"]}, "here: prompt is no text"),
        (
            {"labels": "label"},
            {},
            "here: no column 'label'; expected one of prompt, completions, labels; did you mean 'labels'?",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_at_its_place(fields, change, message):
    with pytest.raises(UserError) as error:
        Steps(**fields).row("a", RECORD | change, "here")
    assert message in str(error.value)
