"""From the log-probs of a forest's sequences to what an objective sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alignzoo.objective import Objective, Pair, Scored
from alignzoo.reference import Reference
from alignzoo.tree import Tree, Trees


def branches_of(objective: Objective) -> int:
    """How many branches of a preference tree the objective trains on: the chosen one, or both."""
    return 1 if objective.data == "chosen" else 2


def trained_tree(trees: Trees, row: int, branches: int) -> Tree:
    """Row `row` with the branches that the objective trains on."""
    tree = trees[row]
    return tree if len(tree.branches) == branches else Tree(tree.id, tree.prompt, tree.branches[:branches])


def reference_sums(reference: Reference | None, rows: Sequence[int], branches: int) -> Tensor | None:
    """(len(rows) * branches,) summed reference log-probs, in the order of a forest of these rows."""
    if reference is None:
        return None
    return torch.from_numpy(np.concatenate([reference.of(row, branches) for row in rows]))


def as_pair(log_prob: Tensor, length: Tensor, ref_log_prob: Tensor | None) -> Pair:
    """(2 B,) sequences, chosen and rejected in turn, as B pairs."""
    ref = [None, None] if ref_log_prob is None else [ref_log_prob[0::2], ref_log_prob[1::2]]
    return Pair(
        Scored(log_prob[0::2], length[0::2], ref[0]),
        Scored(log_prob[1::2], length[1::2], ref[1]),
    )


def as_example(objective: Objective, log_prob: Tensor, length: Tensor, ref_log_prob: Tensor | None) -> Pair | Scored:
    """What `objective.loss` gets, with the reference only where it was declared."""
    ref = None if objective.reference == "none" else ref_log_prob
    if objective.data == "chosen":
        return Scored(log_prob, length, ref)
    return as_pair(log_prob, length, ref)
