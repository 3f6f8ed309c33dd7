"""What a record of a table means: every shape, every column beside it, and every mistake at its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.core.errors import UserError
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.data.formats.values import numbers
from alignzoo.data.sources.files import Files
from alignzoo.data.splits import read_rows, without_tie
from alignzoo.data.tree_writer import row_from_json, row_to_json
from alignzoo.interfaces.rows import Row, Skipped

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
SINGLE = {"prompt": "p", "completion": "a", "label": True}
LIST = {"prompt": "p", "completions": ["a", "b", "c"]}


def read(record, columns=None) -> Row | Skipped:
    return record_row("f:1", record, columns or {}, "f.jsonl:1")


def texts(row: Row) -> list[str]:
    return [one.text if isinstance(one.text, str) else one.text[0]["content"] for one in row.completions]


def says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


# Every shape


def test_a_pair():
    row = read(PAIR)
    assert (row.prompt, texts(row), row.group) == ("p", ["a", "b"], "p")
    assert [one.columns for one in row.completions] == [{}, {}]


@pytest.mark.parametrize(
    ("label", "desirable"),
    [(True, 1.0), (False, 0.0), (1, 1.0), (0, 0.0), (1.0, 1.0), ("true", 1.0), ("False", 0.0), ("TRUE", 1.0), ("0", 0.0), ("1.0", 1.0)],
)  # fmt: skip
def test_a_completion_with_a_label(label, desirable):
    row = read(SINGLE | {"label": label})
    assert (row.prompt, texts(row)) == ("p", ["a"])
    assert row.completions[0].columns == {"desirable": desirable}
    assert row.columns == {}


@pytest.mark.parametrize(
    ("beside", "order", "scores"),
    [
        ({"scores": [1, 3, 2]}, ["b", "c", "a"], [3, 2, 1]),
        ({"scores": [-0.5, 0, -2]}, ["b", "a", "c"], [0, -0.5, -2]),
        ({"scores": ["1", "3.5", "2"]}, ["b", "c", "a"], [3.5, 2, 1]),
        ({"ranks": [3, 1, 2]}, ["b", "c", "a"], [-1, -2, -3]),
        ({"ranks": [0, 2, 1]}, ["a", "c", "b"], [0, -1, -2]),
        ({"ranks": [2, 1, 1]}, ["b", "c", "a"], [-1, -1, -2]),
        ({"scores": [1, 2, 2]}, ["b", "c", "a"], [2, 2, 1]),
        ({"scores": None, "ranks": [2, 1, 3]}, ["b", "a", "c"], [-1, -2, -3]),
    ],
)
def test_a_list_is_put_in_order_and_ties_stay_in_the_files(beside, order, scores):
    row = read(LIST | beside)
    assert texts(row) == order
    assert [one.columns["score"] for one in row.completions] == scores


@pytest.mark.parametrize("beside", [{}, {"scores": None}, {"ranks": None}])
def test_a_list_without_scores_stands_in_order(beside):
    row = read(LIST | beside)
    assert texts(row) == ["a", "b", "c"]
    assert [one.columns for one in row.completions] == [{}, {}, {}]


@pytest.mark.parametrize("scores", [[1, 1, 1], [0.0, 0, -0.0]])
def test_a_list_in_which_nothing_is_better_is_a_tie(scores):
    for record in (LIST | {"scores": scores}, LIST | {"ranks": scores}, LIST | {"scores": scores, "tie": 0}):
        row = read(record)
        assert row.columns == {"tie": 1.0}
        assert without_tie(row) == Skipped("f:1", "all scores are equal")
    assert "tie" not in read(LIST | {"scores": [1, 1, 2]}).columns
    equal = read(PAIR | {"chosen_score": 2, "rejected_score": 2})
    assert without_tie(equal) is equal, "a pair names its better completion, whatever its scores"
    assert without_tie(read(PAIR | {"tie": True})) == Skipped("f:1", "no preference", "tie")
    for value in (False, 0, "false"):
        assert without_tie(read(PAIR | {"tie": value})).columns == {"tie": 0.0}


def test_a_list_of_numbers_beside_a_list_of_completions_is_a_column_of_each():
    beside = {"scores": [1, 3, 2], "helpfulness": [0.5, 4, "2"], "safe": [True, False, True], "many": [1, 2]}
    row = read(LIST | beside)
    assert texts(row) == ["b", "c", "a"]
    assert [one.columns for one in row.completions] == [
        {"helpfulness": 4.0, "safe": 0.0, "score": 3.0}, {"helpfulness": 2.0, "safe": 1.0, "score": 2.0},
        {"helpfulness": 0.5, "safe": 1.0, "score": 1.0},
    ]  # fmt: skip
    assert [one.columns for one in read(LIST | {"safe": [1, 0, 1]}).completions] == [{"safe": s} for s in (1, 0, 1)]


def test_flags_are_numbers_of_a_row_or_of_a_side():
    row = read(PAIR | {"chosen_unsafe": True, "unsafe_rejected": "FALSE", "hard": False})
    assert [one.columns for one in row.completions] == [{"unsafe": 1.0}, {"unsafe": 0.0}]
    assert row.columns == {"hard": 0.0}


@pytest.mark.parametrize("prompt", ["p", [says("user", "p")], [says("system", "s"), says("user", "p")]])
@pytest.mark.parametrize(
    "record",
    [
        {"completion": [says("assistant", "a")], "label": True},
        {"completions": [[says("assistant", "a")], "b", [says("assistant", "c")]]},
    ],
    ids=["single", "list"],
)
def test_chats_and_plain_answers_to_them(record, prompt):
    row = read({"prompt": prompt, **record})
    assert row.prompt == (tuple(prompt) if isinstance(prompt, list) else (says("user", "p"),))
    assert texts(row) == ["a", "b", "c"][: len(row.completions)]
    assert all(one.text[0]["role"] == "assistant" for one in row.completions)
    assert row.group == "p"


def test_columns_decide_the_shape_of_a_record_and_a_pair_comes_first():
    both = PAIR | {"completions": ["x", "y"], "completion": "z", "label": True}
    assert texts(read(both)) == ["a", "b"]
    assert texts(read({**LIST, "completion": "z", "label": True})) == ["a", "b", "c"]
    own = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    assert texts(read({"question": "q", "better": "a", "worse": "b"}, own)) == ["a", "b"]
    single = {"question": "q", "completion": "a", "label": 1, "better": None, "worse": None}
    assert read(single, own).prompt == "q", "columns of null yield to those with a value"


# Numbers beside them


def test_numbers_are_the_rows_and_those_of_a_side_its_own():
    beside = {"margin": 1.5, "chosen_score": 3, "score_rejected": -1, "rejected_length": 7, "note": "x", "many": [1, 2]}
    row = read(PAIR | beside)
    assert row.columns == {"margin": 1.5}
    assert [one.columns for one in row.completions] == [{"score": 3.0}, {"score": -1.0, "length": 7.0}]


@pytest.mark.parametrize(
    ("better", "worse"),
    [("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"), ("yw_score", "score_yl")],
)
def test_both_spellings_of_a_sides_number_and_the_tables_own_names(better, worse):
    row = read({"prompt": "p", "yw": "a", "yl": "b", better: 2, worse: 1}, {"chosen": "yw", "rejected": "yl"})
    assert [one.columns for one in row.completions] == [{"score": 2.0}, {"score": 1.0}]
    assert row.columns == {}


@pytest.mark.parametrize(
    "record", [SINGLE | {"weight": 2, "label": 1}, LIST | {"weight": 2, "scores": [1, 2, 3]}], ids=["single", "list"]
)
def test_numbers_beside_a_completion_or_a_list_are_the_rows(record):
    assert read(record).columns == {"weight": 2.0}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0), (-0.5, -0.5), ("4.25", 4.25), ("-1e3", -1000.0),
        (True, 1.0), (False, 0.0), ("true", 1.0), ("False", 0.0), (None, None), (float("nan"), None), (float("inf"), None), ("nan", None), ("-inf", None),
        (10**400, None), ("", None), ("3 apples", None), ([1], None), ({"a": 1}, None),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_counts_as_a_number(value, number):
    assert numbers({"x": value}) == ({} if number is None else {"x": number})


def test_a_text_that_looks_like_a_number_stays_a_text():
    row = read({"prompt": "2 + 2 =", "chosen": "4", "rejected": "5"})
    assert (texts(row), row.columns) == (["4", "5"], {})
    assert read({"prompt": "7", "completion": "8", "label": "1"}).columns == {}
    assert texts(read({"prompt": "7", "completions": ["8", "9"]})) == ["8", "9"]


# What can't be used


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (SINGLE | {"completion": None}, "empty completion"),
        (SINGLE | {"completion": "  "}, "empty completion"),
        (SINGLE | {"completion": []}, "empty completion"),
        (SINGLE | {"completion": [says("user", "a")]}, "no assistant reply at the end"),
        (SINGLE | {"prompt": [says("user", "p")], "completion": [says("user", "a"), says("assistant", "b")]}, "the completion does not begin with an assistant message"),
        (SINGLE | {"completion": [says("user", "a"), says("assistant", "b")]}, "the prompt is not a message of the chats"),
        (LIST | {"completions": ["a", None, "c"]}, "empty completion"),
        (LIST | {"completions": ["a", "", "c"]}, "empty completion"),
        (LIST | {"completions": ["a", "b", "a"]}, "two completions are equal"),
        (LIST | {"completions": ["a", "b", [says("assistant", "a")]]}, "two completions are equal"),
        (PAIR | {"rejected": "a"}, "chosen equals rejected"),
        (PAIR | {"chosen": None}, "empty completion"),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_skipped_with_its_reason(record, reason):
    row = read(record)
    assert isinstance(row, Skipped)
    assert row.reason == reason


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prompt": "p", "completion": "a", "lable": True}, "a completion has no label; expected label: true (desirable) or false; did you mean 'lable'?"),
        (SINGLE | {"label": 2}, "label is 2; expected true (desirable) or false"),
        (SINGLE | {"label": "good"}, "label is 'good'"),
        (SINGLE | {"label": None}, "label is None"),
        (SINGLE | {"label": [True]}, "label is [True]"),
        (SINGLE | {"completion": 3}, "completion: the value is a number; expected a string or a list of chat messages"),
        ({"completion": "a", "label": True}, "no column 'prompt'; expected one of completion, label"),
        ({"promt": "p", "completion": "a", "label": True}, "no column 'prompt'; expected one of promt, completion, label; did you mean 'promt'?"),
        (SINGLE | {"prompt": None}, "no prompt; expected text or chat messages"),
        (LIST | {"completions": "a"}, "completions is not a list of two or more; expected a list of completions"),
        (LIST | {"completions": ["a"]}, "completions is not a list of two or more"),
        (LIST | {"completions": None}, "completions is not a list of two or more"),
        (LIST | {"completions": ["a", 3, "c"]}, "completion 2: the value is a number"),
        (LIST | {"completions": ["a", {"content": "b"}, "c"]}, "completion 2: the value is an object"),
        (LIST | {"completions": ["a", [{"role": "assistant"}], "c"]}, "completion 2: a chat message has no text"),
        (LIST | {"scores": [1, 2]}, "scores is not a list of 3 numbers; expected one for each completion"),
        (LIST | {"scores": [1, None, 2]}, "scores is not a list of 3 numbers"),
        (LIST | {"scores": [1, True, 2]}, "scores is not a list of 3 numbers"),
        (LIST | {"scores": [1, float("nan"), 2]}, "scores is not a list of 3 numbers"),
        (LIST | {"scores": 5}, "scores is not a list of 3 numbers"),
        (LIST | {"ranks": ["first", 2, 3]}, "ranks is not a list of 3 numbers"),
        (LIST | {"scores": [3, 2, 1], "ranks": [1, 2, 3]}, "has both scores and ranks; expected one of them"),
        (LIST | {"score": [1, 2, 3]}, "no scores, but a list of numbers 'score'; expected scores or ranks"),
        (LIST | {"rank": [3, 2, 1]}, "no scores, but a list of numbers 'rank'"),
        (PAIR | {"chosen": 3}, "chosen: the value is a number"),
        ({"prompt": "p", "chosen": "a", "rejcted": "b"}, "no column 'rejected'; expected one of prompt, chosen, rejcted; did you mean 'rejcted'?"),
        (PAIR | {"chosen": [says("assistant", "a")]}, "chosen and rejected have different types"),
        ({}, "no columns; expected a record with columns"),
        ({"messages": "hi"}, "messages is a string; expected a list of chat messages"),
        ({"text": 3}, "text is a number; expected a string"),
        ({"instruction": "a", "output": ["b"]}, "output is a list; expected a string"),
        ({"instruction": "a", "output": "b", "history": ["c"]}, "history is not a list of turns"),
        ({"conversations": [{"from": "humn", "value": "a"}]}, "conversations: a turn is from 'humn'; expected one of human, "),
        ({"conversations": [{"from": "function_call", "value": "f(x)"}]}, "a function_call is not JSON of a call"),
        ({"conversations": [{"from": "human"}]}, "conversations: a chat message has no text"),
        ({"messages": [says("user", "a"), says("assistant", "b")], "chat_template_kwargs": {"tokenize": 1}},
         "chat_template_kwargs can't be used: tokenize is not a variable of a chat template"),
        ({"question": "q", "answer": "a"}, "the columns question, answer are no row"),
        ({"question": "q", "answer": "a"}, "closest reading: a prompt with its completion; under data, write format: {name: records, prompt: question, completion: answer}"),
        ({"question": "q", "better": "a", "worse": "b"}, "closest reading: a pair; under data, write format: {name: records, prompt: question, chosen: better, rejected: worse}"),
        ({"dialogue": []}, "closest reading: a chat; under data, write format: {name: records, messages: dialogue}"),
        ({"mesages": []}, "format: {name: records, messages: mesages}"),
        ({"content": "x"}, "closest reading: a text; under data, write format: {name: records, text: content}"),
        ({"question": "q", "better": "a"}, "closest reading: a pair, without rejected"),
        ({"x": 1}, "the columns x are no row; expected a prompt (or instruction) with chosen and rejected, "),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_at_its_line(record, said):
    with pytest.raises(UserError) as error:
        read(record)
    assert str(error.value).startswith("f.jsonl:1: ")
    assert said in str(error.value)


def test_a_list_that_is_no_score_does_not_disturb():
    assert texts(read(LIST | {"sources": ["x", "y", "z"], "score": [1, 2], "turns": [1, 2, 3, 4]})) == ["a", "b", "c"]


def test_the_place_is_the_files_line(write):
    path = write("rows.jsonl", [SINGLE, LIST | {"scores": [1]}])
    with pytest.raises(UserError, match=r"rows\.jsonl:2: scores is not a list of 3 numbers"):
        list(Files(path=path).read("train"))


def test_a_spreadsheet_has_numbers_and_labels_as_text(write):
    pairs = b"prompt,chosen,rejected,chosen_score,rejected_score,margin\np,a,b,3.5,1,0.25\n"
    (row,) = Files(path=write("pairs.csv", pairs)).read("train")
    assert [one.columns for one in row.completions] == [{"score": 3.5}, {"score": 1.0}]
    assert row.columns == {"margin": 0.25}
    (row,) = Files(path=write("singles.csv", b"prompt,completion,label\np,a,False\n")).read("train")
    assert row.completions[0].columns == {"desirable": 0.0}


# Splits and noise


def table(write, records) -> Files:
    return Files(path=write("rows.jsonl", records), held_out_fraction=0.3)


@pytest.mark.parametrize("kind", ["single", "list", "mixed"])
def test_all_rows_of_a_prompt_are_on_one_side_of_the_split(write, kind):
    """One prompt's desirable and undesirable completions stand in rows of their own."""
    records = []
    for i in range(60):
        prompt = f"question {i // 3}"
        single = {"prompt": prompt, "completion": f"answer {i}", "label": bool(i % 2)}
        several = {"prompt": [says("user", prompt)], "completions": [f"answer {i}", f"other {i}"]}
        records.append(single if kind == "single" or (kind == "mixed" and i % 3) else several)
    rows = read_rows(table(write, records))
    groups = [{row.group for row in part} for part in (rows.train, rows.held_out)]
    assert groups[0] & groups[1] == set()
    assert len(groups[0]) + len(groups[1]) == 20
    assert min(map(len, groups)) > 2
    assert len(rows.train) + len(rows.held_out) == 60


