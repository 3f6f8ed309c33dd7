"""Log-probs and values of drawn rows, without gradients: of policy, reference and critic.

No cache holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.core.arrays import offsets_of
from alignzoo.core.distributed.process_group import Ranks, share_rows
from alignzoo.data.trees import Trees
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.microbatches import in_micro_batches
from alignzoo.scoring.scorer import Scorer


class TokenValues:
    """A value of each scored token of some trees.

    Args:
        trees: The trees.
        values: (N,) in the order of trees, branches and tokens.
    """

    def __init__(self, trees: Trees, values: NDArray[Any]) -> None:
        self.trees, self.values, self._cuts = trees, values, token_cuts(trees)

    def tokens(self, tree: int, branch: int) -> NDArray[Any]:
        """Return the values of one branch, (n,)."""
        at = self.trees.branches(tree)[0] + branch
        return self.values[self._cuts[at] : self._cuts[at + 1]]


def token_cuts(trees: Trees) -> NDArray[np.int64]:
    """Return where the scored tokens of each branch start, (branches + 1,)."""
    scored = np.delete(trees.scored, trees.trees[:-1])
    return offsets_of(scored)


def float_type(scorer: Scorer) -> Any:
    """Return the type of a scorer's numbers: that of its model, and at least float32."""
    return np.float64 if scorer.model.dtype == torch.float64 else np.float32


@torch.no_grad()
def score_rows(
    scorer: Scorer, trees: Trees, budget: int, say: Callable[[str], None], statistics: Sequence[str] = (),
    live: Scorer | None = None, ranks: Ranks | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return log-probs and statistics (N,) of scored tokens, in order of trees and branches.

    Each process scores its share of the rows, and all get the values of all. Their type is `float_type`.

    Args:
        scorer: The policy or the reference.
        trees: The rows.
        budget: Token slots of a micro-batch.
        say: Shows a message.
        statistics: Names of statistics.
        live: The reference of the statistics.
        ranks: The processes, or None for one.
    """
    device = next(scorer.parameters()).device
    cuts = token_cuts(trees)
    found: dict[str, NDArray[Any]] = {}
    kind = float_type(scorer)
    dtype = torch.float64 if kind is np.float64 else torch.float32

    def work(rows: list[int]) -> dict[str, torch.Tensor]:
        return scorer(lay_out([trees[row] for row in rows], scorer.layout).to(device), tuple(statistics), live)

    rank, count = (ranks.index, ranks.count) if ranks else (0, 1)
    mine = share_rows(range(len(trees)), trees.sizes.tolist(), rank, count)
    parts = [
        (rows, {name: value.to(dtype).cpu().numpy() for name, value in values.items()})
        for rows, values in in_micro_batches(trees, np.sort(mine), budget, scorer.layout, work, say)
    ]
    for rows, scored in (part for some in (ranks.all_gather(parts) if ranks else [parts]) for part in some):
        places = np.concatenate([np.arange(*cuts[list(trees.branches(row))]) for row in rows])
        for name, numbers in scored.items():
            found.setdefault(name, np.zeros(cuts[-1], kind))[places] = numbers
    return found


@contextmanager
def at_temperature(temperature: float, *scorers: Scorer | None) -> Iterator[None]:
    """Score at a temperature inside the block."""
    known = [scorer for scorer in scorers if scorer is not None]
    before = [scorer.temperature for scorer in known]
    for scorer in known:
        scorer.temperature = temperature
    try:
        yield
    finally:
        for scorer, one in zip(known, before, strict=True):
            scorer.temperature = one
