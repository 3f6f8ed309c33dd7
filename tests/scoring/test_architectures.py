"""A seeded slice of docs/architectures.md: architectures that nobody picked, scored as the untouched model scores."""

from __future__ import annotations

import random

import pytest
import torch
from every_architecture import LENGTHS, sequence_oracle, tiny, trees_of

from alignzoo.data.trees import Trees
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.layout import choose_layout
from alignzoo.scoring.scorer import Scorer

BUILT = (
    "afmoe", "apertus", "arcee", "bitnet", "bloom", "codegen", "cohere2", "deepseek_v3", "ernie4_5", "falcon",
    "gemma2", "glm4", "gpt_oss", "gptj", "granite", "granitemoe", "mamba2", "minimax", "mpt", "olmo2", "phi", "phimoe",
    "qwen2_moe", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
SLICE = random.Random(13).sample(BUILT, 3)


@pytest.mark.parametrize("name", SLICE)
def test_an_architecture_is_scored_as_the_untouched_model_scores_it(name):
    trees = trees_of(LENGTHS)
    want = sequence_oracle(tiny(name), trees)
    scorer = Scorer(tiny(name))
    layout = choose_layout(scorer, Trees.build(trees), "auto")
    with torch.no_grad():
        got = scorer(lay_out(trees, layout.used))["log_prob"]
    assert (got - want).abs().max() <= 1e-4, layout


def test_a_model_that_takes_no_position_ids_gets_a_row_for_each_sequence():
    """RoFormer counts slots, so in a shared row a second completion would stand after the first: 8e-4 nats here."""
    trees = trees_of(LENGTHS)
    want = sequence_oracle(tiny("roformer"), trees)
    scorer = Scorer(tiny("roformer"))
    layout = choose_layout(scorer, Trees.build(trees), "auto")
    assert layout.used == "plain"
    assert "padded rejected: the model takes no position ids" in layout.reason
    with torch.no_grad():
        got = scorer(lay_out(trees, layout.used))["log_prob"]
    assert (got - want).abs().max() <= 1e-5
