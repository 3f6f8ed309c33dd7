"""Rows of SFT: the shapes that people have, and masks beside transformers' `return_assistant_tokens_mask`."""

from __future__ import annotations

import json

import pytest
from byte_tokenizer import byte_tokenizer
from sft_rows import CALL, LONG, MARKED, PLAIN, TOOL, ids_and_mask, row_of, say, tree_of
from tokenizer_shapes import OPENS, SHAPES

from alignzoo.core.errors import UserError
from alignzoo.data.convert import convert_rows
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.data.tokenize import tokenize
from alignzoo.data.tree_writer import row_from_json, row_to_json
from alignzoo.evaluation.samples import as_text
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import Completion, Row, Skipped
from alignzoo.recipe.schema import TokensConfig

MATH = {"prompt": "problem", "completion": "solution"}
CHATS = {
    "one turn": [say("user", "What is a fjord?"), say("assistant", "A sea. ")],
    "two turns": [say("system", "The sea"), say("user", "a"), say("assistant", "Yes"), say("user", "b"),
                  say("assistant", "No, \u00e9")],
    "tools": [say("user", "a"), CALL, say("tool", "blue", name="sea"), say("assistant", "blue"), say("user", "b"), CALL,
              say("tool", "No", name="sea"), say("assistant", "No")],
    "user at the end": [say("user", "a"), say("assistant", "b"), say("user", "c")],
    "assistant at the start": [say("assistant", "a"), say("user", "b"), say("assistant", "c")],
    "two in a row": [say("user", "a"), say("assistant", "b"), say("assistant", "c")],
}  # fmt: skip


def scored_texts(tokenizer, tree) -> list[str]:
    (branch,) = tree.branches
    return [tokenizer.decode(branch.tokens[start:stop]) for start, stop in branch.spans.tolist()]


# --- masks


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "slow" not in shape])
def test_masks_are_those_of_a_template_with_marks(shape):
    """Of every tokenizer shape; the tokens after the last scored one, which no loss depends on, are left out."""
    tokenizer = SHAPES[shape]()
    for name, messages in CHATS.items():
        tokenizer.chat_template = MARKED
        want = tokenizer.apply_chat_template(
            messages, tools=[TOOL], return_dict=True, return_assistant_tokens_mask=True, tokenize=True
        )
        size = 1 + max(n for n, one in enumerate(want["assistant_masks"]) if one)
        record = {"messages": messages, "tools": [TOOL]}
        ids, mask = ids_and_mask(tree_of(tokenizer, record))
        assert ids == want["input_ids"][:size], name
        assert mask == want["assistant_masks"][:size], name
        last = mask[::-1].index(0)
        assert ids_and_mask(tree_of(tokenizer, record, train_on="last_assistant")) == (
            ids,
            [0] * (size - last) + [1] * last,
        )
        tokenizer.chat_template = PLAIN
        assert ids_and_mask(tree_of(tokenizer, record)) == (ids, mask), f"{name}: without marks"


def test_all_tokens_but_the_first_are_scored_as_transformers_does_without_a_mask():
    tokenizer = byte_tokenizer(template=PLAIN)
    for messages in CHATS.values():
        ids, mask = ids_and_mask(tree_of(tokenizer, {"messages": messages}, train_on="all"))
        assert ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert mask == [0] + [1] * (len(ids) - 1)
    for bos in (True, False):
        tokenizer = byte_tokenizer(prepends_bos=bos)
        for train_on in ("assistant", "all"):
            ids, mask = ids_and_mask(tree_of(tokenizer, {"text": "a text"}, train_on=train_on))
            assert ids == [*tokenizer("a text")["input_ids"], tokenizer.eos_token_id]
            assert mask == [0] + [1] * (len(ids) - 1)
    ids, mask = ids_and_mask(tree_of(tokenizer, {"prompt": "a", "completion": "b"}, train_on="all"))
    assert (len(ids), sum(mask)) == (3, 2)


def test_earlier_turns_are_found_where_the_template_cuts_their_thoughts():
    tokenizer = byte_tokenizer(template=OPENS)
    messages = [say("user", "a"), say("assistant", "<think>\nx</think>one"), say("user", "b"), say("assistant", "two")]
    tree = tree_of(tokenizer, {"messages": messages})
    assert scored_texts(tokenizer, tree) == ["one<|im_end|>", "two<|im_end|>"]
    changing = PLAIN.replace(
        "m.content or", "(m.content if loop.last or m.role != 'assistant' else m.content | upper) or"
    )
    with pytest.raises(UserError, match=r"r: the chat template writes message 2 in another way(?s:.*)last_assistant"):
        tree_of(byte_tokenizer(template=changing), {"messages": CHATS["two turns"][1:]})
    none = "{% generation %}{% endgeneration %}" + PLAIN
    with pytest.raises(UserError, match="marks of the chat template enclose nothing"):
        tree_of(byte_tokenizer(template=none), {"messages": CHATS["one turn"]})


