"""Chat templates for base models: shipped ones and files, their tokens, the embeddings for them, and what is saved."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
from architectures import FOREST, build
from byte_tokenizer import byte_tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from alignzoo.core.errors import UserError
from alignzoo.data import toy
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.data.tokenize import tokenize
from alignzoo.models.chat_template_files import (
    NEW_TOKENS,
    SPREAD,
    draw_rows,
    make_room,
    read_template,
    template_names,
    use_template,
)
from alignzoo.models.loading import load_policy, vocabulary_size
from alignzoo.models.sources.transformers import Transformers
from alignzoo.models.tokenizers import load_tokenizer
from alignzoo.recipe.schema import TokensConfig

LONG = TokensConfig(max_length=8192, max_prompt_length=4096)
ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "zephyr": "</s>"}


def test_the_names_are_those_of_the_documentation():
    assert template_names() == sorted(ENDS)


@pytest.mark.parametrize("name", ENDS)
def test_shipped_templates_write_chats_and_calls_whose_turns_are_found(name):
    tokenizer = byte_tokenizer()
    use_template(tokenizer, name)
    assert tokenizer.eos_token == ENDS[name]
    for record in [next(toy.conversations("test")), *islice(toy.tool_pairs("test"), 8)]:
        (tree,) = tokenize([record_row("r", record, {}, "r")], tokenizer, LONG).trees
        chats = [record["messages"]] if "messages" in record else [record["chosen"], record["rejected"]]
        for branch, chat in zip(tree.branches, chats, strict=True):
            turns = [message for message in chat if message["role"] == "assistant"]
            for (start, stop), message in zip(branch.spans.tolist()[::-1], turns[::-1], strict=False):
                text = tokenizer.decode(branch.tokens[start:stop])
                call = [one["function"]["arguments"] for one in message.get("tool_calls", ())]
                assert text.startswith(message["content"])
                assert text.endswith(ENDS[name])
                assert all(json.dumps(one) in text for one in call)
                assert text.count(ENDS[name]) == 1
    system = [{"role": "system", "content": "be"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    for tools in (None, [toy.LOOK_UP]):
        text = tokenizer.apply_chat_template(system, tools=tools, tokenize=False, add_generation_prompt=True)
        assert text.count("be") - text.count("between") >= 1
        assert "hi" in text
        assert ("look_up" in text) == bool(tools)


def test_a_policy_from_a_base_model_gets_tokens_embeddings_and_its_end_of_turn(tmp_path):
    base = tmp_path / "base"
    tokenizer, model = byte_tokenizer(), build(FOREST["llama"]())
    model.resize_token_embeddings(vocabulary_size(tokenizer) - 3)  # as if the tokenizer had none of ChatML's tokens
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    source = Transformers(path=str(base), chat_template="llama3")
    with pytest.raises(UserError, match="ids go up to"):
        load_policy(Transformers(path=str(base)), tokenizer, 0)
    ready = load_tokenizer(source, [])
    assert {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"} <= set(ready.get_vocab())
    one, two, other = (load_policy(source, ready, seed) for seed in (1, 1, 2))
    rows = one.get_input_embeddings().weight
    assert len(rows) == vocabulary_size(ready)
    assert getattr(one, NEW_TOKENS)
    assert torch.equal(rows, two.get_input_embeddings().weight)
    assert not torch.equal(rows, other.get_input_embeddings().weight)
    before = model.get_input_embeddings().weight
    assert torch.equal(rows[: len(before)], before)
    assert one.config.eos_token_id == ready.eos_token_id
    assert one.generation_config.eos_token_id[0] == ready.eos_token_id
    one.save_pretrained(tmp_path / "policy")
    ready.save_pretrained(tmp_path / "policy")
    again = AutoTokenizer.from_pretrained(tmp_path / "policy")
    chat = [{"role": "user", "content": "hi"}]
    assert again.apply_chat_template(chat, tokenize=True) == ready.apply_chat_template(chat, tokenize=True)
    assert again.eos_token == "<|eot_id|>"
    use_template(again, "llama3")
    assert len(again) == len(ready), "a second time adds nothing"
    make_room(one, again, vocabulary_size(again), 5)
    assert torch.equal(one.get_input_embeddings().weight, rows)


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_for_which_the_model_has_rows_are_drawn_too(tmp_path, tied):
    """Padded vocabularies: the rows are there, and nothing has trained them."""
    base = byte_tokenizer()
    config = LlamaConfig(vocab_size=len(base) + 64, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                         num_attention_heads=1, tie_word_embeddings=tied)  # fmt: skip
    model = LlamaForCausalLM(config)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for layer in layers:
            layer.weight[len(base) :] = 100.0  # padding, which must be no part of the mean
    before = [layer.weight.clone() for layer in layers]
    tokenizer = byte_tokenizer()
    use_template(tokenizer, "llama3")
    new = tokenizer.convert_tokens_to_ids(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    assert max(new) < config.vocab_size
    make_room(model, tokenizer, vocabulary_size(tokenizer), 0)
    assert getattr(model, NEW_TOKENS) == new
    for layer, old in zip(layers, before, strict=True):
        mean = old[: len(base)].mean(dim=0)
        assert (layer.weight[new] - mean).abs().max() < 1e-4
        assert len(layer.weight[new].unique(dim=0)) == len(new)
        others = [n for n in range(config.vocab_size) if n not in new]
        assert torch.equal(layer.weight[others], old[others])


def test_drawn_rows_have_the_covariance_of_the_known_ones_times_the_spread():
    """Beside the distribution that transformers draws from: mean, and 1e-9 times the covariance."""
    known = torch.randn(64, 3, dtype=torch.float64) @ torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 3, 0.5]]).double()
    weight = torch.cat([known, torch.zeros(50_000, 3)]).double()
    new = list(range(64, len(weight)))
    draw_rows(weight, torch.arange(64), new, torch.Generator().manual_seed(0))
    drawn = (weight[64:] - known.mean(dim=0)) / SPREAD**0.5
    wanted = torch.cov(known.T, correction=0)
    assert torch.allclose(torch.cov(drawn.T), wanted, rtol=0.05, atol=0.05 * float(wanted.max()))


def test_a_file_declares_its_tokens_and_is_part_of_the_fingerprint(tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text(
        "{#- tokens: <turn> <s>; eos: <end> -#}\n{% for m in messages %}<turn>{{ m.content }}<end>{% endfor %}"
    )
    found = read_template(str(file))
    assert (found.tokens, found.eos) == (("<turn>", "<s>", "<end>"), "<end>")
    assert found.source == "{% for m in messages %}<turn>{{ m.content }}<end>{% endfor %}"
    tokenizer = byte_tokenizer()
    size = len(tokenizer)
    use_template(tokenizer, str(file))
    assert (len(tokenizer), tokenizer.eos_token) == (size + 2, "<end>")
    source = Transformers(path="nowhere", chat_template=str(file))
    before = source.fingerprint()
    file.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert read_template(str(file)).tokens == ()
    assert source.fingerprint() != before
    assert "chat_template" not in Transformers(path="nowhere").fingerprint(), "recipes without it keep their runs"


def test_a_template_that_is_none_is_an_error(tmp_path):
    with pytest.raises(
        UserError, match=r"model\.chat_template: no chat template is called 'chatlm'.*did you mean 'chatml'"
    ):
        read_template("chatlm")
    broken = tmp_path / "x.jinja"
    for text, said in (
        (b"a\n{% for %}", "line 2"),
        (b"{{ " + b"-" * 5000 + b"1 }}", "nested too deeply"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"\n{# tokens: <|a|> #}", ""),
        (b"{# eos: <|a|> #}", ""),
        (b"x" * 2**21, "too many"),
    ):
        broken.write_bytes(text)
        with pytest.raises(
            UserError, match=f"x.jinja: .*{said}" if said else "x.jinja declares (tokens|eos) in a comment that"
        ):
            read_template(str(broken))


def test_a_template_beside_a_run_to_start_from_is_an_error():
    """The run's own tokenizer is used, which has its template already."""
    with pytest.raises(ValueError, match="chat_template belongs into the recipe that `from` names"):
        Transformers.model_validate({"from": "sft_hh", "chat_template": "chatml"})
