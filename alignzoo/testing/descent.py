"""Check of the sign of the loss: gradient descent raises the declared quantity."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import TIE
from alignzoo.testing.synthetic_batch import Batch, batch_at_start

BY_DATA = {"pair": "margin", "chosen": "chosen", "unpaired": "labels", "ranked": "order", "group": "rewarded"}
DESCRIPTIONS = {
    "margin": "the chosen completions' log-probs minus the rejected ones'",
    "chosen": "the chosen completions' log-probs",
    "desirable": "the desirable completions' log-probs",
    "undesirable": "minus the undesirable completions' log-probs",
    "rewarded": "the log-probs of completions with a high reward minus those with a low one",
    "order": "the agreement of log-probs with the data's order",
}


def descent_raises_what_it_says(objective: Objective) -> None:
    """Check that a small step of gradient descent raises the quantity that `raises` declares.

    The step starts at the reference, if there is one. It changes a quantity by minus the product of the slopes of the
    quantity and of the loss. Log-probs count per token, so that completions of any length have the same weight.
    """
    raises = objective.raises if objective.raises != "by_data" else BY_DATA[objective.data]
    if raises == "nothing":
        return
    batch = batch_at_start(objective)
    loss = objective.loss(batch.example).sum()
    leaf = batch.leaves["scalar" if objective.head == "scalar" else "log_prob"]
    (slope,) = torch.autograd.grad(loss, [leaf], allow_unused=True) if loss.requires_grad else (None,)
    for name, wanted in _directions(batch, raises).items():
        if slope is not None and slope.dim() > wanted.dim():  # the outputs of a reward model, whose mean counts
            wanted = wanted[:, None].expand_as(slope)
        product = (0.0 if slope is None else -(slope * wanted)), (1.0 if slope is None else (slope * wanted).abs())
        rise, scale = (float(torch.as_tensor(part).sum()) for part in product)
        assert rise > 1e-6 * scale, (
            f"one step down the gradient does not raise {DESCRIPTIONS[name]}; check the sign, or declare what "
            'rises: `raises = "..."` in the class'
        )


def _directions(batch: Batch, raises: str) -> dict[str, Tensor]:
    """Return name -> the slope of a quantity by every token's log-prob or every scalar.

    The quantity is a mean over tokens.
    """
    scored = batch.scored_batch()
    columns, counts = batch.trees.columns, scored.counts
    reward = columns.get("reward", columns["desirable"]).astype(float)
    own = [n // 2 if batch.trees.mismatched else n for n in counts]
    signs = [0.0] * sum(counts)
    first = 0
    found: dict[str, list[float]] = {}
    for n, count in zip(own, counts, strict=True):
        tied = TIE in columns and columns[TIE][first] > 0.5  # nothing is to rise there
        for k in range(0 if tied else n):
            at = first + k
            good = columns["desirable"][at] > 0.5
            for name, value in {
                "margin": {0: 1.0, n - 1: -1.0}.get(k, 0.0),
                "chosen": float(k == 0),
                "desirable": float(good),
                "undesirable": -float(not good),
                "order": (n - 1) / 2 - k,
                "rewarded": reward[at] - reward[first : first + n].mean(),
            }.items():
                found.setdefault(name, signs.copy())[at] = value
        first += count
    names = ("desirable", "undesirable") if raises == "labels" else (raises,)
    leaf = scored.like
    if batch.objective.head == "scalar":
        return {name: torch.tensor(found[name], dtype=leaf.dtype) for name in names}
    lengths = torch.from_numpy(scored.lengths)
    return {name: (torch.tensor(found[name], dtype=leaf.dtype) / lengths).repeat_interleave(lengths) for name in names}
