"""Pairs, labels, lists and prompts in the spellings that people have, renamed columns, and the reading that is suggested."""

from __future__ import annotations

import json

import pytest

from alignzoo.core.errors import UserError
from alignzoo.data.convert import convert_rows
from alignzoo.data.formats.records import Records
from alignzoo.data.splits import without_tie
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import Row, Skipped


def say(role, text):
    return {"role": role, "content": text}


def turn(speaker, text):
    return {"from": speaker, "value": text}


USER, GOOD, BAD = say("user", "q"), say("assistant", "good"), say("assistant", "bad")
ASKED, FINE, POOR = turn("human", "q"), turn("gpt", "good"), turn("gpt", "bad")
MODELS = [{"model": "m", "response": "bad", "overall_score": 3, "fine-grained_score": 2.5},
          {"model": "n", "response": "good", "overall_score": 8.5, "fine-grained_score": 4}]  # fmt: skip


def read(record, **names) -> Row | Skipped:
    return Records(**names).row("r", record, "f:1")


def text(value):
    return value if isinstance(value, str) else value[0]["content"]


PAIRS = {
    "LLaMA-Factory, ShareGPT": ({"conversations": [ASKED], "chosen": FINE, "rejected": POOR}, {}),
    "one message each": ({"messages": [USER], "chosen": GOOD, "rejected": BAD}, {}),
    "messages and lists": ({"messages": [USER], "chosen": [GOOD], "rejected": [BAD]}, {}),
    "messages and strings": ({"messages": [USER], "chosen": "good", "rejected": "bad"}, {}),
    "Alpaca": ({"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}, {}),
    "Alpaca, two outputs": ({"instruction": "q", "output": ["good", "bad"]}, {"completions": "output"}),
    "whole chats beside a prompt": ({"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]}, {}),
    "whole chats": ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, {}),
    "whole chats of an arena": ({"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "model_b"},
                                {"completions": ["conversation_a", "conversation_b"], "preferred": "winner"}),
    "a chat and two columns": ({"messages": [USER], "response_a": "bad", "response_b": "good", "winner": "B"},
                               {"completions": ["response_a", "response_b"], "preferred": "winner"}),
    "UltraFeedback": ({"instruction": "q", "models": ["m", "n"], "completions": MODELS},
                      {"completion": "response", "scores": "overall_score"}),
}  # fmt: skip
"""Name -> record, names of its columns: all of them the same pair of chats."""


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_chats_in_every_spelling(name):
    record, names = PAIRS[name]
    row = read(record, **names)
    assert isinstance(row, Row), row
    assert (row.prompt, [one.text for one in row.completions]) == ((USER,), [(GOOD,), (BAD,)])
    assert (row.group, [one.context for one in row.completions]) == ("q", [(), ()])


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"question": "q", "response_a": "bad", "response_b": "good", "winner": "response_b"}, {"prompt": "question", "completions": ["response_a", "response_b"], "preferred": "winner"}),
        ({"prompt": "q", "response_0": "good", "response_1": "bad", "better_response_id": 0}, {"completions": ["response_0", "response_1"], "preferred": "better_response_id"}),
        ({"prompt": "q", "output_1": "bad", "output_2": "good", "preference": 2}, {"completions": ["output_1", "output_2"], "preferred": "preference"}),
        ({"history": "q", "ref_A": "bad", "ref_B": "good", "score_A": 2, "score_B": 5}, {"prompt": "history", "completions": ["ref_A", "ref_B"], "scores": ["score_A", "score_B"]}),
        ({"history": "q", "ref_A": "bad", "ref_B": "good", "rank_A": 2, "rank_B": 1}, {"prompt": "history", "completions": ["ref_A", "ref_B"], "ranks": ["rank_A", "rank_B"]}),
        ({"prompt": "q", "rejected": "good", "chosen": "bad"}, {"chosen": "rejected", "rejected": "chosen"}),
    ],
)  # fmt: skip
def test_two_columns_are_a_pair_in_the_order_of_the_preference(record, names):
    row = read(record, **names)
    assert (row.prompt, [one.text for one in row.completions]) == ("q", ["good", "bad"])


