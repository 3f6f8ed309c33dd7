"""Decode from a mixture of two models, stepped together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.models.adapters import disabled_adapters
from alignzoo.models.decoding import BATCHED, SHARED, STRATEGIES, DecodingBatch


@dataclass(frozen=True)
class Mixture:
    """A second model, whose distribution is mixed into that of the first at each token."""

    model: PreTrainedModel
    share: float
    """The exponent c of the second model; that of the first is 1 - c."""
    base_alone: bool = False
    """True: the second model is the first without its adapters."""


def mixed_strategy(first: str, second: str) -> str:
    """Return the strategy that decodes under both models exactly.

    Prompts are shared under one model alone.
    """
    slower = max(first, second, key=STRATEGIES.index)
    return BATCHED if slower == SHARED else slower


class MixedBatch:
    """A batch of sequences that grow by one token at a time, under both models.

    Its distribution is proportional to first^(1 - c) second^c at each token (Munos et al. 2023, arXiv:2312.00886,
    section 7). At a temperature it is the mixture of both at that temperature.
    """

    def __init__(
        self, model: PreTrainedModel, mixture: Mixture, prompts: Sequence[NDArray[Any]], cached: bool = True
    ) -> None:
        self.own, self.other = (DecodingBatch(one, prompts, cached) for one in (model, mixture.model))
        self.mixture = mixture
        self.can_shrink = self.own.can_shrink and self.other.can_shrink

    @property
    def ids(self) -> Tensor:
        """Token ids so far, (B, T)."""
        return self.own.ids

    def logits(self) -> Tensor:
        """Return the mixed log-probs up to a constant a row, (B, V).

        Logits of the second model past those of the first are left out: larger models pad the same vocabulary further.
        """
        first = self.own.logits().log_softmax(1)
        with disabled_adapters(self.other.model) if self.mixture.base_alone else nullcontext():
            second = self.other.logits()[:, : first.shape[1]].log_softmax(1)
        return first + self.mixture.share * (second - first)

    def append(self, tokens: Tensor, active: NDArray[np.bool_]) -> None:
        """Append one token (B,) to each sequence."""
        for batch in (self.own, self.other):
            batch.append(tokens, active)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Remove all rows from the batch except these."""
        for batch in (self.own, self.other):
            batch.keep(rows)
