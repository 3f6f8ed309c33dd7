"""Spot checks: scores held to the model's own forward, one sequence at a time, for as long as a run lasts.

Every reference pass and every so many training steps score a few rows a second time, always the longest so far among
them. The check reads weights and changes none. In float32 without a router one token over the limit ends the run.
Rounding in bfloat16, or an expert chosen at a near tie, can put a single token over: there three of the last five
checks have to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.data.trees import Branch, Tree
from alignzoo.models.oracle import LIMIT, sequence_log_probs, sequence_logits
from alignzoo.scoring.forest import sequences
from alignzoo.scoring.scorer import Scorer

Oracle = Callable[[Tree, Branch], Tensor]
"""Log-probs of a sequence's scored tokens, (n,), or a reward model's number, (1,), by the model's untouched forward."""
BFLOAT16 = 0.05
"""A difference that is never over the limit in bfloat16, in nats."""
NOISE = 4
"""The limit is so many times the model's own rounding where that is more than the tolerance of its type."""


@dataclass(frozen=True, slots=True)
class Check:
    """What some sequences' scores differ by from the oracle's, at the token that is worst for its limit."""

    difference: float
    limit: float
    sequences: int
    tokens: int
    worst: str = ""
    """The row, the token and both numbers, in words."""

    @property
    def over(self) -> bool:
        """Whether the difference is more than the limit; so is not-a-number."""
        return not self.difference <= self.limit

    @property
    def problem(self) -> str:
        """A difference over the limit, with both numbers and a way out."""
        return (
            f"the scores are not the model's own: {self.worst} (a difference of {self.difference:.2g}, over the limit "
            f"of {self.limit:.2g}); train.layout=plain scores one sequence a row"
        )

    def line(self, step: int) -> dict[str, Any]:
        """As metrics.jsonl has it. Step 0 is the reference's."""
        figures = {"difference": self.difference, "limit": self.limit}
        return {"kind": "exactness", "step": step} | figures | {"sequences": self.sequences, "tokens": self.tokens}


class SpotCheck:
    """Compares scores of one model with its oracle."""

    def __init__(self, scorer: Scorer, oracle: Oracle | None = None) -> None:
        self.scorer, self.oracle = scorer, oracle or own_forward(scorer)
        model = scorer.model
        low = scorer.precision == "bfloat16" or model.dtype not in (torch.float32, torch.float64)
        self.tolerance = BFLOAT16 if low else LIMIT[model.dtype]
        self.strict = not low and not routed(model) and getattr(model, "hf_quantizer", None) is None
        """True if one token over the limit is an error and not rounding."""
        self.checks: list[Check] = []
        """Checks of the reference pass so far, oldest first."""

    def compare(self, trees: Sequence[Tree], values: Sequence[Tensor | np.ndarray[Any, Any]]) -> Check:
        """Compare each sequence's `values`, in the order of trees and branches, with the oracle's."""
        found = Check(0.0, self.tolerance, 0, 0)
        tokens = 0
        for (tree, branch), value in zip(sequences(trees), values, strict=True):
            got, want = torch.as_tensor(value).double().cpu(), self.oracle(tree, branch).double().cpu()
            tokens += len(want)
            off = (got.reshape(-1) - want.reshape(-1)).abs().nan_to_num(nan=math.inf)
            if not len(off):
                continue
            at = int(off.argmax())
            difference = float(off[at])
            limit = self.tolerance
            if difference > limit:
                limit = max(limit, NOISE * self._noise(tree, branch))
            if difference / limit >= found.difference / found.limit:
                both = f"{float(got.reshape(-1)[at]):.6g}, and {float(want.reshape(-1)[at]):.6g}"
                where = f"row {tree.id}, scored token {at + 1}"
                found = Check(difference, limit, 0, 0, f"{where}: {both} by the model's own forward")
        return Check(found.difference, found.limit, len(values), tokens, found.worst)

    def _noise(self, tree: Tree, branch: Branch) -> float:
        """The largest difference that another shape of the same computation makes: the model's own rounding."""
        cut = min(3, branch.scored - 1)
        if self.scorer.scalar or cut < 1:  # a reward is read at the last token, which has to stay the same
            return 0.0
        shorter = Branch(branch.tokens[:-cut], branch.scored_from)
        return float((self.oracle(tree, branch)[:-cut].double() - self.oracle(tree, shorter).double()).abs().max())


def must_stop(over: Sequence[bool], strict: bool) -> bool:
    """Return True if a run has to stop, by which of its checks so far, oldest first, were over their limit."""
    return over[-1] if strict else sum(over[-5:]) >= 3


def own_forward(scorer: Scorer) -> Oracle:
    """The model's own forward of one sequence with its own attention, in the precision of the run."""
    model = scorer.model

    @torch.no_grad()
    def score(tree: Tree, branch: Branch) -> Tensor:
        device = next(model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=scorer.precision == "bfloat16"):
            if scorer.scalar:
                return sequence_logits(model, np.concatenate([tree.prompt, branch.tokens])).float().reshape(-1)
            return sequence_log_probs(model, tree.prompt, branch)

    return score


def routed(model: PreTrainedModel) -> bool:
    """Whether some layers choose among experts, a choice that rounding can turn."""
    config = model.config.get_text_config().to_dict()
    return any("expert" in name and isinstance(value, int) and value > 1 for name, value in config.items())


def no_oracle(sharded: bool, compiled: bool) -> str:
    """Why scores can't be held to the model's own forward, or ""."""
    if sharded:
        return "the model is in shards"
    return "the layers are compiled" if compiled else ""
