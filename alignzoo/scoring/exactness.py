"""Spot checks during a run: scores compared with the model's own forward.

Sequences are compared one at a time.

Each shard of a reference pass, and a training step every so often, has a few rows scored a second time, always with the
longest so far. In float32 without a router one token over the limit ends the run. In bfloat16, or with a router, one
token can be over the limit by rounding or a near tie: a run ends when three of the last five checks are over.
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
"""Smallest limit in bfloat16, in nats."""
NOISE = 4
"""Ratio of the limit to the model's own rounding, where that is more than the tolerance of its dtype."""


@dataclass(frozen=True, slots=True)
class Check:
    """Difference of scores from the oracle's, in nats, at the token worst for its limit."""

    difference: float
    limit: float
    sequences: int
    tokens: int
    worst: str = ""
    """The row, the token and both numbers, in words."""

    @property
    def over(self) -> bool:
        """True if the difference is more than the limit, or not a number."""
        return not self.difference <= self.limit

    @property
    def problem(self) -> str:
        """Description of a difference over the limit, with both numbers and a fix."""
        return (
            f"the scores are not the model's own: {self.worst} (a difference of {self.difference:.2g}, over the limit "
            f"of {self.limit:.2g}); train.layout=plain scores one sequence a row"
        )

    def line(self, step: int) -> dict[str, Any]:
        """Return the line of metrics.jsonl. Step 0 is the reference's."""
        figures = {"difference": self.difference, "limit": self.limit}
        return {"kind": "exactness", "step": step} | figures | {"sequences": self.sequences, "tokens": self.tokens}


class SpotCheck:
    """Comparison of one model's scores with its oracle."""

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
        """Measure the model's rounding: the largest difference of scores between two shapes.

        A sequence is scored as it is, and without its last tokens.
        """
        cut = min(3, branch.scored - 1)
        if self.scorer.scalar or cut < 1:  # a reward is read at the last token, which has to stay the same
            return 0.0
        kept = branch.select(np.arange(len(branch.tokens)))[:-cut]
        shorter = branch.part(0, int(kept[-1]) + 1)
        return float((self.oracle(tree, branch)[:-cut].double() - self.oracle(tree, shorter).double()).abs().max())


def must_stop(over: Sequence[bool], strict: bool) -> bool:
    """Return True if a run has to stop.

    `over` has an entry for each of the run's checks so far, oldest first: True for one over its limit.
    """
    return over[-1] if strict else sum(over[-5:]) >= 3


def own_forward(scorer: Scorer) -> Oracle:
    """Return the model's own forward of one sequence, with its own attention.

    It runs in the run's precision.
    """
    model = scorer.model

    @torch.no_grad()
    def score(tree: Tree, branch: Branch) -> Tensor:
        device = next(model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=scorer.precision == "bfloat16"):
            if scorer.scalar:
                return sequence_logits(model, np.concatenate([tree.prompt, branch.tokens])).float().reshape(-1)
            return sequence_log_probs(model, tree.prompt, branch, scorer.temperature)

    return score


def routed(model: PreTrainedModel) -> bool:
    """Return True if some layers choose among experts, a choice that rounding can change."""
    config = model.config.get_text_config().to_dict()
    return any("expert" in name and isinstance(value, int) and value > 1 for name, value in config.items())


def no_oracle(sharded: bool, compiled: bool) -> str:
    """Return why scores can't be compared with the model's own forward, or ""."""
    if sharded:
        return "the model is in shards"
    return "the layers are compiled" if compiled else ""
