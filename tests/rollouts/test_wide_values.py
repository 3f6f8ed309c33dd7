"""Values of a float64 model are kept in float64 from its scorer to the loss, and the others' in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.rollouts.scores import TokenValues, float_type, score_rows
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.scorer import VALUE, Scorer

TREES = Trees.build([
    Tree("a", np.array([1, 5, 7], np.int32), (Branch.of([3, 4, 2], (0, 3)), Branch.of([9, 8, 6, 2], (0, 4)))),
    Tree("b", np.array([1, 6], np.int32), (Branch.of([2, 3], (0, 2)),)),
])  # fmt: skip


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float64, np.float64), (torch.bfloat16, np.float32)])
@pytest.mark.parametrize(("model", "name"), [(LlamaForCausalLM, "log_prob"), (LlamaForSequenceClassification, VALUE)])
@torch.no_grad()
def test_scores_have_the_models_own_digits(model, name, dtype, kind):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=1,
        pad_token_id=0,
    )  # fmt: skip
    scorer = Scorer(model(config).to(dtype).eval())
    asked = () if name == "log_prob" else (name,)
    found = score_rows(scorer, TREES, 12, print, asked)[name]  # two micro-batches
    assert found.dtype == kind == float_type(scorer)
    want = scorer(lay_out([TREES[0], TREES[1]], scorer.layout), asked)[name].numpy()
    assert found == pytest.approx(want, abs=1e-14 if dtype == torch.float64 else 0.05)
    if dtype == torch.float64:
        assert (found != found.astype(np.float32)).all()
    held = TokenValues(TREES, found)
    assert held.tokens(0, 1).dtype == kind
    assert np.array_equal(held.tokens(0, 1), found[3:7])
