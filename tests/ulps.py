"""Token log-probs moved by one float32 ulp each, as another processor would round them."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.scoring.scorer import Scorer


def move_by_one_ulp(monkeypatch: Any, seed: int, by_value: bool = False) -> None:
    """From now on every forward of a scorer moves each log-prob, a live reference's too, up or down by a seeded coin.

    With `by_value` equal values move alike, as on one other processor: what is promised to the bit holds there too.
    """
    dice, forward = torch.Generator().manual_seed(seed), Scorer.forward

    def coin(near: torch.Tensor) -> torch.Tensor:
        if not by_value:
            return (torch.rand(near.shape, generator=dice) < 0.5).to(near.device)
        bits = near.float().contiguous().view(torch.int32).long()
        return ((bits * 2654435761 + seed * 40503) >> 13) % 2 == 0

    def moved(self: Scorer, *arguments: Any, **named: Any) -> dict[str, torch.Tensor]:
        values = forward(self, *arguments, **named)
        for name in {"log_prob", "ref_log_prob"} & set(values):
            near = values[name].detach()
            up = coin(near)
            ends = torch.full_like(near, torch.inf).where(up, torch.full_like(near, -torch.inf))
            values[name] = values[name] + (near.nextafter(ends) - near)
        return values

    monkeypatch.setattr(Scorer, "forward", moved)
