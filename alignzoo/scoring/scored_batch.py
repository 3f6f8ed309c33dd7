"""Batches of scored sequences: values of rows' scored tokens, ragged, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.arrays import concat_ranges, offsets_of
from alignzoo.models.logits import per_sequence
from alignzoo.scoring.scorer import PER_SEQUENCE


class TokenScores(Protocol):
    """Log-probs of scored tokens of trees, such as `alignzoo.reference.ReferenceScores`."""

    def tokens(self, tree: int, branch: int) -> NDArray[np.float32]:
        """Return the log-probs of one branch, (n,), in nats."""


OLD = "old_log_prob"
"""Name of the log-probs under the policy that drew."""
OLD_VALUE, RETURNS = "old_value", "returns"
"""Names of the critic's values at the time of drawing, and of what they are fitted to."""
NAMED = "ref_log_prob of {}"
"""The value that holds the log-probs under a named reference."""


@dataclass
class ScoredBatch:
    """The values of some rows' scored tokens, ragged: S sequences with N scored tokens in all."""

    rows: list[int]
    """Indices of trees."""
    counts: list[int]
    """Sequences of each row."""
    lengths: NDArray[np.int64]
    """(S,) scored tokens of each sequence."""
    values: dict[str, Tensor]
    """Name -> (N,), or (S,) for those in PER_SEQUENCE, (S, K) for K outputs and (S, d) for hidden states.

    Log-probs are in nats.
    """

    def __post_init__(self) -> None:
        self.offsets = offsets_of(self.lengths)
        self.first = offsets_of(self.counts)

    @property
    def like(self) -> Tensor:
        """Any one value, for the dtype and device that all of them share."""
        return next(iter(self.values.values()))

    def sum(self, name: str) -> Tensor:
        """Sum a value over each sequence's tokens: (S,)."""
        return self._sum(self.values[name])

    def log_ratio(self) -> Tensor:
        """Sum log pi - log pi_ref over each sequence's tokens: (S,).

        It is exactly 0 where the two agree.
        """
        return self._sum(self.values["log_prob"] - self.values["ref_log_prob"])

    def _sum(self, values: Tensor) -> Tensor:
        return per_sequence(values, torch.from_numpy(self.offsets).to(values.device))

    def tokens_of(self, sequences: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices of the tokens of some sequences, in the order of the sequences."""
        return concat_ranges(self.offsets[:-1][sequences], self.lengths[sequences])

    def in_order(self, rows: Sequence[int]) -> ScoredBatch:
        """Return a batch of these rows, in this order."""
        position = {row: i for i, row in enumerate(self.rows)}
        order = [position[row] for row in rows]
        sequences = concat_ranges(self.first[:-1][order], np.diff(self.first)[order])
        index = {True: torch.from_numpy(sequences), False: torch.from_numpy(self.tokens_of(sequences))}
        values = {name: value[index[name in PER_SEQUENCE].to(value.device)] for name, value in self.values.items()}
        return ScoredBatch(list(rows), [self.counts[i] for i in order], self.lengths[sequences], values)


def concat_scored(parts: Sequence[ScoredBatch]) -> ScoredBatch:
    """Concatenate batches. All must have the same values."""
    return ScoredBatch(
        [row for part in parts for row in part.rows],
        [count for part in parts for count in part.counts],
        np.concatenate([part.lengths for part in parts]),
        {name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values},
    )