def test_a_prompts_own_turns_are_not_scored():
    record = {
        "prompt": CHATS["two turns"][:4],
        "completion": [say("assistant", "x"), say("user", "y"), say("assistant", "z")],
    }
    for template in (PLAIN, MARKED):
        tokenizer = byte_tokenizer(template=template)
        assert scored_texts(tokenizer, tree_of(tokenizer, record)) == ["x<|im_end|>", "z<|im_end|>"]
        last = tree_of(tokenizer, record, train_on="last_assistant")
        assert scored_texts(tokenizer, last) == ["z<|im_end|>"]
        assert last.branches[0].context == 0, "the turns before are prompt, so that replies can be drawn"


def test_truncation_clips_spans_and_ends_a_branch_at_its_last_scored_token():
    tokenizer = byte_tokenizer(template=PLAIN)
    whole = tree_of(tokenizer, {"messages": CHATS["two turns"]})
    (first, second), size = whole.branches[0].spans.tolist(), len(whole.prompt)
    limit = size + second[0] - 1
    cut = tree_of(
        tokenizer, {"messages": CHATS["two turns"]}, TokensConfig(max_length=limit, max_prompt_length=limit - 1)
    )
    assert cut.branches[0].spans.tolist() == [first]
    assert len(cut.branches[0].tokens) == first[1]
    limit = size + 2
    cut = tree_of(
        tokenizer, {"messages": CHATS["two turns"]}, TokensConfig(max_length=limit, max_prompt_length=limit - 1)
    )
    assert cut.branches[0].spans.tolist() == [[0, 2]]


def test_pairs_that_part_early_score_the_assistants_turns_and_not_the_tools():
    tokenizer = byte_tokenizer(template=PLAIN)
    other = json.loads(json.dumps(CALL).replace('"at": "a"', '"at": "b"'))
    chats = [[say("user", "q"), call, say("tool", text, name="sea"), say("assistant", text)]
             for call, text in ((CALL, "blue"), (other, "red"))]  # fmt: skip
    row = row_of({"chosen": chats[0], "rejected": chats[1], "tools": [TOOL]})
    for train_on in ("assistant", "last_assistant"):
        (tree,) = tokenize([row], tokenizer, LONG, train_on=train_on).trees
        for branch, place, text in zip(tree.branches, "ab", ("blue", "red"), strict=True):
            spans = [tokenizer.decode(branch.tokens[start:stop]) for start, stop in branch.spans.tolist()]
            call = [part for part in spans if part.startswith("<call>")]
            assert spans[-1] == f"{text}<|im_end|>"
            assert len(call) == len(spans) - 1 == (train_on == "assistant")
            assert not call or (f'"at": "{place}"' in call[0] and call[0].endswith("<|im_end|>"))
    assert as_text(row, 0) == json.dumps(CALL["tool_calls"][0])


def test_a_turn_that_both_share_is_context():
    """The user's next message parts them: the assistant's turn before it is neither's own."""
    tokenizer = byte_tokenizer(template=PLAIN)
    chats = [[say("user", "u"), say("assistant", "shared"), say("user", ask), say("assistant", text)]
             for ask, text in (("v", "good"), ("w", "bad"))]  # fmt: skip
    (tree,) = tokenize([row_of({"chosen": chats[0], "rejected": chats[1]})], tokenizer, LONG).trees
    spans = [[tokenizer.decode(branch.tokens[start:stop]) for start, stop in branch.spans.tolist()]
             for branch in tree.branches]  # fmt: skip
    assert spans == [["good<|im_end|>"], ["bad<|im_end|>"]]


def test_a_turn_that_begins_as_the_generation_prompt_ends_is_scored_from_its_start():
    """The prompt of an answer without thoughts holds an empty thought, which earlier turns are written without."""
    empty = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
    cut = PLAIN.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", empty)
    assert cut != PLAIN
    tokenizer = byte_tokenizer(template=cut)
    messages = [say("user", "a"), say("assistant", "<div>x</div>"), say("user", "b"), say("assistant", "y")]
    tree = tree_of(tokenizer, {"messages": messages})
    assert scored_texts(tokenizer, tree)[0] == "<div>x</div><|im_end|>"


# --- inputs of the template


def test_tools_and_variables_of_recipe_and_row_reach_the_template():
    template = "{{ mood | default('calm') }} {{ (tools or []) | length }} " + PLAIN
    tokenizer = byte_tokenizer(template=template)
    own = {"messages": CHATS["one turn"]}
    recipe = LONG.model_copy(update={"chat_template_kwargs": {"mood": "wild"}, "tools": (TOOL, TOOL)})

    def start(record, tokens=LONG):
        (tree,) = tokenize([row_of(record)], tokenizer, tokens).trees
        return tokenizer.decode(tree.prompt).split("<")[0].split()

    assert start(own) == ["calm", "0"]
    assert start(own, recipe) == ["wild", "2"]
    for value in ({"mood": "glad"}, '{"mood": "glad"}'):
        assert start(own | {"chat_template_kwargs": value, "tools": [TOOL]}, recipe) == ["glad", "1"]
    pair = {"prompt": [say("user", "a")], "chosen": "b", "rejected": "c", "chat_template_kwargs": {"mood": "glad"}}
    single = {"prompt": [say("user", "a")], "completion": "b", "label": 1, "chat_template_kwargs": {"mood": "glad"}}
    assert start(pair) == start(single) == ["glad", "0"]
    row = row_of(pair)
    assert row_from_json(json.loads(json.dumps(row_to_json(row)))) == row


