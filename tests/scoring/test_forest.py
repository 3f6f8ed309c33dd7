"""The one rule `k <= q < end[k]` against a plain oracle: what each token may see, spelled out from the trees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo.data.trees import Branch, Tree, Trees, sequence_key
from alignzoo.scoring.forest import LAYOUTS, PACKED, PLAIN, lay_out, sequences
from alignzoo.scoring.microbatches import plan_micro_batches
from alignzoo.scoring.tree_attention import cuts

tokens = st.lists(st.integers(1, 50), min_size=1, max_size=7).map(lambda x: np.array(x, np.int32))


@st.composite
def branches(draw):
    """Tokens with any scored positions, the last one among them."""
    piece = draw(tokens)
    scored = np.array([*draw(st.lists(st.booleans(), min_size=len(piece) - 1, max_size=len(piece) - 1)), True])
    edges = np.diff(scored.astype(int), prepend=0, append=0)
    return Branch.of(piece, *zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True))


def scored_positions(tree, branch) -> list[int]:
    """Oracle: the positions in prompt + branch that are inside a span."""
    spans = branch.spans.tolist()
    inside = [n for n in range(len(branch.tokens)) if any(start <= n < stop for start, stop in spans)]
    return [len(tree.prompt) + n for n in inside]


trees = st.lists(
    st.builds(Tree, st.just("row"), tokens, st.lists(branches(), min_size=1, max_size=3).map(tuple)),
    min_size=1,
    max_size=6,
)


def paths(forest):
    """Oracle: walk each row and rebuild, from `position` alone, the list of slots that lead to every slot."""
    for r, row in enumerate(forest.position.tolist()):
        path: list[int] = []
        for q, depth in enumerate(row):
            path = [*path[:depth], q]
            yield r, q, set(path)


@given(trees)
@settings(max_examples=200)
def test_a_token_sees_exactly_its_own_sequence_so_far(some):
    forest = lay_out(some)
    seen = forest.visible()
    used = sum(tree.slots for tree in some)
    assert used <= forest.slots
    for r, q, path in paths(forest):
        if forest.end[r, q] == q + 1 and forest.position[r, q] == 0 and forest.tokens[r, q] == 0:
            assert seen[r, q].nonzero().flatten().tolist() == [q]  # padding
        else:
            assert set(seen[r, q].nonzero().flatten().tolist()) == path


@pytest.mark.parametrize("layout", LAYOUTS)
@given(some=trees)
@settings(max_examples=100)
def test_every_scored_token_is_predicted_from_the_token_before_it(layout, some):
    forest = lay_out(some, layout)
    flat = forest.tokens.flatten()
    assert len(forest.offsets) == 1 + sum(len(tree.branches) for tree in some)
    for s, (tree, branch) in enumerate(sequences(some)):
        a, b = forest.offsets[s], forest.offsets[s + 1]
        whole = np.concatenate([tree.prompt, branch.tokens])
        scored = np.array(scored_positions(tree, branch))
        assert branch.scored == len(scored)
        assert forest.target[a:b].tolist() == whole[scored].tolist()
        assert flat[forest.slot[a:b]].tolist() == whole[scored - 1].tolist()
        assert forest.position.flatten()[forest.slot[a:b]].tolist() == (scored - 1).tolist()


@given(some=trees, budget=st.integers(1, 60), layout=st.sampled_from(LAYOUTS))
@settings(max_examples=200)
def test_a_plan_holds_every_tree_once_and_keeps_to_its_budget(some, budget, layout):
    parts = plan_micro_batches(some, budget, layout)
    assert sorted(i for part in parts for i in part) == list(range(len(some)))
    for part in parts:
        forest = lay_out([some[i] for i in part], layout)
        assert forest.slots <= budget or len(part) == 1


def test_a_sliding_window_counts_positions_not_slots():
    tree = Tree("row", np.array([1, 2, 3]), (Branch(np.array([4, 5, 6])), Branch(np.array([7, 8]))))
    seen = lay_out([tree]).visible(window=2)[0]
    assert seen[6].nonzero().flatten().tolist() == [2, 6]  # 7 follows the prompt's 3, five slots before it
    assert seen[7].nonzero().flatten().tolist() == [6, 7]


def test_prompts_are_laid_once():
    prompt = np.arange(1, 101)
    tree = Tree("row", prompt, (Branch(np.array([1, 2])), Branch(np.array([3]))))
    assert lay_out([tree]).slots == 103
    assert lay_out([tree], PLAIN).slots == 204


def test_short_trees_share_a_row():
    long = Tree("long", np.arange(1, 9), (Branch(np.array([1, 2])),))
    short = Tree("short", np.arange(1, 4), (Branch(np.array([1, 2])),))
    forest = lay_out([short, long, short])
    assert forest.tokens.shape == (2, 10)


def test_the_mask_is_additive_and_never_blocks_a_whole_row():
    tree = Tree("row", np.array([1]), (Branch(np.array([4, 5])),))
    pad = Tree("row", np.array([1]), (Branch(np.array([4])),))
    mask = lay_out([tree, pad]).mask(torch.float32)
    assert mask.shape == (2, 1, 3, 3)
    assert mask.max(-1).values.eq(0).all()
    assert mask.min() == torch.finfo(torch.float32).min


@given(trees)
@settings(max_examples=50)
def test_flat_trees_give_the_trees_back(some):
    kept = Trees.build(some)
    assert len(kept) == len(some)
    for tree, back in zip(some, kept, strict=True):
        assert back.prompt.tolist() == tree.prompt.tolist()
        assert [(b.tokens.tolist(), b.spans.tolist()) for b in back.branches] == [
            (b.tokens.tolist(), b.spans.tolist()) for b in tree.branches
        ]
    scored = [n for tree in some for n in (0, *(len(scored_positions(tree, branch)) for branch in tree.branches))]
    assert kept.scored.tolist() == scored
    late = [any(scored_positions(tree, b)[0] > len(tree.prompt) for b in tree.branches) for tree in some]
    assert kept.parted.tolist() == late


def test_a_sequence_is_known_by_its_tokens_and_by_where_scoring_starts():
    prompt, other = np.array([1, 2], np.int32), np.array([1], np.int32)
    key = sequence_key(prompt, Branch(np.array([3, 4], np.int32)))
    assert key == sequence_key(prompt, Branch(np.array([3, 4], np.int64)))
    assert key != sequence_key(other, Branch(np.array([2, 3, 4], np.int32)))
    assert key != sequence_key(prompt, Branch.of([3, 4], (1, 2)))
    assert sequence_key(other, Branch.of([2, 3, 4], (1, 3))) == key, "the same tokens scored from the same place"
    assert key.hex() == "8385b2d7c76fd9a20ad923459f81578e", "as in version 2 of the stored tokens: caches stay"


@given(branches(), branches())
def test_sequences_with_other_scored_positions_have_other_keys(one, two):
    prompt = np.array([1, 2], np.int32)
    keys = [sequence_key(prompt, branch) for branch in (one, two, Branch(one.tokens, two.spans))]
    same = [(b.tokens.tolist(), b.spans.tolist()) for b in (one, two, Branch(one.tokens, two.spans))]
    assert [keys[0] == key for key in keys] == [same[0] == other for other in same]


@pytest.mark.parametrize(
    "spans", [[], [(0, 2)], [(0, 0), (1, 3)], [(1, 3), (0, 1)], [(0, 1), (1, 3)], [(0, 2), (1, 3)]]
)
def test_spans_that_are_not_in_order_and_apart_up_to_the_end_are_an_error(spans):
    fine, bad = Branch(np.array([1, 2, 3])), Branch.of([4, 5, 6], *spans)
    for own in ((fine, bad), (bad, fine), (bad,)):
        with pytest.raises(ValueError, match="spans of a branch"):
            Trees.build([Tree("a", np.array([1]), own)])


@given(branches(), st.data())
def test_a_part_of_a_branch_has_its_part_of_the_spans(branch, data):
    start = data.draw(st.integers(0, len(branch.tokens)))
    stop = data.draw(st.integers(start, len(branch.tokens)))
    part = branch.part(start, stop)
    scored = [n for n in scored_positions(Tree("", np.zeros(0), ()), branch) if start <= n < stop]
    assert branch.tokens[scored].tolist() == part.select(part.tokens).tolist()
    assert len(part.tokens) == (scored[-1] + 1 - start if scored else 0)


@given(trees, st.integers(1, 4), st.booleans())
@settings(deadline=None)
def test_what_is_known_of_all_trees_is_what_is_known_of_each(some, most, mismatched):
    """Keys, longest sequence, and the parts that arithmetic goes through."""
    some = [tree for tree in some if not mismatched or len(tree.branches) % 2 == 0]
    count = sum(len(tree.branches) for tree in some)
    built = Trees.build(some, {"desirable": np.arange(count, dtype=np.float32) % 2}, mismatched)
    assert built.keys.dtype == np.uint8
    assert [key.tobytes() for key in built.keys] == [sequence_key(tree.prompt, b) for tree, b in sequences(some)]
    whole = [len(tree.prompt) + len(branch.tokens) for tree, branch in sequences(some)]
    assert built.longest() == max(whole, default=0)
    parts = list(built.blocks(most))
    assert [len(part) for part in parts] == [len(some[a : a + most]) for a in range(0, len(some), most)]
    for tree, again in zip(some, (tree for part in parts for tree in part), strict=True):
        assert tree.id == again.id
        assert np.array_equal(tree.prompt, again.prompt)
        for mine, theirs in zip(tree.branches, again.branches, strict=True):
            assert np.array_equal(mine.tokens, theirs.tokens)
            assert np.array_equal(mine.spans, theirs.spans)
    names = [part.names(i) for part in parts for i in range(len(part))]
    assert names == [built.names(i) for i in range(len(built))]
    assert [part.mismatched for part in parts] == [mismatched] * len(parts)


@given(trees)
@settings(max_examples=200)
def test_a_packed_row_has_no_padding_and_its_ends_tell_the_trees(some):
    forest = lay_out(some, PACKED)
    assert forest.slots == sum(tree.slots for tree in some)
    at, want = 0, []
    for tree in some:
        fork = len(tree.prompt) if len(tree.branches) > 1 else tree.slots
        want.append((at, at + fork, at + tree.slots))
        at += tree.slots
    assert cuts(forest.end[0]) == want


@given(trees)
@settings(max_examples=50)
def test_packed_rows_and_rows_of_a_width_see_the_same(some):
    wide, packed = lay_out(some), lay_out(some, PACKED)
    assert packed.visible().sum() == wide.visible().sum() - (wide.slots - packed.slots)  # a padded slot sees itself
