"""Twenty tokenizer shapes by what rows hold: ids are transformers' own, and the prompt is all that lies in it."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import pytest
from tokenizer_shapes import CHATML, OPENS, SHAPES

from alignzoo.core.errors import UserError
from alignzoo.data.boundary import BoundaryTokenizer
from alignzoo.data.chat_template import ChatTemplate
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.data.tokenize import SPANNING, tokenize
from alignzoo.interfaces.rows import Row
from alignzoo.models.loading import from_config, load_policy
from alignzoo.recipe.schema import TokensConfig
from alignzoo.training import run_folder as runfolder
from alignzoo.training.run_folder import RunFolder

TOKENS = TokensConfig(max_length=4096, max_prompt_length=2048)
PAIRS = [
    ("What is a fjord?\n\nassistant:", " Yes, a sea", " No"),
    ("The sea is", "e blue", " blue"),
    ("The sea. ", "\n\nYes", " No"),
    ("The sea.", "\n\nYes", "  No"),
    ("cafe", "\u0301 is", " No"),
    ("blue \U0001f40b", "\U0001f40b!", "\u00e9"),
    ("The se", "a is", " No"),
    ("", "Yes a sea", " No"),
]
USER, TOOL = {"role": "user", "content": "What is a fjord?"}, {"type": "function", "function": {"name": "sea"}}


def say(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(place):
    return say(None, tool_calls=[{"type": "function", "function": {"name": "sea", "arguments": {"at": place}}}])


ANSWER = {"role": "tool", "name": "sea", "content": "blue"}
CHATS = {
    "chat": {"prompt": [USER], "chosen": [say("A sea. ")], "rejected": [say("No")]},
    "turns": {"prompt": "What is a fjord?", "chosen": [USER, say("A"), USER, say("Yes")],
              "rejected": [USER, say("B"), USER, say("No")]},
    "tools": {"prompt": [USER], "chosen": [call("The sea")], "rejected": [call("No sea")], "tools": [TOOL]},
    "tool answer": {"chosen": [USER, call("a"), ANSWER, say("blue")], "rejected": [USER, call("a"), ANSWER, say("No")]},
    "prefill": {"prompt": [USER, say("The sea")], "chosen": [say(" is blue")], "rejected": [say("s")]},
}  # fmt: skip
KINDS = ["pair", "completion only", *CHATS, "thinking"]


@cache
def tokenizer_of(shape: str):
    return SHAPES[shape]()


def row_of(record) -> Row:
    row = record_row("r", record, {}, "r")
    assert isinstance(row, Row), row
    return row


def trees(tokenizer, records, **limits):
    done = tokenize([row_of(record) for record in records], tokenizer, TOKENS.model_copy(update=limits))
    assert not done.skipped, done.skipped
    return done


def wholes(tree):
    return [[*tree.prompt.tolist(), *branch.tokens.tolist()] for branch in tree.branches]


def decoded(tokenizer, ids) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def plain_ids(tokenizer, text) -> list[int]:
    """Transformers' own ids, closed with EOS; where there is no token to begin with, one is lent."""
    ids = tokenizer(text)["input_ids"]
    return ids if ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]


