"""RoBERTa and its descendants count positions from their padding id on, and do not count padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from architectures import VOCABULARY, build
from byte_tokenizer import byte_tokenizer
from every_architecture import LENGTHS, sequence_oracle, trees_of

from alignzoo.core.errors import UserError
from alignzoo.data.trees import Trees
from alignzoo.models.generation import generate_replies
from alignzoo.models.positions import first_position, max_tokens
from alignzoo.scoring.forest import PACKED, PADDED, PLAIN, lay_out
from alignzoo.scoring.layout import choose_layout
from alignzoo.scoring.scorer import Scorer

PADDING = 2
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "pad_token_id": PADDING, "is_decoder": True, "max_position_embeddings": 131,
}  # fmt: skip
KINDS = {"roberta": hf.RobertaConfig, "camembert": hf.CamembertConfig, "data2vec": hf.Data2VecTextConfig}


@pytest.fixture(params=KINDS)
def model(request):
    return build(KINDS[request.param](**SHAPE))


@pytest.mark.parametrize("layout", [PACKED, PADDED, PLAIN])
def test_every_layout_scores_as_the_model_does(model, layout):
    trees = trees_of(LENGTHS)
    want = sequence_oracle(model, trees)
    scorer = Scorer(model, layout)
    scorer.whole_head = True
    with torch.no_grad():
        got = scorer(lay_out(trees, layout))["log_prob"]
    assert (got - want).abs().max() <= 1e-4


def test_a_text_that_contains_padding_is_scored_as_the_model_does(model):
    """The model gives such a token no position of its own, so the layout that leaves counting to it is chosen."""
    trees = trees_of(LENGTHS)
    for tree in trees:
        tree.prompt[1] = PADDING
    want = sequence_oracle(model, trees)
    scorer = Scorer(model)
    layout = choose_layout(scorer, Trees.build(trees), "auto")
    assert layout.used == PLAIN
    with torch.no_grad():
        got = scorer(lay_out(trees, PLAIN))["log_prob"]
    assert (got - want).abs().max() <= 1e-4


def test_greedy_replies_are_those_of_the_models_own_forward(model):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, VOCABULARY, length).astype(np.int32) for length in (21, 3, 9)]
    replies = generate_replies(model, byte_tokenizer(), prompts, temperature=0, max_new_tokens=12, seed=0)
    for prompt, reply in zip(prompts, replies, strict=True):
        ids = prompt.tolist()
        for token in reply.tokens:
            with torch.no_grad():
                assert token == int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            ids.append(int(token))


def test_positions_before_the_first_are_none_to_use(model):
    assert first_position(model) == PADDING + 1
    assert max_tokens(model) == 131 - PADDING - 1
    full = np.full(128, 9, dtype=np.int32)
    with torch.no_grad():
        model(torch.from_numpy(full).long()[None])
    with pytest.raises(UserError, match="a prompt has 129 tokens and the model has 128 positions"):
        generate_replies(
            model, byte_tokenizer(), [np.full(129, 9, dtype=np.int32)], temperature=0, max_new_tokens=1, seed=0
        )


def test_other_models_count_from_zero():
    for config in (hf.LlamaConfig, hf.BertConfig):
        shape = {key: value for key, value in SHAPE.items() if key != "is_decoder"}
        model = build(config(**shape, **({"is_decoder": True} if config is hf.BertConfig else {})))
        assert first_position(model) == 0
        assert max_tokens(model) == 131
