from __future__ import annotations

import json

import numpy as np
import pytest
from byte_tokenizer import CHATML, byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.core.errors import UserError
from alignzoo.data.sources.hh import HH
from alignzoo.data.splits import SplitRows
from alignzoo.data.statistics import data_report, lengths
from alignzoo.data.tokenize import TokenizedRows, tokenize, truncate
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.rows import Completion, Row, Skipped
from alignzoo.recipe.schema import TokensConfig

BOS, EOS = 0, 1
LONG = TokensConfig(max_length=512, max_prompt_length=256)


def pair(prompt="the prompt", chosen=" yes", rejected=" no", contexts=("", ""), id="f:1") -> Row:
    return Row(id, prompt, (Completion(chosen, contexts[0]), Completion(rejected, contexts[1])), group=str(prompt))


def one(row: Row, tokenizer, tokens: TokensConfig = LONG):
    done = tokenize([row], tokenizer, tokens)
    assert not done.skipped, done.skipped
    return done.trees[0]


def limits(max_length: int, max_prompt_length: int, truncate_prompt="keep_end") -> TokensConfig:
    return TokensConfig(max_length=max_length, max_prompt_length=max_prompt_length, truncate_prompt=truncate_prompt)


# --- the boundary


def test_prompt_and_branch_are_the_text_and_eos_belongs_to_the_completion(tokenizer):
    tree = one(pair(), tokenizer)
    assert tokenizer.decode(tree.prompt) == "the prompt"
    assert [tokenizer.decode(branch.tokens) for branch in tree.branches] == [" yes</s>", " no</s>"]
    assert [(branch.context, branch.scored) for branch in tree.branches] == [(0, 5), (0, 4)]
    assert tree.prompt.dtype == np.int32


def test_a_branch_has_its_own_context_before_what_is_scored(tokenizer):
    tree = one(pair(contexts=(" then A:", "")), tokenizer)
    chosen, rejected = tree.branches
    assert tokenizer.decode(chosen.tokens) == " then A: yes</s>"
    assert tokenizer.decode(chosen.select(chosen.tokens)) == " yes</s>"
    assert (chosen.context, rejected.context) == (8, 0)


def test_bos_only_if_the_tokenizer_puts_it_there_and_only_once(tokenizer):
    opens = byte_tokenizer(prepends_bos=True)
    assert one(pair(), tokenizer).prompt[0] != BOS
    prompt = one(pair(), opens).prompt
    assert prompt[0] == BOS
    assert opens.decode(prompt[1:]) == "the prompt"
    assert (one(pair("<s>the prompt"), opens).prompt == prompt).all()
    assert all(BOS not in branch.tokens for branch in one(pair(contexts=("a", "b")), opens).branches)


def test_eos_is_not_doubled(tokenizer):
    assert one(pair(chosen=" yes</s>"), tokenizer).branches[0].tokens.tolist().count(EOS) == 1


def test_an_empty_prompt_becomes_the_token_that_texts_begin_after(tokenizer):
    assert one(pair(prompt=""), tokenizer).prompt.tolist() == [BOS]
    without = byte_tokenizer()
    without.bos_token = None
    assert one(pair(prompt=""), without).prompt.tolist() == [EOS]


def test_plain_completions_need_an_eos():
    with pytest.raises(UserError, match="the tokenizer has none; expected a tokenizer with eos_token"):
        tokenize([pair()], byte_tokenizer(eos=False), LONG)


def test_trees_are_in_the_order_of_rows_and_aligned_with_them(tokenizer):
    rows = [pair(id="a"), pair(id="b", prompt="x" * 600), pair(id="c")]
    done = tokenize(rows, tokenizer, limits(64, 32, "never"))
    assert [tree.id for tree in done.trees] == [row.id for row in done.rows] == ["a", "c"]
    assert done.skipped == [Skipped("b", "prompt over the limit")]
    assert len(tokenize([], tokenizer, LONG).trees) == 0


# --- chat