def chat_ids(tokenizer, messages, tools=None) -> list[int]:
    """Transformers' own ids of a whole chat, less the white space after the token that ends it."""
    ids = tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)
    end = len(ids) - 1 - ids[::-1].index(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert not decoded(tokenizer, ids[end + 1 :]).strip()
    return ids[: end + 1]


@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_are_the_ids_of_the_whole_text(shape):
    tokenizer = tokenizer_of(shape)
    records = [{"prompt": prompt, "chosen": one, "rejected": two} for prompt, one, two in PAIRS]
    for record, tree in zip(records, trees(tokenizer, records).trees, strict=True):
        for side, ids in zip(("chosen", "rejected"), wholes(tree), strict=True):
            want = plain_ids(tokenizer, record["prompt"] + record[side])
            lent = len(ids) - len(want)
            assert lent in (0, 1)
            assert ids[lent:] == want
            assert not lent or ids[0] in (tokenizer.bos_token_id, tokenizer.eos_token_id)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", CHATS)
def test_chats_are_the_ids_of_the_whole_chat(shape, kind):
    tokenizer, record = tokenizer_of(shape), CHATS[kind]
    tokenizer.chat_template = CHATML
    (tree,) = trees(tokenizer, [record]).trees
    for side, ids, branch in zip(("chosen", "rejected"), wholes(tree), tree.branches, strict=True):
        messages = record[side] if kind in ("turns", "tool answer") else [*record.get("prompt", []), *record[side]]
        if kind == "prefill":
            messages = [USER, say("The sea" + record[side][0]["content"])]
        assert ids == chat_ids(tokenizer, messages, record.get("tools"))
        assert len(branch.spans) == 1 + (kind == "turns"), "the turns that differ are scored"
    prompt = record.get("prompt") if kind in ("chat", "tools") else None
    if prompt and "Phi" not in shape:
        own = tokenizer.apply_chat_template(
            prompt, tools=record.get("tools"), add_generation_prompt=True, return_dict=False
        )
        assert tree.prompt.tolist() == own, "the marks of turns keep the boundary clean"


@pytest.mark.parametrize("shape", SHAPES)
def test_thoughts_are_kept_behind_the_generation_prompt_or_cut_by_the_template(shape):
    tokenizer = tokenizer_of(shape)
    tokenizer.chat_template = OPENS
    given = "<think>\nThe sea</think> Yes"
    record = {"prompt": [USER], "chosen": [say(given)], "rejected": [say("is it</think>No")]}
    prompt = tokenizer.apply_chat_template([USER], add_generation_prompt=True, tokenize=False)
    done = trees(tokenizer, [record])
    assert done.boundary["thinking"] == 1
    ends = ["The sea</think> Yes<|im_end|>", "is it</think>No<|im_end|>"]
    assert wholes(done.trees[0]) == [tokenizer(prompt + end, add_special_tokens=False)["input_ids"] for end in ends]
    cut = trees(tokenizer, [record], thinking="template")
    assert wholes(cut.trees[0]) == [chat_ids(tokenizer, [USER, *record[side]]) for side in ("chosen", "rejected")]


# --- where the prompt ends


EXPECTED = {
    "byte-level": [("The sea is", "e", 3, False), ("The se", "a", 1, True), ("blue ", "Yes", 1, True)],
    "byte-level, trimmed offsets, BOS (Llama 3)": [
        ("The sea.", "\nNo", 3, True),
        ("The sea. ", "\nNo", 5, False),
        ("blue ", "  is", 2, True),
    ],
    "byte-level, NFC (Qwen)": [("cafe", "\u0301", 2, True)],
    "SentencePiece (Llama 2)": [("is:", " Yes", 3, False), ("is: ", "Yes", 3, True)],
    "WordPiece": [("The ", "sea", 2, False), ("se", "a", 1, True)],
    "slow, bytes (ByT5)": [("\u00e9", "a", 2, False)],
}


@pytest.mark.parametrize(
    ("shape", "prompt", "answer", "tokens", "spans"), [(s, *one) for s, all_ in EXPECTED.items() for one in all_]
)
def test_the_prompt_ends_with_the_last_token_that_lies_in_it(shape, prompt, answer, tokens, spans):
    """Counted by hand, BOS or [CLS] among them."""
    ((_, (cut,)),) = BoundaryTokenizer(tokenizer_of(shape)).tokenize([prompt + answer], [[len(prompt)]], special=True)
    assert cut == (tokens, spans)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not shape.startswith("slow")])