@pytest.mark.parametrize("winner", ["tie", "Tie (both bad)"])
def test_a_pair_of_equals_is_a_tie(winner):
    record = {"prompt": "q", "a_1": "x", "a_2": "y", "winner": winner}
    row = read(record, completions=["a_1", "a_2"], preferred="winner")
    assert row.columns == {"tie": 1.0}
    assert without_tie(row) == Skipped("r", "no preference", "tie")


@pytest.mark.parametrize("winner", [None, "both", "c"])
def test_a_pair_without_a_preference_is_skipped(winner):
    record = {"prompt": "q", "a_1": "x", "a_2": "y", "winner": winner}
    row = read(record, completions=["a_1", "a_2"], preferred="winner")
    assert row == Skipped("r", "no preference", str(winner))


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"messages": [USER, GOOD], "label": True}, {}),
        ({"conversations": [ASKED, FINE], "label": "true"}, {}),
        ({"messages": [USER, GOOD], "kto_tag": True}, {"label": "kto_tag"}),
        ({"instruction": "q", "output": "good", "label": 1}, {}),
        ({"prompt": [USER], "completion": [GOOD], "label": True}, {}),
        ({"prompt": "q", "completion": GOOD, "label": True}, {}),
    ],
)
def test_a_labeled_chat_in_every_spelling(record, names):
    row = read(record, **names)
    assert (row.prompt, row.completions[0].text) == ((USER,), (GOOD,))
    assert row.completions[0].columns == {"desirable": 1.0}
    assert not row.is_training_text


def test_the_label_of_a_long_chat_is_of_its_last_turn():
    row = read({"messages": [USER, GOOD, USER, BAD], "label": False})
    assert (row.prompt, row.completions[0].context, row.completions[0].text) == ((USER, GOOD, USER), (), (BAD,))
    assert read({"messages": [USER, GOOD, USER], "label": True}) == Skipped("r", "no assistant reply at the end")


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [USER], "completions": ["bad", "good", "c"], "scores": [1, 3, 2]},
        {"conversations": [ASKED], "completions": [POOR, FINE, turn("gpt", "c")], "ranks": [3, 1, 2]},
        {"instruction": "q", "completions": ["bad", "good", "c"], "scores": [1, 3, 2]},
        {"prompt": [USER], "completions": [{"completion": "bad", "score": 1}, {"completion": "good", "score": 3}, {"completion": "c", "score": 2}]},
        {"prompt": [USER], "completions": [{"completion": "bad"}, {"completion": "good"}, {"completion": "c"}], "scores": [1, 3, 2]},
    ],
)  # fmt: skip
def test_a_ranked_list_in_every_spelling(record):
    row = read(record)
    assert (row.prompt, [text(one.text) for one in row.completions]) == ((USER,), ["good", "c", "bad"])
    assert len({one.columns["score"] for one in row.completions}) == 3


def test_numbers_of_each_object_are_its_completions():
    record, names = PAIRS["UltraFeedback"]
    assert [one.columns for one in read(record, **names).completions] == [
        {"fine-grained_score": 4.0, "score": 8.5}, {"fine-grained_score": 2.5, "score": 3.0},
    ]  # fmt: skip


def test_a_system_message_stands_before_every_chat():
    system = say("system", "s")
    for record, names in PAIRS.values():
        assert read(record | {"system": "s"}, **names).prompt == (system, USER)
    assert read({"messages": [USER], "system": "s"}).prompt == (system, USER)
    assert read({"messages": [say("system", "own"), USER], "system": "s"}).prompt == (say("system", "own"), USER)
    plain = {"system": "s", "question": "q", "chosen": "good", "rejected": "bad"}
    assert read(plain, instruction="question").prompt == (system, USER)
    assert read(plain, prompt="question", system=None).extra == {"system": "s"}
    with pytest.raises(UserError, match=r"system can't be used: the prompt is plain text(?s:.*)instruction: question"):
        read(plain, prompt="question")