def test_noise_flips_labels_and_turns_orders_round_and_leaves_the_numbers_in_place(write):
    records = [
        {"prompt": "p 1", "chosen": "a", "rejected": "b", "chosen_score": 2, "rejected_score": 1},
        {"prompt": "p 2", "completion": "a", "label": True, "weight": 5},
        {"prompt": "p 3", "completion": "a", "label": False},
        {"prompt": "p 4", "completions": ["a", "b", "c"], "scores": [3, 2, 1]},
        {"prompt": "p 5", "chosen": "a", "rejected": "b"},
    ]
    source = table(write, records).model_copy(update={"label_noise": 1.0})
    before, after = (
        {row.id: row for row in (*rows.train, *rows.held_out)}
        for rows in (read_rows(table(write, records)), read_rows(source))
    )
    held_out = {row.id for row in read_rows(source).held_out}
    assert len(held_out) < 5
    for id, row in after.items():
        if id in held_out:
            assert row == before[id]
        elif len(row.completions) == 1:
            assert row.completions[0].columns["desirable"] == 1 - before[id].completions[0].columns["desirable"]
            assert texts(row) == texts(before[id])
        else:
            assert texts(row) == texts(before[id])[::-1]
            assert [one.columns for one in row.completions] == [one.columns for one in before[id].completions]
        assert row.columns == before[id].columns


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("a"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "prompt",
                "chosen",
                "rejected",
                "completion",
                "completions",
                "label",
                "scores",
                "ranks",
                "chosen_score",
                "messages",
                "conversations",
                "text",
                "instruction",
                "output",
                "history",
                "chat_template_kwargs",
                "tools",
            ]
        ),
        ANYTHING,
    )
)
def test_no_record_gives_a_traceback(record):
    """A row, a skipped row or a reported mistake, whatever JSON holds."""
    try:
        row = read(record)
    except UserError as error:
        assert str(error).startswith("f.jsonl:1")
    else:
        assert isinstance(row, Row | Skipped)