def test_every_cut_of_a_text_agrees_with_decoding_and_grows_with_it(shape):
    """Offsets against the way that slow tokenizers go."""
    tokenizer, text = tokenizer_of(shape), "What is a fjord?\n\nassistant: The sea. Yes\n"
    reader = BoundaryTokenizer(tokenizer)
    ((ids, cuts),) = reader.tokenize([text], [range(len(text))], special=True)
    assert all(a.tokens <= b.tokens for a, b in pairwise(cuts))
    assert ids == tokenizer(text)["input_ids"]
    whole = [place for place, cut in enumerate(cuts) if not cut.spans]
    for place in whole[:: max(1, len(whole) // 6)]:
        kept = [one for one in ids[: cuts[place].tokens] if one not in tokenizer.all_special_ids]
        alone = tokenizer(text[:place], add_special_tokens=False)["input_ids"]
        assert decoded(tokenizer, kept).split() == decoded(tokenizer, alone).split()


def test_completions_of_a_row_share_the_shortest_prompt_and_it_is_counted():
    done = trees(
        tokenizer_of("byte-level"),
        [{"prompt": "The se", "chosen": "a is", "rejected": "e"}, {"prompt": "is", "chosen": " a", "rejected": " No"}],
    )
    assert done.boundary == {SPANNING: 1}
    first = done.trees[0]
    decode = tokenizer_of("byte-level").decode
    assert [decode(first.prompt), *(decode(branch.tokens) for branch in first.branches)] == [
        "The",
        " sea is</s>",
        " see</s>",
    ]


# --- the template: dates, white space, calls it does not write


def test_the_date_is_the_one_given_and_not_today():
    tokenizer = tokenizer_of("byte-level")
    tokenizer.chat_template = "{% set now = strftime_now('%d %b %Y, 100%%') %}[{{ now }}]\n" + CHATML
    text = ChatTemplate(tokenizer, today=date(2024, 2, 3)).render_prompt([USER])
    assert text.startswith("[03 Feb 2024, 100%]\n<|im_start|>user")
    today = tokenizer.apply_chat_template([USER], add_generation_prompt=True, tokenize=False)
    given = [date.today(), date.today() - timedelta(days=1)]  # midnight may have passed meanwhile
    assert today in [ChatTemplate(tokenizer, today=one).render_prompt([USER]) for one in given]


@pytest.mark.parametrize(
    ("template", "chosen", "note", "written"),
    [
        (CHATML.replace("{{ m.content }}", "{{ m.content | trim }}"), say(" Yes "), "white space", "Yes<|im_end|>"),
        (CHATML.replace("m.tool_calls", "[]"), say("Yes", tool_calls=call("a")["tool_calls"]), "tool calls", "Yes<|im_end|>"),
        (CHATML, say("Yes", reasoning_content="sea"), "thinking", "Yes<|im_end|>"),
        (OPENS, say("Yes", reasoning_content="sea"), "thinking", "sea\n</think>\n\nYes<|im_end|>"),
    ],
)  # fmt: skip
def test_what_the_template_drops_is_counted(template, chosen, note, written):
    tokenizer = tokenizer_of("byte-level")
    tokenizer.chat_template = template
    done = trees(tokenizer, [{"prompt": [USER], "chosen": [chosen], "rejected": [say("No")]}])
    assert done.boundary == {note: 1}
    assert tokenizer.decode(done.trees[0].branches[0].tokens) == written


def test_a_model_from_scratch_has_a_row_for_the_highest_id():
    tokenizer = tokenizer_of("byte-level, ids with gaps")
    fields = {
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    model = from_config(fields, tokenizer, 0, "language_model", "float32")
    highest = max(tokenizer.get_vocab().values())
    assert len(tokenizer) <= highest
    assert model.get_input_embeddings().num_embeddings == highest + 1

    class Source:
        quantize = None

        def load_model(self, tokenizer, seed, head):
            return from_config(fields | {"vocab_size": highest}, tokenizer, seed, head, "float32")

    with pytest.raises(
        UserError, match=f"the tokenizer's ids go up to {highest} and the model has {highest} embeddings"
    ):
        load_policy(Source(), tokenizer, seed=0)


def test_a_run_that_goes_on_another_day_keeps_its_date(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    began = folder.first_day()
    later = SimpleNamespace(today=lambda: began + timedelta(days=3), fromisoformat=date.fromisoformat)
    monkeypatch.setattr(runfolder, "date", later)
    assert RunFolder(tmp_path).first_day() == began
    (tmp_path / "started.txt").unlink()
    assert RunFolder(tmp_path).first_day() == began + timedelta(days=3)
