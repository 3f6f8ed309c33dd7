"""Sums of hidden states are those of transformers, in every layout and with every head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.data.trees import Branch, Tree
from alignzoo.scoring.forest import LAYOUTS, lay_out, sequences
from alignzoo.scoring.scorer import HIDDEN_SUM, Scorer

TREES = [
    Tree("a", np.array([1, 5, 7], np.int32), (Branch.of([3, 4, 2], (0, 3)), Branch.of([9, 8, 6, 2], (1, 2), (3, 4)))),
    Tree("b", np.array([1, 6], np.int32), (Branch.of([2, 3], (0, 2)), Branch.of([4, 4, 4, 4, 2], (0, 5)))),
]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    return LlamaForCausalLM(config).double().eval()


def own(model: LlamaForCausalLM) -> torch.Tensor:
    """From the model's own forward, one sequence at a time: states before each scored token."""
    found = []
    for tree, branch in sequences(TREES):
        ids = torch.tensor(np.concatenate([tree.prompt, branch.tokens])).long()[None]
        states = model(ids, output_hidden_states=True).hidden_states[-1][0]
        scored = branch.select(np.arange(len(branch.tokens))) + len(tree.prompt)
        found.append(states[scored - 1].sum(0))
    return torch.stack(found)


@pytest.mark.parametrize("ways", [{}, {"whole_head": True}, {"alone": True}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_they_are_transformers_own(model, layout, ways):
    scorer = Scorer(model, layout)
    for name, value in ways.items():
        setattr(scorer, name, value)
    forest = lay_out(TREES, layout)
    got = scorer(forest, (HIDDEN_SUM, "entropy"))
    assert got[HIDDEN_SUM].numpy() == pytest.approx(own(model).numpy(), abs=1e-10)
    assert got["log_prob"].tolist() == pytest.approx(scorer(forest)["log_prob"].tolist())
    assert HIDDEN_SUM not in scorer(forest)