# Chats: one reading


USER, MORE = says("user", "q"), says("user", "and then?")
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
OTHER = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 2}}}]}


def parts(row: Row):
    return row.prompt, [(one.context, one.text) for one in row.completions]


def test_answers_of_several_turns_are_read_as_the_same_chats_written_whole():
    one, two = says("assistant", "1"), says("assistant", "2")
    whole = {"chosen": [USER, one, MORE, one], "rejected": [USER, one, MORE, two]}
    behind = {"prompt": [USER], "chosen": [one, MORE, one], "rejected": [one, MORE, two]}
    want = (USER, one, MORE), [((), (one,)), ((), (two,))]
    spoken = behind | {"prompt": "q"}
    beside = whole | {"prompt": "q"}
    for record in (whole, behind, spoken, beside):
        assert parts(read(record)) == want, record
    assert parts(read({"prompt": [USER], "completion": [one, MORE, two], "label": 1})) == (want[0], want[1][1:])
    parting = read({"prompt": [USER], "chosen": [one, MORE, one], "rejected": [two, MORE, two]})
    assert parts(parting) == ((USER,), [((one, MORE), (one,)), ((two, MORE), (two,))])


def test_a_plain_prompt_that_the_whole_chats_do_not_hold_is_not_passed_over():
    whole = {"chosen": [USER, says("assistant", "1")], "rejected": [USER, says("assistant", "2")]}
    assert read(whole | {"prompt": "another"}) == Skipped("f:1", "the prompt is not a message of the chats")


