"""Prompts without completions as token trees: a trunk alone, beside transformers' own ids, and through the store's files."""

from __future__ import annotations

import numpy as np
import pytest
from byte_tokenizer import CHATML, byte_tokenizer

from alignzoo.data.convert import to_prompts
from alignzoo.data.formats.records import Records
from alignzoo.data.row_reader import RowReader
from alignzoo.data.sources.files import Files
from alignzoo.data.splits import read_rows
from alignzoo.data.statistics import lengths
from alignzoo.data.tokenize import tokenize
from alignzoo.data.tree_writer import TreeWriter, read_stored
from alignzoo.evaluation.samples import choose_reply_rows, reply_records
from alignzoo.models.generation import Reply
from alignzoo.recipe.schema import TokensConfig

TOKENS = TokensConfig(max_length=400, max_prompt_length=60)
TOOL = {"type": "function", "function": {"name": "sea"}}
USER = {"role": "user", "content": "What is a fjord?"}
WITH_TOOLS = CHATML.replace("{% for m", "{% if tools %}{{ tools | tojson }}{% endif %}{% for m", 1)


def rows(*records):
    return [Records().row(f"r{n}", record, "f") for n, record in enumerate(records)]


@pytest.mark.parametrize("bos", [True, False])
def test_the_ids_of_a_plain_prompt_are_the_tokenizers(bos):
    tokenizer = byte_tokenizer(prepends_bos=bos)
    done = tokenize(rows({"prompt": "a b"}, {"prompt": "c "}), tokenizer, TOKENS)
    assert [tree.prompt.tolist() for tree in done.trees] == [tokenizer(text)["input_ids"] for text in ("a b", "c ")]
    assert [tree.branches for tree in done.trees] == [(), ()]


@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("chat", [[USER], [USER, {"role": "assistant", "content": "A sea."}, USER]])
def test_the_ids_of_a_chat_are_those_that_a_reply_is_drawn_for(chat, tools):
    tokenizer = byte_tokenizer(template=WITH_TOOLS)
    (tree,) = tokenize(rows({"prompt": chat, "tools": tools}), tokenizer, TOKENS).trees
    want = tokenizer.apply_chat_template(chat, tools=tools, add_generation_prompt=True, return_dict=False)
    assert tree.prompt.tolist() == want[-60:]


def test_a_begun_answer_is_left_open():
    tokenizer = byte_tokenizer(template=CHATML)
    chat = [USER, {"role": "assistant", "content": "A fj"}]
    (tree,) = tokenize(rows({"prompt": chat}), tokenizer, TOKENS).trees
    assert tokenizer.decode(tree.prompt).endswith("<|im_start|>assistant\nA fj")


def test_a_prompt_alone_is_cut_to_its_own_limit():
    done = tokenize(rows({"prompt": "x" * 80}, {"prompt": "x" * 60}), byte_tokenizer(), TOKENS)
    assert [len(tree.prompt) for tree in done.trees] == [60, 60]
    assert done.truncated_prompts == 1
    never = TOKENS.model_copy(update={"truncate_prompt": "never"})
    assert [one.reason for one in tokenize(rows({"prompt": "x" * 80}), byte_tokenizer(), never).skipped] == [
        "prompt over the limit"
    ]


def test_prompts_and_pairs_go_through_the_stores_files(tmp_path):
    """Among rows with completions and between them, with every column beside them."""
    tokenizer = byte_tokenizer()
    prompts = [{"prompt": f"q {n}", "answer": str(n), "tests": [n, None]} for n in range(3)]
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "gold": "x"}
    label = {"prompt": "p", "completion": "a", "label": True}
    part = tokenize(rows(prompts[0], pair, prompts[1], label, prompts[2]), tokenizer, TOKENS)
    writer = TreeWriter(tmp_path / "work", tmp_path / "rows.jsonl")
    writer.add(part)
    writer.save(writer.trees(), tmp_path / "trees.safetensors")
    read = read_stored(tmp_path / "trees.safetensors", tmp_path / "rows.jsonl", mismatched=False)
    assert list(read.rows) == list(part.rows)
    assert [row.extra for row in read.rows][:2] == [{"answer": "0", "tests": [0, None]}, {"gold": "x"}]
    assert [tree.prompt.tolist() for tree in read.trees] == [tree.prompt.tolist() for tree in part.trees]
    assert [len(tree.branches) for tree in read.trees] == [0, 2, 0, 1, 0]
    assert [read.trees.names(n) for n in range(3)] == [(), ("chosen", "rejected"), ()]
    assert read.trees.parted.tolist() == [False] * 5
    assert set(lengths(read)) == {"prompt", "chosen", "rejected"}


def test_replies_can_be_drawn_for_them():
    tokenizer = byte_tokenizer()
    part = tokenize(rows({"prompt": "q 1"}, {"prompt": "q 2"}), tokenizer, TOKENS)
    assert choose_reply_rows(part, 5) == [0, 1]
    replies = [[Reply(np.array([1]), text, 0.0, 0.0, text < "y") for text in texts] for texts in ("xy", "zw")]
    first, _ = reply_records(part, 5, tokenizer, *replies)
    assert first == {"id": "r0", "prompt": "q 1", "before": "x", "after": "z", "chosen": "", "rejected": "",
                     "before_finished": True, "after_finished": False}  # fmt: skip


def test_prompts_are_read_split_and_counted_as_other_rows(write):
    path = write("prompts.jsonl", [{"prompt": f"q {n // 2}", "answer": n} for n in range(40)])
    source = Files(path=path, label_noise=0.5, held_out_fraction=0.3)
    found = read_rows(source)
    assert (found.read, len(found.train) + len(found.held_out), found.flipped) == (40, 40, 0)
    assert {row.group for row in found.train} & {row.group for row in found.held_out} == set()
    assert len(list(RowReader(source))) == len(found.train)


def test_rows_with_completions_give_their_prompts():
    answer = {"role": "assistant", "content": "A sea."}
    dialogues = {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                 "rejected": "\n\nHuman: a\n\nAssistant: x\n\nHuman: c\n\nAssistant: d"}  # fmt: skip
    given = rows({"prompt": "q", "chosen": "a", "rejected": "b", "gold": "x"}, {"messages": [USER, answer, USER, answer]},
                 {"messages": [USER, answer, USER]}, {"prompt": "q", "completion": "a", "label": False}, dialogues)  # fmt: skip
    kept, skipped = to_prompts(given)
    assert [row.prompt for row in kept] == ["q", (USER,), (USER, answer, USER), "q"]
    assert [(row.completions, row.extra.get("gold")) for row in kept] == [((), "x"), ((), None), ((), None), ((), None)]
    assert [(one.id, one.reason) for one in skipped] == [("r4", "dialogues that differ before the reply")]
    last, _ = to_prompts(given, "last_assistant")
    assert last[1].prompt == (USER, answer, USER), "where the last turn begins"