# Prompts alone


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"prompt": "q"}, "q"),
        ({"prompt": [USER]}, (USER,)),
        ({"messages": [USER]}, (USER,)),
        ({"conversations": [ASKED]}, (USER,)),
        ({"instruction": "q", "input": ""}, (USER,)),
        ({"prompt": [USER, GOOD, USER]}, (USER, GOOD, USER)),
    ],
)
def test_a_prompt_alone_keeps_its_other_columns_as_they_are(record, prompt):
    others = {"answer": "42", "level": 3, "tests": [{"in": 1}], "none": None}
    row = read(record | others)
    assert (row.prompt, row.completions, row.extra) == (prompt, (), others)
    assert row.columns == {"answer": 42.0, "level": 3.0}
    assert row.alone() == row


def test_other_columns_are_what_no_part_has_used():
    day = object()  # as a date or an image of a saved dataset
    row = read({"prompt": "q", "chosen": "a", "rejected": "b", "output": "x", "when": day, "margin": 2})
    assert (row.extra, row.columns) == ({"output": "x", "margin": 2}, {"margin": 2.0})


def test_a_chat_that_ends_with_the_user_is_all_prompt_for_what_draws():
    row = read({"messages": [USER, GOOD, say("user", "more")]})
    assert row.is_training_text, "its turns of the assistant can be trained on"
    assert row.alone().prompt == (USER, GOOD, say("user", "more"))
    assert read({"messages": [USER, GOOD]}).alone().prompt == (USER,)
    assert read({"prompt": "q", "chosen": "a", "rejected": "b"}).alone().prompt == "q"


@pytest.mark.parametrize("empty", ["", " ", None, []])
def test_an_empty_prompt_alone_is_skipped(empty):
    assert read({"prompt": empty}) == Skipped("r", "empty prompt")


@pytest.mark.parametrize(
    ("data", "record", "said"),
    [
        ("pair", {"prompt": "q"}, "own needs completions, and row r has a prompt alone; expected rows with chosen and rejected"),
        ("chosen", {"prompt": "q", "response": "x"}, "format: {name: records, completion: response}"),
        ("pair", {"prompt": "q", "chosn": "x", "rejcted": "y"}, "format: {name: records, chosen: chosn, rejected: rejcted}"),
        ("unpaired", {"prompt": "q", "response": "a", "thumbs_up": True}, "format: {name: records, completion: response, label: thumbs_up}"),
        ("ranked", {"prompt": "q", "responses": ["a", "b"], "rewards": [1, 2]}, "format: {name: records, completions: responses, scores: rewards}"),
        ("pair", {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 1}, "format: {name: records, completions: [response_0, response_1], preferred: better_response_id}"),
        ("chosen", {"instruction": "q", "context": "c", "response": "b"}, "format: {name: records, input: context, completion: response}"),
    ],
)  # fmt: skip
def test_an_objective_on_completions_refuses_a_prompt_alone(data, record, said):
    objective = type("Own", (Objective,), {"name": "own", "data": data, "__annotations__": {}})()
    with pytest.raises(UserError) as error:
        convert_rows([read(record)], objective, "extremes")
    assert said in str(error.value)


# Names


@pytest.mark.parametrize("part", [part for part in Records.model_fields if part != "id"])
def test_a_misspelled_name_of_any_part_is_an_error(part):
    record = {"prompt": "q", "chosen": "a", "rejected": "b", "columm": 1}
    with pytest.raises(UserError, match=r"f:1: no column 'column'; expected one of .*; did you mean 'columm'\?"):
        read(record, **{part: "column"})


@pytest.mark.parametrize("part", ["completions", "scores", "ranks"])
def test_a_misspelled_name_in_a_list_is_an_error(part):
    with pytest.raises(UserError, match="no column 'b_2'"):
        read({"prompt": "q", "b_1": "a"}, **{part: ["b_1", "b_2"]})


