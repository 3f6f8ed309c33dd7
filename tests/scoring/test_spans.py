"""Scored spans: every layout and head against transformers' own forward with a mask of labels (-100), in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import FOREST, PLAIN, VOCABULARY, build

from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.objective import Objective
from alignzoo.models.oracle import sequence_log_probs
from alignzoo.models.probes import probe
from alignzoo.scoring import lm_head, scorer
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.exactness import SpotCheck
from alignzoo.scoring.forest import lay_out, sequences
from alignzoo.scoring.scorer import Scorer

ROWS = 5
"""Logits in a chunk of the head, so that spans begin, end and lie across its borders."""
SPANS = [
    [[(0, 5), (7, 12)], [(2, 3), (4, 5), (10, 11)]],
    [[(0, 1), (3, 13)], [(9, 14)]],
    [[(1, 6), (8, 9), (12, 16)], [(0, 10)]],
]


def span_trees() -> list[Tree]:
    dice = np.random.default_rng(3)

    def some(count: int) -> np.ndarray:
        return dice.integers(1, VOCABULARY, count).astype(np.int32)

    return [
        Tree(f"row {i}", some(3 + 2 * i), tuple(Branch.of(some(own[-1][1]), *own) for own in both))
        for i, both in enumerate(SPANS)
    ]


def labels_of(tree: Tree, branch: Branch) -> torch.Tensor:
    """Labels as transformers takes them: -100 where no loss is computed."""
    labels = torch.full((len(tree.prompt) + len(branch.tokens),), -100)
    for start, stop in branch.spans.tolist():
        labels[len(tree.prompt) + start : len(tree.prompt) + stop] = torch.from_numpy(branch.tokens[start:stop]).long()
    return labels


def masked_loss(model, tree, branch) -> torch.Tensor:
    ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()
    output = model(ids[None], labels=labels_of(tree, branch)[None], use_cache=False)
    wide = F.cross_entropy(output.logits[0, :-1], labels_of(tree, branch)[1:], ignore_index=-100, reduction="sum")
    loss = output.loss.item() * branch.scored
    assert loss == pytest.approx(wide.item(), rel=1e-5), "transformers computes it in float32"
    return wide


def gradient(model, loss) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, layout) for name in ("llama", "gemma3 (window)") for layout in ("packed", "padded", "plain")]
    + [("bloom", "plain")],
)
@pytest.mark.parametrize("statistics", [(), ("entropy",)])
def test_spans_are_scored_as_by_a_mask_of_labels(name, layout, statistics, monkeypatch):
    monkeypatch.setattr(lm_head, "CHUNK_BYTES", ROWS * VOCABULARY * 8)
    monkeypatch.setattr(scorer, "HEAD_CHUNK_ELEMENTS", ROWS * VOCABULARY)
    model, trees = build((FOREST | PLAIN)[name]()).double(), span_trees()
    want = torch.stack([masked_loss(model, tree, branch) for tree, branch in sequences(trees)])
    want_gradient = gradient(model, (want * torch.arange(1, 7)).sum())
    forest = lay_out(trees, layout)
    log_probs = Scorer(model, layout)(forest, statistics)["log_prob"]
    assert len(log_probs) == sum(branch.scored for _, branch in sequences(trees))
    got = -torch.stack([part.sum() for part in log_probs.split(forest.offsets.diff().tolist())])
    assert got.dtype == torch.float64
    assert torch.allclose(got, want, rtol=1e-10, atol=0)
    apart = gradient(model, (got * torch.arange(1, 7)).sum()) - want_gradient
    assert apart.norm() <= 1e-6 * want_gradient.norm(), "norms of layers are float32 in transformers"


def test_the_oracle_and_its_noise_read_the_same_positions():
    model, trees = build(FOREST["llama"]()).double(), span_trees()
    for tree, branch in sequences(trees):
        own = sequence_log_probs(model, tree.prompt, branch)
        assert float(-own.sum()) == pytest.approx(masked_loss(model, tree, branch).item(), rel=1e-12)
        assert SpotCheck(Scorer(model))._noise(tree, branch) <= 1e-12
    values = [sequence_log_probs(model, tree.prompt, branch) for tree, branch in sequences(trees)]
    assert not SpotCheck(Scorer(model)).compare(trees, values).over
    assert len(probe(Trees.build(trees), [])) == len(trees)


def test_tokens_of_an_objective_are_the_scored_ones_of_a_completion():
    class Example(Objective):
        name, tokens, reference = "example", True, "none"

    trees = Trees.build(span_trees())
    builder = BatchBuilder(Example(), trees)
    model = build(FOREST["llama"]())
    batch, _ = builder.score(Scorer(model, "packed"), range(3))
    (loss_input,) = builder.examples(batch, Example())
    for side, number in (("chosen", 0), ("rejected", 1)):
        scored = getattr(loss_input.example, side)
        lengths = [sum(stop - start for start, stop in both[number]) for both in SPANS]
        assert scored.length.tolist() == lengths
        assert scored.tokens.position.tolist() == [n for length in lengths for n in range(length)]
        want = [sequence_log_probs(model, tree.prompt, tree.branches[number]) for tree in trees]
        assert torch.allclose(scored.tokens.log_prob, torch.cat(want), atol=1e-5)
