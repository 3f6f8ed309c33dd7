from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.data.formats.dialogue import ASSISTANT, HUMAN, dialogue_row, turns
from alignzoo.interfaces.rows import Row, Skipped


def speak(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}:{turn}" for i, turn in enumerate(turns))


def row_of(chosen: str, rejected: str) -> Row:
    row = dialogue_row("f:1", chosen, rejected)
    assert isinstance(row, Row), row
    return row


def test_the_boundary_is_after_the_last_assistant_mark_and_the_space_belongs_to_the_reply():
    row = row_of(speak(" hi", " hello", " why?", " because"), speak(" hi", " hello", " why?", " no"))
    assert row.prompt == "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant:"
    assert [c.text for c in row.completions] == [" because", " no"]
    assert [c.context for c in row.completions] == ["", ""]


def test_what_differs_before_the_last_reply_belongs_to_its_branch():
    row = row_of(speak(" hi", " A", " q", " x"), speak(" hi", " B", " q", " y"))
    assert row.prompt == "\n\nHuman: hi"
    assert [c.context for c in row.completions] == [
        "\n\nAssistant: A\n\nHuman: q\n\nAssistant:",
        "\n\nAssistant: B\n\nHuman: q\n\nAssistant:",
    ]
    assert [c.text for c in row.completions] == [" x", " y"]


def test_one_dialogue_may_be_longer_than_the_other():
    row = row_of(speak(" hi", " A"), speak(" hi", " B", " more", " C"))
    assert row.prompt == "\n\nHuman: hi"
    assert [c.context for c in row.completions] == [ASSISTANT, "\n\nAssistant: B\n\nHuman: more\n\nAssistant:"]


def test_the_prompt_is_cut_at_a_turn_and_never_inside_one():
    row = row_of(speak(" hi", " same start, A", " q", " x"), speak(" hi", " same start, B", " q", " y"))
    assert row.prompt == "\n\nHuman: hi"


def test_the_group_is_the_first_human_turn_whatever_its_white_space():
    one = row_of(speak(" How  are\nyou?", " a"), speak(" How  are\nyou?", " b"))
    two = row_of(speak(" How are you? ", " a", " and?", " c"), speak(" How are you? ", " a", " and?", " d"))
    assert one.group == two.group == "Human: How are you?"


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason", "detail"),
    [
        (speak(" q", " a"), speak(" q", " a"), "chosen equals rejected", ""),
        (speak(" q", " "), speak(" q", " a"), "empty completion", "chosen"),
        (speak(" q", " a"), speak(" q", ""), "empty completion", "rejected"),
        (speak(" q", " a"), speak(" q", " a", " and then?"), "no assistant reply at the end", "rejected"),
        ("", speak(" q", " a"), "no assistant reply at the end", "chosen"),
        ("free text", speak(" q", " a"), "no assistant reply at the end", "chosen"),
        (speak(" q", " a"), speak(" other", " a"), "no shared prompt", "the first turns differ"),
    ],
)
def test_rows_without_a_usable_pair_are_skipped_with_their_reason(chosen, rejected, reason, detail):
    assert dialogue_row("f:1", chosen, rejected) == Skipped("f:1", reason, detail)


text = st.text(alphabet="ab :\nHé", max_size=6) | st.sampled_from([" x", " y", "", "\n\n", " Human:", "Assistant:"])
part = st.lists(st.tuples(st.sampled_from([HUMAN, ASSISTANT]), text).map("".join), max_size=4).map("".join)


@given(shared=part, chosen=part, rejected=part, replies=st.tuples(text, text))
def test_prompt_context_and_reply_put_both_dialogues_together_again(shared, chosen, rejected, replies):
    whole = [shared + own + ASSISTANT + reply for own, reply in zip((chosen, rejected), replies, strict=True)]
    row = dialogue_row("f:1", *whole)
    if isinstance(row, Skipped):
        return
    contexts = [c.context for c in row.completions]
    assert [row.prompt + c.context + c.text for c in row.completions] == whole
    for completion in row.completions:
        assert (row.prompt + completion.context).endswith(ASSISTANT)
        assert HUMAN not in completion.text
        assert ASSISTANT not in completion.text
        assert completion.text.strip()
    assert "".join(turns(whole[0])) == whole[0]
    if all(contexts):
        assert turns(contexts[0])[0] != turns(contexts[1])[0], "the shared prompt could have been longer"


@given(shared=part.filter(bool), replies=st.tuples(text, text))
def test_an_ordinary_row_is_never_skipped_and_has_no_context(shared, replies):
    usable = all(reply.strip() for reply in replies) and replies[0] != replies[1]
    marks = any(mark in ASSISTANT + reply for mark in (HUMAN, ASSISTANT) for reply in replies if mark in reply)
    row = dialogue_row("f:1", *(shared + ASSISTANT + reply for reply in replies))
    if usable and not marks:
        assert isinstance(row, Row)
        assert row.prompt == shared + ASSISTANT
        assert [c.context for c in row.completions] == ["", ""]
