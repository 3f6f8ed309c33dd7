"""FlexAttention over packed rows, as a GPU runs it. On a CPU it runs as written, without its kernels: the same mask, the
same rule, and the backward that torch keeps for itself there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import FOREST, VOCABULARY, build
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention
from torch.nn.attention.flex_attention import create_block_mask, create_mask

from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.scoring import layout
from alignzoo.scoring.flex_attention import BLOCK_SIZE, attend, block_mask, widened
from alignzoo.scoring.forest import PACKED, lay_out
from alignzoo.scoring.layout import choose_layout
from alignzoo.scoring.scorer import Scorer

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def random_trees(count=6, seed=0, most=25):
    rng = np.random.default_rng(seed)

    def some(low, high):
        return rng.integers(1, VOCABULARY, rng.integers(low, high)).astype(np.int32)

    return [
        Tree(f"row {i}", some(1, most), (Branch.scored_from(some(3, 18), i % 2), Branch(some(1, 14))))
        for i in range(count)
    ]


def wide(forest):
    end, tokens, position = widened(forest.end, forest.tokens, forest.position)
    return forest.__class__(
        tokens, position, end, forest.slot, forest.target, forest.offsets, forest.last, forest.layout
    )


@given(st.integers(1, 8), st.integers(0, 999), st.sampled_from([2, 25, 300]), st.sampled_from([None, 3, 40, 1000]))
@settings(max_examples=60)
def test_the_block_mask_is_the_forests_rule(count, seed, most, window):
    packed = lay_out(random_trees(count, seed, most), PACKED)
    forest = wide(packed)
    width, slots = forest.slots, packed.slots
    assert width % BLOCK_SIZE == 0 <= width - slots < BLOCK_SIZE
    seen = forest.visible(window)[0]
    assert torch.equal(seen[:slots, :slots], packed.visible(window)[0])
    assert torch.equal(seen[slots:], torch.eye(width, dtype=torch.bool)[slots:])
    mask = block_mask(forest.end[0], forest.position[0], window)
    assert torch.equal(create_mask(mask.mask_mod, 1, 1, width, width, "cpu")[0, 0], seen)
    blocks = seen.view(width // BLOCK_SIZE, BLOCK_SIZE, -1, BLOCK_SIZE).transpose(1, 2).flatten(2)
    full, mixed = dense(mask.full_kv_num_blocks, mask.full_kv_indices), dense(mask.kv_num_blocks, mask.kv_indices)
    assert not (full & mixed).any()
    assert blocks[full].all()
    assert not blocks[~(full | mixed)].any()
    if window is None:  # and exactly what torch finds by looking at every pair of slots
        theirs = create_block_mask(mask.mask_mod, 1, None, width, width, "cpu")
        assert torch.equal(mixed, dense(theirs.kv_num_blocks, theirs.kv_indices))
        assert torch.equal(full, dense(theirs.full_kv_num_blocks, theirs.full_kv_indices))


def dense(counts, indices):
    found = torch.zeros(indices.shape[-2:], dtype=torch.bool)
    for row, (count, order) in enumerate(zip(counts[0, 0].tolist(), indices[0, 0].tolist(), strict=True)):
        found[row, order[:count]] = True
    return found


def scored(model, trees, flex):
    scorer = Scorer(model, PACKED)
    scorer.flex = flex
    found = scorer(lay_out(trees, PACKED))["log_prob"]
    if not torch.is_grad_enabled():
        return found
    model.zero_grad()
    found.square().sum().backward()
    return found.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture(autouse=True)
def fresh():
    """torch traces FlexAttention for each kind of call, also where nothing is compiled, and stops after eight."""
    torch._dynamo.reset()


@pytest.fixture
def backward(monkeypatch):
    """torch has the backward on a CPU, as plain products, and lets no one call it."""
    if not hasattr(flex_attention, "_validate_device"):
        pytest.skip("this torch guards FlexAttention's backward on a CPU in another way")
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *some: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREST)
def test_log_probs_are_those_of_attention_tree_by_tree(name):
    model, trees = build(FOREST[name]()), random_trees()
    with torch.no_grad():
        want, got = scored(model, trees, False), scored(model, trees, True)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma3 (window)"])
@pytest.mark.usefixtures("backward")
def test_gradients_are_those_of_attention_tree_by_tree(name):
    model, trees = build(FOREST[name]()), random_trees()
    (want, want_gradient), (got, got_gradient) = scored(model, trees, False), scored(model, trees, True)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
    assert (got_gradient - want_gradient).norm() <= 1e-5 * want_gradient.norm()


@pytest.mark.slow
@pytest.mark.usefixtures("backward")
def test_it_is_chosen_where_it_has_kernels_and_agrees(monkeypatch):
    monkeypatch.setattr(layout, "has_flex", lambda device: True)
    scorer = Scorer(build(FOREST["llama"]()))
    found = choose_layout(scorer, Trees.build(random_trees()), "auto")
    assert (found.used, scorer.flex) == ("packed", True)
    assert found.reason.endswith("sequences, with FlexAttention")


def test_without_its_backward_trees_are_attended_to_one_by_one_and_the_reason_is_given(monkeypatch):
    monkeypatch.setattr(layout, "has_flex", lambda device: True)
    scorer = Scorer(build(FOREST["llama"]()))
    found = choose_layout(scorer, Trees.build(random_trees()), "auto")
    assert (found.used, scorer.flex) == ("packed", False)
    assert found.reason.startswith("FlexAttention rejected: the model's backward raised NotImplementedError: ")


@pytest.mark.slow
@pytest.mark.usefixtures("backward")
def test_a_wrong_gradient_is_found_out(monkeypatch):
    from alignzoo.scoring import tree_attention

    monkeypatch.setattr(layout, "has_flex", lambda device: True)
    monkeypatch.setattr(tree_attention, "attend", lambda q, k, v, mask, **o: attend(q, k, v.detach(), mask, **o))
    scorer = Scorer(build(FOREST["llama"]()))
    found = choose_layout(scorer, Trees.build(random_trees()), "auto")
    assert not scorer.flex
    assert "FlexAttention rejected: its gradient differs by " in found.reason


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_what_would_change_the_scores_is_rejected(name):
    x = torch.zeros(1, 1, BLOCK_SIZE, 4)
    mask = block_mask(torch.full((BLOCK_SIZE,), BLOCK_SIZE), torch.arange(BLOCK_SIZE))
    with pytest.raises(ValueError, match=f"asks for {name}"):
        attend(x, x, x, mask, **{name: 1.0})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma3 (window)"])
def test_a_gpu_computes_what_the_cpu_computes(name, precision):
    config = FOREST[name]()
    for field, value in {"hidden_size": 128, "head_dim": 32}.items():  # kernels take no head of eight numbers
        if hasattr(config, field):
            setattr(config, field, value)
    trees = random_trees(20, most=100)
    want, want_gradient = scored(build(config), trees, False)
    scorer = Scorer(build(config).cuda(), precision=precision)
    found = choose_layout(scorer, Trees.build(trees), "auto")
    assert scorer.flex, found.reason
    got = scorer(lay_out(trees, scorer.layout).to("cuda"))["log_prob"]
    got.square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in scorer.model.parameters() if p.grad is not None]).cpu()
    limit = 1e-4 if precision == "float32" else 5e-2
    assert (got.cpu() - want).abs().max() <= limit * want.abs().max()
    assert (gradient - want_gradient).norm() <= limit * want_gradient.norm()
