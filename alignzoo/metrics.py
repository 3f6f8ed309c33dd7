"""Means over a global batch, or over the held-out rows: they don't depend on how the batch was cut."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from torch import Tensor

from alignzoo.objective import Objective, Pair, Scored


def correct(better: Tensor, worse: Tensor) -> Tensor:
    """1 where `better` is larger, 0 where it is smaller, one half where they tie (all of step 0, by definition)."""
    return 0.5 * ((better > worse).double() + (better >= worse).double())


def describe(objective: Objective, example: Pair | Scored) -> dict[str, Tensor]:
    """What is known of each example besides its loss: rewards, log-ratios and log-probs, shape (B,) each."""
    if isinstance(example, Scored):
        return {"chosen_log_prob": example.log_prob}
    chosen, rejected = objective.reward(example.chosen), objective.reward(example.rejected)
    values = {"accuracy": correct(chosen, rejected), "margin": chosen - rejected}
    values |= {"chosen_reward": chosen, "rejected_reward": rejected}
    if objective.reference != "none":
        values |= {"chosen_log_ratio": example.chosen.log_ratio, "rejected_log_ratio": example.rejected.log_ratio}
    return values | {"chosen_log_prob": example.chosen.log_prob, "rejected_log_prob": example.rejected.log_prob}


class Tally:
    """Sums over micro-batches and ranks, in float64."""

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self._sums: dict[str, float] = {"loss": 0.0, "weight": 0.0, "examples": 0.0}

    @property
    def weight(self) -> float:
        """Sum of the examples' weights: what the sum of losses is divided by."""
        return self._sums["weight"]

    @torch.no_grad()
    def add(self, objective: Objective, example: Pair | Scored, losses: Tensor) -> None:
        """Add one micro-batch."""
        values = describe(objective, example) | {"loss": losses, "weight": objective.weight(example)}
        names = list(values)
        sums = torch.stack([values[name].detach().double().sum() for name in names]).tolist()
        for name, value in zip(names, sums, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._sums["examples"] += len(losses)

    def over_ranks(self) -> Tally:
        """Add up the sums of all ranks."""
        if self._accelerator is not None and self._accelerator.num_processes > 1:
            names = sorted(self._sums)
            sums = torch.tensor([self._sums[name] for name in names], device=self._accelerator.device)
            self._sums = dict(zip(names, self._accelerator.reduce(sums, "sum").tolist(), strict=True))
        return self

    def means(self) -> dict[str, float]:
        """The loss per weight, everything else per example."""
        examples = self._sums["examples"]
        values = {name: total / examples for name, total in self._sums.items() if name not in ("weight", "examples")}
        return values | {"loss": self._sums["loss"] / self._sums["weight"]}


def standard_error(values: Tensor) -> float:
    """Of a mean over independent examples."""
    return float(values.double().std(correction=0)) / math.sqrt(len(values)) if len(values) else math.nan
