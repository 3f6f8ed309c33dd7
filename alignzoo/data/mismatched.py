"""Mismatched completions beside a tree's own, for KTO's estimate of the KL divergence."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

import numpy as np

from alignzoo.core.arrays import concat_ranges
from alignzoo.core.errors import UserError
from alignzoo.data.trees import Tree, Trees


def with_mismatched(trees: Trees, max_length: int, start: int = 0, stop: int | None = None) -> Trees:
    """Add mismatched completions to each tree, for KTO's estimate of the KL divergence.

    The mismatched completions of a tree are those of a tree of the next prompt, the one at the same place among the
    trees of its prompt: trees of a prompt that are sorted, by reward for instance, all have their turn. The choice
    depends on the data alone, so that all runs share cached reference scores.

    Args:
        trees: All trees.
        max_length: Limit on prompt + completion, in tokens; mismatched completions are truncated to it.
        start: First tree to return.
        stop: End of the trees to return.

    Raises:
        UserError: All prompts are the same.

    Source: Ethayarajh et al. 2024 (arXiv:2402.01306).
    """
    stop = len(trees) if stop is None else min(stop, len(trees))
    widened = []
    for i in range(start, stop):
        tree = trees[i]
        others = ((i + step) % len(trees) for step in range(1, len(trees)))
        following = next((j for j in others if not np.array_equal(trees[j].prompt, tree.prompt)), None)
        if following is None:
            raise UserError(
                "all rows have the same prompt, and mismatched completions need a second one", where="data",
                expected="at least two different prompts",
            )  # fmt: skip
        place = _same_prompt(trees, range(i - 1, -1, -1), tree)
        count = 1 + _same_prompt(trees, range(following + 1, len(trees)), trees[following])
        other = trees[following + place % count]
        mismatched = []
        for b in range(len(tree.branches)):
            branch = other.branches[b % len(other.branches)]
            room = max(1, max_length - len(tree.prompt))
            mismatched.append(branch.part(branch.context, min(branch.context + room, len(branch.tokens))))
        widened.append(Tree(tree.id, tree.prompt, (*tree.branches, *mismatched)))
    built = Trees.build(widened, mismatched=True)
    first, last = (int(trees.trees[i]) - i for i in (start, stop))
    own = concat_ranges(built.first[:-1], np.diff(built.first) // 2)
    for name, values in trees.columns.items():
        built.columns[name] = np.full(int(built.first[-1]), np.nan, dtype=np.float32)
        built.columns[name][own] = values[first:last]
    return built


def _same_prompt(trees: Trees, places: Iterable[int], tree: Tree) -> int:
    """Return how many of the first trees at `places` have this tree's prompt."""
    return sum(1 for _ in takewhile(lambda j: np.array_equal(trees[j].prompt, tree.prompt), places))