def test_calls_names_thoughts_and_tools_stay_in_the_messages():
    answer = {"role": "tool", "name": "f", "content": "3", "tool_call_id": "a"}
    thought = says("assistant", "4") | {"reasoning_content": "3 + 1"}
    record = {"chosen": [USER, CALL, answer, thought], "rejected": [USER, CALL, answer, says("assistant", "5")]}
    row = read(record | {"tools": '[{"type": "function"}]'})
    call = {key: value for key, value in CALL.items() if value is not None}
    assert row.prompt == (USER, call, answer)
    assert row.completions[0].text == (thought,)
    assert row.tools == ({"type": "function"},)
    assert row_from_json(json.loads(json.dumps(row_to_json(row)))) == row
    calls = read({"prompt": [USER], "chosen": [CALL], "rejected": [OTHER]})
    assert isinstance(calls, Row), "pairs that differ only in the call are different"
    assert read({"prompt": [USER], "chosen": [CALL], "rejected": [CALL]}) == Skipped("f:1", "chosen equals rejected")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"tools": "[{"}, "tools is not JSON"),
        ({"tools": [1]}, "tools is not a list of functions"),
        ({"chosen": [{"role": "assistant", "tool_calls": "f()"}]}, "chosen: tool_calls is not a list of calls"),
        ({"chosen": [says("assistant", [{"type": "image"}])]}, "chosen: a message part is not text"),
        ({"chosen": [{"role": "assistant", "content": None}]}, "chosen: a chat message has no text"),
    ],
)
def test_a_mistake_in_a_chat_is_reported_at_its_line(record, said):
    with pytest.raises(UserError, match=said):
        read({"prompt": [USER], "chosen": [CALL], "rejected": [OTHER]} | record)


def test_lists_of_chosen_and_rejected_are_a_list_of_two_scores():
    row = read({"prompt": "p", "chosen": ["a", "b"], "rejected": ["c", "d", "e"], "subset": "Ties", "id": "tied:1"})
    assert texts(row) == ["a", "b", "c", "d", "e"]
    assert [one.columns["score"] for one in row.completions] == [1, 1, 0, 0, 0]
    assert row.extra == {"subset": "Ties", "id": "tied:1"}
    one = read({"prompt": "p", "chosen": "a", "rejected": ["c", "d"]})
    assert [one.columns["score"] for one in one.completions] == [1, 0, 0]
    chats = read(
        {
            "prompt": [says("user", "p")],
            "chosen": [[says("assistant", "a")]],
            "rejected": [[says("assistant", "c")], [says("assistant", "d")]],
        }
    )
    assert [one.text[0]["content"] for one in chats.completions] == ["a", "c", "d"]
    assert read({"prompt": "p", "chosen": ["a"], "rejected": ["c", "c"]}).reason == "two completions are equal"
    with pytest.raises(UserError, match="no column 'rejected'"):
        read({"prompt": "p", "chosen": ["a", "b"]})
