"""A critic's values are those of transformers at the token before each scored one, in every layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from alignzoo.data.trees import Branch, Tree
from alignzoo.scoring.forest import LAYOUTS, lay_out, sequences
from alignzoo.scoring.scorer import VALUE, Scorer

TREES = [
    Tree("a", np.array([1, 5, 7], np.int32), (Branch.of([3, 4, 2], (0, 3)), Branch.of([9, 8, 6, 2], (1, 2), (3, 4)))),
    Tree("b", np.array([1, 6], np.int32), (Branch.of([2, 3], (0, 2)), Branch.of([4, 4, 4, 4, 2], (0, 5)))),
]


@pytest.fixture(scope="module")
def model() -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_labels=1,
        pad_token_id=0,
    )  # fmt: skip
    return LlamaForSequenceClassification(config).double().eval()


def own(model: LlamaForSequenceClassification) -> list[float]:
    """From the model's own forward: the score of the text that ends before each scored token."""
    found = []
    for tree, branch in sequences(TREES):
        for end in branch.select(np.arange(len(branch.tokens))):
            text = np.concatenate([tree.prompt, branch.tokens[:end]])
            found.append(model(torch.tensor(text).long()[None]).logits.item())
    return found


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_they_are_transformers_own(model, layout, alone):
    scorer = Scorer(model, layout)
    scorer.alone = alone
    got = scorer(lay_out(TREES, layout), (VALUE,))
    assert list(got) == [VALUE]
    assert got[VALUE].tolist() == pytest.approx(own(model), abs=1e-12)


@torch.no_grad()
def test_the_head_is_in_float32_where_the_forward_is_not(model):
    """Values around 5, where bfloat16 has steps of 1/32."""
    from copy import deepcopy

    float32 = deepcopy(model).float()
    float32.score.weight *= 5 / Scorer(float32)(lay_out(TREES, "padded"), (VALUE,))[VALUE].abs().mean()
    forest = lay_out(TREES, "padded")
    want = Scorer(float32)(forest, (VALUE,))[VALUE]
    for scorer in (Scorer(float32, precision="bfloat16"), Scorer(deepcopy(float32).bfloat16())):
        got = scorer(forest, (VALUE,))[VALUE]
        assert got.dtype == torch.float32
        assert (got != got.bfloat16().float()).any()
        assert (got - want).abs().max() < 0.2
