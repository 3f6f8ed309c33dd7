"""Where scored turns end in the ids, and what a template leaves out of them, counted."""

from __future__ import annotations

from collections import Counter

import pytest
from byte_tokenizer import byte_tokenizer
from sft_rows import CALL, LONG, MARKED, PLAIN, TOOL, ids_and_mask, row_of, say, tree_of
from tokenizer_shapes import SHAPES

from alignzoo.data.tokenize import tokenize

CUTS = (
    "{% for m in messages %}{% set last = loop.last %}<|im_start|>{{ m.role }}\n"
    "{{ (m.content or '').split('</think>')[-1] if m.role == 'assistant' and not last else m.content or '' }}"
    "{% if last %}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}</call>{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template that leaves thoughts and tool calls out of all turns but the last."""
WITH_MARKS = CUTS.replace("{{ (m", "{% generation %}{{ (m").replace("<|im_end|>", "<|im_end|>{% endgeneration %}", 1)
THOUGHT = say("assistant", "<think>x</think>one")


def counted(template, messages, train_on="assistant") -> Counter:
    return +tokenize(
        [row_of({"messages": messages})], byte_tokenizer(template=template), LONG, train_on=train_on
    ).boundary


@pytest.mark.parametrize("template", [CUTS, WITH_MARKS], ids=["plain", "marks"])
@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_what_a_template_leaves_out_of_scored_turns_is_counted(template, train_on):
    user, plain = say("user", "a"), say("assistant", "b")
    whole = [user, plain, user, plain]
    assert counted(template, whole, train_on) == {}
    assert counted(template, [user, THOUGHT, user, plain], train_on) == {"turns": 1}
    assert counted(template, [user, CALL, say("tool", "3"), plain], train_on) == {"tool calls": 1}
    both = [user, THOUGHT, user, {**CALL, "content": "c"}, say("tool", "3"), plain]
    assert counted(template, both, train_on) == {"turns": 1, "tool calls": 1}
    assert counted(template, [user, plain, user, CALL], train_on) == {}, "the last turn's call is written"


def test_what_is_not_scored_is_not_counted():
    user = say("user", "a")
    assert counted(CUTS, [user, THOUGHT, user, say("assistant", "b")], "last_assistant") == {}
    record = {"prompt": [user, THOUGHT, user], "completion": "b"}
    assert +tokenize([row_of(record)], byte_tokenizer(template=CUTS), LONG).boundary == {}


def test_thoughts_in_a_field_of_their_own_are_counted_where_marks_leave_them_out():
    messages = [say("user", "a"), say("assistant", "b", reasoning_content="so")]
    assert counted(MARKED, messages) == {"turns": 1}
    shown = MARKED.replace("{% generation %}", "{% generation %}{{ m.reasoning_content }}")
    assert counted(shown, messages) == {}


def test_a_tag_that_the_generation_prompt_writes_is_not_missing():
    opened = MARKED.replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}")
    assert counted(opened, [say("user", "a"), say("assistant", "<think>x</think>b")]) == {}


MARKS_INSIDE = (
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
)
"""No token of its own ends a turn, so that a token can hold its last letters and the line's end."""


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "slow" not in shape])
def test_a_token_that_spans_the_end_of_a_marked_turn_is_scored_as_in_transformers(shape):
    tokenizer = SHAPES[shape]()
    tokenizer.chat_template = MARKS_INSIDE
    for content in ("The sea is blue.", "No, é", "fjord", "blue: "):
        messages = [say("user", "a."), say("assistant", content), say("user", "b:"), say("assistant", content)]
        want = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        found = ids_and_mask(tree_of(tokenizer, {"messages": messages}))
        size = len(want["assistant_masks"]) - want["assistant_masks"][::-1].index(1)
        if (
            content == "blue: " and len(found[0]) > size
        ):  # white space at the end is in no token whose offsets are trimmed
            assert "trim" in tokenizer.backend_tokenizer.to_str()
            assert tokenizer.decode(found[0][size:]) == " "
            continue
        assert found == (want["input_ids"][:size], want["assistant_masks"][:size]), content


def test_the_token_at_the_end_is_one_that_spans_it():
    """So that the test above has such a token."""
    tokenizer = SHAPES["byte-level, trimmed offsets, BOS (Llama 3)"]()
    tokenizer.chat_template = MARKS_INSIDE
    tree = tree_of(tokenizer, {"messages": [say("user", "a"), say("assistant", "blue.")]})
    assert tokenizer.decode(tree.branches[0].tokens[-1:]) == ".\n"


def test_a_rows_empty_list_of_tools_takes_the_place_of_the_recipes():
    tokenizer = byte_tokenizer(template="{{ (tools or []) | length }} " + PLAIN)
    recipe = LONG.model_copy(update={"tools": (TOOL, TOOL)})

    def tools_of(value) -> str:
        record = {"messages": [say("user", "a"), say("assistant", "b")]} | value
        (tree,) = tokenize([row_of(record)], tokenizer, recipe).trees
        return tokenizer.decode(tree.prompt)[0]

    assert [tools_of({"tools": tools}) for tools in ([], "[]", None, "", [TOOL])] == ["0", "0", "2", "2", "1"]
    assert tools_of({}) == "2"
