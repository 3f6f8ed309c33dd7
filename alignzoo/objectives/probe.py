"""Probe an objective for the inputs that its loss reads.

A modifier of the log-ratio has no effect on an objective that does not read it. Only the code of the objective shows
that (AOT compares log-probs, LD-DPO sums tokens), so the loss is computed once on synthetic inputs that record reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.synthetic import SyntheticInputs


@dataclass(frozen=True, slots=True)
class _Recorded(Scored):
    """Completions that record reads of their log-ratio.

    A log-ratio that a modifier sets is not recorded.
    """

    _reads: list[str] = field(default_factory=list)

    @property
    def log_ratio(self) -> Tensor:
        self._reads.append("log_ratio")
        return self.log_prob - self.ref_log_prob

    def with_log_ratio(self, log_ratio: Tensor) -> Scored:
        return Scored(**_values(self) | {"_log_ratio": log_ratio})


def reads_log_ratio(objective: Objective) -> bool:
    """Return True if the loss reads `scored.log_ratio`, or if it fails on synthetic inputs."""
    reads: list[str] = []
    moves = torch.linspace(-0.5, 0.5, 2, dtype=torch.float64)
    try:
        example = SyntheticInputs(objective).example({"chosen": moves, "rejected": -moves})
        objective.loss(_recorded(example, reads))
    except Exception:  # the conformance kit reports why
        return True
    return bool(reads)


def reads_reference(objective: Objective) -> bool:
    """Return True if a loss on groups reads the reference, or fails on synthetic inputs."""
    moves = torch.linspace(-0.5, 0.5, 2, dtype=torch.float64)
    try:
        group = SyntheticInputs(objective).example({"chosen": moves, "rejected": -moves})
        tokens = group.completions._tokens and replace(group.completions._tokens, _ref_log_prob=None)
        objective.loss(replace(group, completions=replace(group.completions, _ref_log_prob=None, _tokens=tokens)))
    except Exception:  # NotDeclared: it reads what is not there; of another error the conformance kit reports why
        return True
    return False


def _recorded(example: Any, reads: list[str]) -> Any:
    if isinstance(example, Scored):
        return _Recorded(**_values(example), _reads=reads)
    return replace(example, **{name: _recorded(side, reads) for name, side in example.sides().items()})


def _values(scored: Scored) -> dict[str, Any]:
    return {one.name: getattr(scored, one.name) for one in fields(Scored)}