def test_chat_goes_through_the_template_and_plain_text_does_not():
    tokenizer = byte_tokenizer(template=CHATML)
    prompt = ({"role": "user", "content": "hi"},)
    row = pair(prompt, ({"role": "assistant", "content": "yes"},), "no")
    tree = one(row, tokenizer)
    assert tokenizer.decode(tree.prompt) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(tree.branches[0].tokens) == "yes<|im_end|>", "no newline: the next turn begins so"
    assert tokenizer.decode(tree.branches[1].tokens) == "no<|im_end|>", "a plain answer is the assistant's"
    assert EOS not in tree.branches[0].tokens
    assert tokenizer.decode(one(pair(), tokenizer).prompt) == "the prompt"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "the tokenizer has no chat template\n    set model.chat_template: chatml (or "),
        ("{{ raise_exception('only system') }}", "f:1: the chat template fails on this row: only system"),
        (
            "{{ messages | length }}{% if add_generation_prompt %}:{% endif %}{{ messages[-1].content }}",
            "f:1: the chat template renders the prompt dif",
        ),
        (
            "{{ messages | length }}{% if add_generation_prompt %}:{% endif %}",
            "f:1: the chat template does not write the assistant's answer",
        ),
    ],
)
def test_template_problems_are_named(template, message):
    row = pair(({"role": "user", "content": "hi"},), ({"role": "assistant", "content": "yes"},))
    with pytest.raises(UserError) as error:
        tokenize([row], byte_tokenizer(template=template), LONG)
    assert message in str(error.value)


# --- truncation: the DPO authors' order


@pytest.mark.parametrize(("keep", "left"), [("keep_end", "56789"), ("keep_start", "01234")])
def test_the_prompt_is_cut_first(tokenizer, keep, left):
    done = tokenize([pair("0123456789", " yes", " no")], tokenizer, limits(12, 5, keep))
    assert tokenizer.decode(done.trees[0].prompt) == left
    assert [tokenizer.decode(branch.tokens) for branch in done.trees[0].branches] == [" yes</s>", " no</s>"]
    assert (done.truncated_prompts, done.truncated_completions) == (1, 0)


def test_then_the_completions_and_eos_is_lost_with_the_end(tokenizer):
    done = tokenize([pair("0123456789", "abcdefgh", "xy")], tokenizer, limits(8, 5))
    assert [tokenizer.decode(branch.tokens) for branch in done.trees[0].branches] == ["abc", "xy</s>"]
    assert (done.truncated_prompts, done.truncated_completions) == (1, 1)


def test_a_long_prompt_with_room_for_its_completions_is_left_alone(tokenizer):
    done = tokenize([pair("0123456789")], tokenizer, limits(15, 5, "never"))
    assert tokenizer.decode(done.trees[0].prompt) == "0123456789"
    assert done.truncated_prompts == 0


def test_bos_survives_a_cut_of_the_beginning():
    tokenizer = byte_tokenizer(prepends_bos=True)
    assert tokenizer.decode(one(pair("0123456789"), tokenizer, limits(10, 5)).prompt) == "<s>6789"
    for how in ("keep_end", "keep_start"):
        assert (
            truncate([BOS, 7, 8, 9], [[5] * 4], [[6] * 9], limits(10, 5, how), keep_first=True)
            == "prompt over the limit"
        )


def test_a_context_is_part_of_the_prompt_and_never_cut(tokenizer):
    tokens = limits(16, 8)
    tree = one(pair("0123456789", "ABCDEFGH", "x", ("cccc", "")), tokenizer, tokens)
    assert tokenizer.decode(tree.prompt) == "6789"
    assert tokenizer.decode(tree.branches[0].tokens) == "ccccABCDEFGH"
    done = tokenize([pair("0123456789", "ABC", "x", ("c" * 8, ""))], tokenizer, tokens)
    assert done.skipped == [Skipped("f:1", "prompt over the limit")]


def test_completions_that_differ_beyond_the_limit_alone_are_skipped(tokenizer):
    done = tokenize([pair("p", "same start A", "same start B")], tokenizer, limits(6, 4))
    assert done.skipped == [Skipped("f:1", "chosen equals rejected after truncation")]


ids = st.lists(st.integers(5, 99), max_size=12)
completion = st.lists(st.integers(5, 99), min_size=1, max_size=12)


