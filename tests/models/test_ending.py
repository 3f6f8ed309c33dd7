"""A reply ends at its first stop string or end token, as transformers ends it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import FOREST, build
from byte_tokenizer import byte_tokenizer
from tokenizer_shapes import SHAPES

from alignzoo.models import ending as ending_module
from alignzoo.models.ending import Ending
from alignzoo.models.generation import end_tokens, generate_replies
from alignzoo.models.tokenizers import train_tokenizer


def of(text: str, tokenizer) -> np.ndarray:
    return np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)


def reached(ending: Ending, replies: list[np.ndarray]) -> list[bool]:
    return ending.reached(np.array([reply[-1] for reply in replies]), replies.__getitem__).tolist()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_greedy_replies_stop_where_those_of_transformers_do(width):
    """At strings that the policy says without being stopped, of one token or several, the last of its text among them."""
    model, tokenizer = build(FOREST["llama"]()), byte_tokenizer()
    ends = frozenset(end_tokens(model, tokenizer))
    prompts = [np.arange(4 + n, 9 + 2 * n, dtype=np.int32) for n in range(4)]
    options = {"temperature": 0, "max_new_tokens": 24, "seed": 0}
    free = generate_replies(model, tokenizer, prompts, **options)
    stop = tuple({reply.text[at : at + width] for reply, at in zip(free, (5, 9, 0, 15), strict=True)} - {""})
    assert all(not part.isascii() or part for part in stop)
    ours = generate_replies(model, tokenizer, prompts, ending=Ending(tokenizer, ends, stop), **options)
    for prompt, reply, whole in zip(prompts, ours, free, strict=True):
        ids = torch.from_numpy(prompt).long()[None]
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, pad_token_id=0,
            eos_token_id=sorted(ends), stop_strings=list(stop), tokenizer=tokenizer,
        )[0, len(prompt) :].tolist()  # fmt: skip
        # transformers also stops at a string that a prompt's end begins; no part of a stop string is in these prompts
        assert reply.tokens.tolist() == theirs
        assert reply.tokens.tolist() == whole.tokens.tolist()[: len(reply.tokens)]
        assert not any(one in reply.text for one in stop)
        assert reply.finished == (len(reply.tokens) < 24 or any(one in whole.text for one in stop))
    assert any(len(reply.tokens) < len(whole.tokens) for reply, whole in zip(ours, free, strict=True))


def test_the_first_token_that_completes_a_string_ends_a_reply():
    """By brute force over prefixes, in texts with characters of several tokens."""
    tokenizer = byte_tokenizer()
    ending = Ending(tokenizer, frozenset({1}), ("né ", "\n\n", "日本"))
    for text in ("a né b", "one\n\ntwo", "one\ntwo", "x日本y", "né\n \n", "né", "日\n\n本"):
        ids = of(text, tokenizer)
        found = [reached(ending, [ids[: n + 1]])[0] for n in range(len(ids))]
        parts = [tokenizer.decode(ids[: n + 1]) for n in range(len(ids))]
        assert found == [any(stop in part[-len(stop) - 8 :] for stop in ending.stop) for part in parts]
        cut = [text.index(stop) for stop in ending.stop if stop in text]
        assert ending.texts([ids]) == [text[: min(cut)] if cut else text]


def test_a_string_that_spans_merged_tokens_is_found():
    """The stop string begins and ends inside of tokens."""
    from alignzoo import Completion, Row
    from alignzoo.models.sources.transformers import TokenizerConfig

    rows = [Row("r", "tell me of END.of things", (Completion(" END.of me"),), "g")] * 8
    tokenizer = train_tokenizer(TokenizerConfig(train="bpe", vocab_size=300), rows)
    ids = of("tell me of END.of things", tokenizer)
    ending = Ending(tokenizer, frozenset({tokenizer.eos_token_id}), ("ND.o",))
    assert not any(tokenizer.decode([one]) in ("N", "ND", "o") for one in ids)
    assert [reached(ending, [ids[: n + 1]])[0] for n in range(len(ids))].index(True) < len(ids) - 1
    assert ending.texts([ids]) == ["tell me of E"]


def test_several_end_tokens_and_special_tokens_are_not_in_the_text():
    tokenizer = byte_tokenizer()
    point = tokenizer.get_vocab()["."]
    ending = Ending(tokenizer, frozenset({1, 3, point}), ("!",))
    rows = [of("Yes.", tokenizer), np.append(of("Yes", tokenizer), 3), np.append(of("No", tokenizer), 2), np.array([1])]
    assert reached(ending, rows) == [True, True, False, True]
    assert ending.texts(rows) == ["Yes", "Yes", "No", ""]
    beyond = np.append(of("a", tokenizer), 5000)  # of a model with more rows than the tokenizer has tokens
    assert reached(ending, [beyond]) == [False]


def test_a_string_whose_token_is_above_the_number_of_tokens_is_found():
    tokenizer = SHAPES["byte-level, ids with gaps"]()
    id = max(tokenizer.get_vocab().values())
    assert id > len(tokenizer)
    assert reached(Ending(tokenizer, frozenset(), (tokenizer.decode([id]),)), [np.array([id])]) == [True]


def test_no_step_starts_a_child_process(monkeypatch):
    tokenizer = byte_tokenizer()
    ending = Ending(tokenizer, frozenset({1}), ("!",))
    reply = of("No!", tokenizer)
    assert reached(ending, [reply]) == [True]
    monkeypatch.setattr(ending_module, "decode", None)  # has one
    assert reached(ending, [reply, reply[:2]]) == [True, False]