# --- shapes


USER, ANSWER = say("user", "q"), say("assistant", "a")


@pytest.mark.parametrize(
    ("record", "prompt", "completions"),
    [
        ({"messages": [USER, ANSWER]}, (USER,), ((), (ANSWER,))),
        ({"messages": [USER, ANSWER, USER]}, (USER,), ((), (ANSWER, USER))),
        ({"messages": [USER, ANSWER, USER, ANSWER]}, (USER,), ((ANSWER, USER), (ANSWER,))),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, (USER,), ((), (ANSWER,))),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
         (say("system", "s"), USER), ((), (ANSWER,))),
        ({"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "q"},
                            {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
                            {"from": "observation", "value": "3"}, {"from": "assistant", "value": "a"}]},
         (say("system", "s"), USER),
         (({"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]},
           say("tool", "3")), (ANSWER,))),
        ({"text": "a b"}, "", ("", "a b")),
        ({"prompt": "q", "completion": "a"}, "q", ("", "a")),
        ({"prompt": "q", "completion": [ANSWER]}, (USER,), ((), (ANSWER,))),
        ({"prompt": [USER], "completion": "a"}, (USER,), ((), (ANSWER,))),
        ({"instruction": "q", "input": "", "output": "a"}, (USER,), ((), (ANSWER,))),
        ({"instruction": "q", "input": "i", "output": "a"}, (say("user", "q\n\ni"),), ((), (ANSWER,))),
        ({"instruction": "q", "output": "a", "system": "s", "history": [["x", "y"]]},
         (say("system", "s"), say("user", "x"), say("assistant", "y"), USER), ((), (ANSWER,))),
    ],
)  # fmt: skip
def test_the_shapes_of_data_for_sft(record, prompt, completions):
    row = row_of(record | {"weight": 2})
    assert (row.prompt, (row.completions[0].context, row.completions[0].text)) == (prompt, completions)
    assert row.completions[0].columns == {}
    assert row.columns == {"weight": 2.0}
    assert row.is_training_text
    assert as_text(row, 0) in ("a", "a b") or "tool_calls" in completions[0][0]


def test_a_column_like_label_that_holds_none_is_no_misspelling():
    row = record_row("r", {"problem": "1 + 1", "solution": "2", "level": "Level 5"}, MATH, "r")
    assert isinstance(row, Row)
    with pytest.raises(UserError, match="did you mean 'lable'"):
        record_row("r", {"problem": "1 + 1", "solution": "2", "lable": 1}, MATH, "r")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": []}, "no messages"),
        ({"messages": None}, "no messages"),
        ({"messages": [USER, say("assistant", " ")]}, "empty completion"),
        ({"text": " "}, "empty completion"),
        ({"text": None}, "empty completion"),
        ({"prompt": "q", "completion": ""}, "empty completion"),
        ({"prompt": "q", "completion": [USER, ANSWER]}, "the completion does not begin with an assistant message"),
        ({"instruction": "q", "output": ""}, "empty completion"),
    ],
)
def test_rows_of_sft_that_can_not_be_used_are_skipped_with_their_reason(record, reason):
    assert record_row("r", record, {}, "r") == Skipped("r", reason)


@pytest.mark.parametrize(
    ("data", "row", "train_on", "said"),
    [
        ("unpaired", {"text": "a"}, "assistant", "needs labels, and row r has a single completion without one"),
        ("pair", {"text": "a"}, "assistant", "compares completions, and row r has a single completion"),
        ("chosen", {"prompt": "p", "completion": "a", "label": 1}, "all", "data.train_on: 'all' scores the prompt too"),
        ("pair", {"prompt": "p", "chosen": "a", "rejected": "b"}, "all", "row r has 2 completions; expected assistant"),
    ],
)
def test_objectives_and_rows_that_do_not_fit_are_an_error(data, row, train_on, said):
    objective = type("Own", (Objective,), {"name": "own", "data": data, "__annotations__": {}})()
    with pytest.raises(UserError) as error:
        convert_rows([row_of(row)], objective, "extremes", train_on)
    assert said in str(error.value)


def test_hh_dialogues_keep_their_context_unscored():
    row = Row("r", "p", (Completion(" a", "x"), Completion(" b", "y")), "p")
    (tree,) = tokenize([row], byte_tokenizer(), LONG).trees
    assert [branch.spans.tolist() for branch in tree.branches] == [[[1, 4]], [[1, 4]]]