@given(
    prompt=ids.filter(bool), contexts=st.tuples(ids, ids), completions=st.tuples(completion, completion),
    max_prompt=st.integers(1, 12), more=st.integers(1, 12), how=st.sampled_from(["keep_end", "keep_start", "never"]),
    bos=st.booleans(),
)  # fmt: skip
def test_truncation_keeps_its_promises(prompt, contexts, completions, max_prompt, more, how, bos):
    prompt = [BOS, *prompt] if bos else prompt
    tokens = limits(max_prompt + more, max_prompt, how)
    whole = [len(prompt) + len(c) + len(a) for c, a in zip(contexts, completions, strict=True)]
    before = len(prompt) + max(map(len, contexts))
    cut = truncate(prompt, contexts, completions, tokens, keep_first=bos)
    if max(whole) <= tokens.max_length:
        assert cut == (prompt, list(completions)), "what fits is not touched"
        return
    if isinstance(cut, str):
        assert before > max_prompt
        assert how == "never" or max(map(len, contexts)) + 1 + bos > max_prompt
        return
    kept, answers = cut
    for context, answer, old in zip(contexts, answers, completions, strict=True):
        assert 0 < len(answer)
        assert len(kept) + len(context) + len(answer) <= tokens.max_length
        assert old[: len(answer)] == answer
        assert answer == old or len(kept) + len(context) + len(answer) == tokens.max_length, "no more than needed"
    assert kept
    if before <= max_prompt:
        assert kept == prompt
    else:
        assert len(kept) + max(map(len, contexts)) == max_prompt
        body, old = (kept[1:], prompt[1:]) if bos else (kept, prompt)
        assert body == (old[: len(body)] if how == "keep_start" else old[len(old) - len(body) :])
        assert body, "a prompt of BOS alone says nothing"
        assert not bos or kept[0] == BOS


# --- the report


def test_the_report_accounts_for_every_row(tokenizer):
    train = [pair(id="a"), pair("0123456789", "abcdefghijkl", "xy", id="b"), pair(id="c", contexts=("c" * 9, ""))]
    held_out = [pair(id="d")]
    rows = SplitRows(train, held_out, [Skipped("e", "empty completion", "chosen")], read=7, left_out=2, flipped=1)
    parts: list[TokenizedRows] = [tokenize(part, tokenizer, limits(15, 8)) for part in (train, held_out)]
    report = data_report(rows, *parts, HH())
    assert json.loads(json.dumps(report)) == report
    assert report["read"] == report["used"] + report["skipped"] + report["left_out"]
    counts = ("read", "used", "train", "held_out", "skipped", "left_out", "flipped")
    assert {name: report[name] for name in counts} == {
        "read": 7, "used": 3, "train": 2, "held_out": 1, "skipped": 2, "left_out": 2, "flipped": 1,
    }  # fmt: skip
    assert report["skipped_by_reason"] == {"empty completion": 1, "prompt over the limit": 1}
    assert report["skipped_rows"] == [
        {"id": "e", "reason": "empty completion", "detail": "chosen"},
        {"id": "c", "reason": "prompt over the limit", "detail": ""},
    ]
    assert (report["truncated_prompts"], report["truncated_completions"]) == (1, 1)
    assert report["source"]["name"] == "hh"
    assert report["lengths"]["chosen"] == {"mean": 5.7, "median": 5.0, "p95": 6.8, "max": 7}


tree = st.builds(
    lambda prompt, sizes: Tree("a", np.zeros(prompt, np.int32), tuple(Branch(np.zeros(n, np.int32)) for n in sizes)),
    st.integers(1, 9), st.sampled_from([1, 2, 2, 4]).flatmap(lambda n: st.lists(st.integers(1, 9), min_size=n, max_size=n)),
)  # fmt: skip


@given(st.lists(tree, max_size=9), st.lists(tree, min_size=1, max_size=9), st.booleans(), st.data())
def test_lengths_are_those_of_every_tree_in_turn(train, held_out, mismatched, data):
    """An oracle that looks at one tree after the other; the order of the names is part of data.json."""
    parts = []
    for items in (train, held_out):
        items = [one for one in items if not mismatched or len(one.branches) > 1]
        count = sum(len(one.branches) for one in items)
        labels = data.draw(st.lists(st.sampled_from([0, 1]), min_size=count, max_size=count))
        columns = {"desirable": np.array(labels, np.float32)}
        parts.append(TokenizedRows(Trees.build(items, columns if data.draw(st.booleans()) else None, mismatched), []))
    want: dict[str, list[int]] = {"prompt": []}
    for part in parts:
        for i, one in enumerate(part.trees):
            want["prompt"].append(len(one.prompt))
            for name, branch in zip(part.trees.names(i), one.branches, strict=True):
                if not name.startswith("mismatched"):
                    want.setdefault(name, []).append(branch.scored)
    figures = {
        name: {"mean": round(float(np.mean(values)), 1), "median": float(np.median(values)),
               "p95": float(np.percentile(values, 95)), "max": max(values)}
        for name, values in want.items() if values
    }  # fmt: skip
    assert json.dumps(lengths(*parts)) == json.dumps(figures)