def test_a_misspelled_field_of_a_completion_is_an_error():
    record, _ = PAIRS["UltraFeedback"]
    with pytest.raises(UserError, match="completion 1 has no field 'completion'; expected one of model, response"):
        read(record)
    with pytest.raises(UserError, match=r"has no field 'overal_score'(?s:.*)did you mean 'overall_score'\?"):
        read(record, completion="response", scores="overal_score")


def test_a_part_that_the_format_leaves_out_is_another_column():
    row = read({"prompt": "q", "completion": "a", "label": True}, label=None)
    assert (row.is_training_text, row.extra) == (True, {"label": True})
    row = read({"prompt": "q", "completions": ["a", "b"], "scores": [1, 2]}, scores=None)
    assert ([one.text for one in row.completions], row.extra) == (["a", "b"], {"scores": [1, 2]})
    row = read({"prompt": "q", "text": "t", "chosen": "a", "rejected": "b"}, chosen=None, rejected=None)
    assert row.completions[0].text == "t"
    assert read({"prompt": "q", "completion": "a", "level": 1}).columns == {"level": 1.0}, "a word, no misspelled label"


def test_a_column_that_another_part_has_taken_is_not_read_twice():
    row = read({"prompt": "q", "completion": "a", "output": "b"}, chosen="completion", rejected="output")
    assert [one.text for one in row.completions] == ["a", "b"]


# What is suggested


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"question": "q", "response_a": "x", "response_b": "y", "winner": "a"}, "prompt: question, completions: [response_a, response_b], preferred: winner"),
        ({"id": "1", "history": "q", "human_ref_A": "x", "human_ref_B": "y", "labels": 1, "score_A": 2, "score_B": 1}, "prompt: history, completions: [human_ref_A, human_ref_B], scores: [score_A, score_B]"),
        ({"conversation_a": [USER, GOOD], "conversation_b": [USER, BAD], "winner": "model_a"}, "completions: [conversation_a, conversation_b], preferred: winner"),
        ({"question": "q", "answer": "x", "liked": True}, "prompt: question, completion: answer, label: liked"),
        ({"question": "q", "answers": ["x", "y"], "ratings": [1, 2]}, "prompt: question, completions: answers, scores: ratings"),
        ({"question": "q", "candidates": ["x", "y"]}, "prompt: question, completions: candidates"),
        ({"dialog": [USER, GOOD], "liked": False}, "messages: dialog, label: liked"),
        ({"Instruction": "q", "Response": "x"}, "instruction: Instruction, completion: Response"),
        ({"system": "s", "question": "q", "chosen": "x", "rejected": "y"}, "instruction: question"),
        ({"question": "q", "chosen": "x", "rejected": "y"}, "prompt: question"),
        ({"prompt": "q", "chosen": "x", "worse": "y"}, "rejected: worse"),
        ({"query": "q", "completion": "x", "label": True}, "prompt: query"),
        ({"query": "q", "completions": ["x", "y"]}, "prompt: query"),
        ({"question": "q", "gold": "x"}, "prompt: question"),
    ],
)  # fmt: skip
def test_the_line_that_is_suggested_reads_the_record(record, line):
    with pytest.raises(UserError) as error:
        read(record)
    assert f"under data, write format: {{name: records, {line}}}" in str(error.value)
    assert all(part in str(error.value) for part in list(record)[:20]), "the columns that are there"
    names = json.loads(json.dumps(_yaml(f"{{{line}}}")))
    assert isinstance(read(record, **names), Row)


def _yaml(text):
    import yaml

    return yaml.safe_load(text)


def test_no_line_is_suggested_where_a_preference_is_unknown():
    with pytest.raises(UserError, match="closest reading: a pair of columns, without preferred"):
        read({"question": "q", "response_1": "x", "response_2": "y", "strength": -2})


def test_the_error_for_many_columns_is_short():
    with pytest.raises(UserError) as error:
        read({f"c{n}": "x" for n in range(500)})
    assert "c19 and 480 more are no row" in str(error.value)
    assert len(str(error.value)) < 400
