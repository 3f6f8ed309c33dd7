"""Check of the sign: a step down the loss's gradient raises the quantity that the objective declares."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.interfaces.objective import Objective
from alignzoo.testing.synthetic_batch import Batch, batch_at_start

BY_DATA = {"pair": "margin", "chosen": "chosen", "unpaired": "labels", "ranked": "order"}
WORDS = {
    "margin": "the chosen completions' log-probs less the rejected ones'",
    "chosen": "the chosen completions' log-probs",
    "desirable": "the desirable completions' log-probs",
    "undesirable": "minus the undesirable completions' log-probs",
    "order": "the agreement of log-probs with the data's order",
}


def descent_raises_what_it_says(objective: Objective) -> None:
    """Check that one small step down the gradient, from the reference if any, raises what `raises` declares.

    A step moves each quantity by minus the product of its slope and the loss's. Log-probs are means over tokens, so
    that chosen and rejected completions have equal weight whatever their lengths.
    """
    raises = objective.raises if objective.raises != "by_data" else BY_DATA[objective.data]
    if raises == "nothing":
        return
    batch = batch_at_start(objective)
    loss = objective.loss(batch.example).sum()
    leaf = batch.leaves["scalar" if objective.head == "scalar" else "log_prob"]
    (slope,) = torch.autograd.grad(loss, [leaf], allow_unused=True) if loss.requires_grad else (None,)
    for name, wanted in _directions(batch, raises).items():
        rise, scale = (0.0, 1.0) if slope is None else (-float(slope @ wanted), float(slope.abs() @ wanted.abs()))
        assert rise > 1e-6 * scale, (
            f"one step down the gradient does not raise {WORDS[name]}; look for a sign, or declare what the loss does "
            'raise: `raises = "..."` in the class'
        )


def _directions(batch: Batch, raises: str) -> dict[str, Tensor]:
    """Return each quantity's slope by every token's log-prob, or by every scalar."""
    columns, counts = batch.trees.columns, batch.flat().counts
    own = [n // 2 if batch.trees.mismatched else n for n in counts]
    signs = [0.0] * sum(counts)
    first = 0
    found: dict[str, list[float]] = {}
    for n, count in zip(own, counts, strict=True):
        for k in range(n):
            at = first + k
            good = columns["desirable"][at] > 0.5
            for name, value in {
                "margin": {0: 1.0, n - 1: -1.0}.get(k, 0.0),
                "chosen": float(k == 0),
                "desirable": float(good),
                "undesirable": -float(not good),
                "order": (n - 1) / 2 - k,
            }.items():
                found.setdefault(name, signs.copy())[at] = value
        first += count
    names = ("desirable", "undesirable") if raises == "labels" else (raises,)
    flat = batch.flat()
    leaf = flat.like
    if batch.objective.head == "scalar":
        return {name: torch.tensor(found[name], dtype=leaf.dtype) for name in names}
    lengths = torch.from_numpy(flat.lengths)
    return {name: (torch.tensor(found[name], dtype=leaf.dtype) / lengths).repeat_interleave(lengths) for name in names}
