"""Checks of the formula: its shape, its numbers, its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.core.errors import first_line
from alignzoo.interfaces.objective import Objective
from alignzoo.testing.synthetic_batch import BOUNDS, Batch, batch_apart, batch_for

MARGINS = (0.0, 1e-3, 10.0, 1e4)
"""In nats. The last is what a broken model, or a very long completion, gives."""


def one_loss_per_example(objective: Objective) -> None:
    """`loss` returns shape (B,)."""
    for rows in (1, 6):
        given = batch_for(objective, rows).given()
        loss, wanted = objective.loss(given.example), (len(given.owners),)
        assert isinstance(loss, Tensor), f"loss returned {type(loss).__name__}; return a tensor"
        assert loss.shape == wanted, (
            f"loss returned shape {tuple(loss.shape)} for {wanted[0]} examples; return one loss an example, not their "
            "mean"
        )


def keeps_the_dtype(objective: Objective) -> None:
    """float64 in, float64 out: no constant tensor or cast hides in the formula."""
    loss = objective.loss(batch_for(objective).example)
    assert loss.dtype == torch.float64, (
        f"float64 in, {loss.dtype} out; make constants with the dtype of what you are given"
    )


def finite_at_extremes(objective: Objective) -> None:
    """Finite loss and gradient in float32 where policy and reference differ by up to 10,000 nats, of either sign."""
    for margin in MARGINS:
        what = _not_finite(batch_apart(objective, margin))
        assert not what, f"the {what} not finite at a margin of +-{margin:g}; use logsigmoid, log1p, softplus, expm1"


def finite_in_bfloat16(objective: Objective) -> None:
    """The same in bfloat16, which has seven bits: differences vanish, and what is close to 1 is 1."""
    for margin in MARGINS:
        try:
            what = _not_finite(batch_apart(objective, margin, torch.bfloat16))
        except RuntimeError as error:
            problem = first_line(error)
            raise AssertionError(f"bfloat16 makes it fail: {problem}; give no dtype to what you make") from None
        assert not what, (
            f"in bfloat16 the {what} not finite at a margin of +-{margin:g}; keep logs and divisors away from zero"
        )


def _not_finite(batch: Batch) -> str:
    loss = batch.objective.loss(batch.example)
    if not bool(loss.isfinite().all()):
        return "loss is"
    if not loss.requires_grad:
        return ""
    found = torch.autograd.grad(loss.sum(), list(batch.leaves.values()), allow_unused=True)
    return "" if all(g is None or bool(g.isfinite().all()) for g in found) else "gradient is"


def held_constant(objective: Objective) -> str:
    """What the objective, or a modifier of it, says that it holds constant on purpose; "" when nothing is."""
    return "; ".join(dict.fromkeys(piece.stop_gradient for piece in objective.components if piece.stop_gradient))


def gradient_is_right(objective: Objective) -> None:
    """Run torch.autograd.gradcheck in float64, by every token's value, except where `stop_gradient` is declared."""
    if held_constant(objective):
        return
    batch = batch_for(objective, rows=4)
    batch.state  # noqa: B018  a constant of the step: made before the scores are moved

    def loss(*values: Tensor) -> Tensor:
        flat = batch.flat(dict(zip(batch.leaves, values, strict=True)))
        return objective.loss(batch.given(flat).example)

    if loss(*batch.leaves.values()).dtype != torch.float64:
        return  # rounding hides the derivative; `keeps_the_dtype` says so
    right = torch.autograd.gradcheck(loss, list(batch.leaves.values()), raise_exception=False, atol=1e-5, rtol=1e-3)
    assert right, (
        "the gradient is not the derivative of the loss; look for detach, .data, rounding or a hard switch, and if "
        'something is held constant on purpose say what: `stop_gradient = "..."` in the class'
    )


def gradient_reaches_the_policy(objective: Objective) -> None:
    """The loss depends on what the policy says."""
    batch = batch_for(objective)
    loss = objective.loss(batch.example)
    found = (
        torch.autograd.grad(loss.sum(), list(batch.leaves.values()), allow_unused=True) if loss.requires_grad else ()
    )
    moved = any(g is not None and bool(g.abs().sum() > 0) for g in found)
    assert moved, (
        f"no gradient reaches the policy's {' or '.join(batch.leaves)}; the loss must depend on it, undetached"
    )


def loss_decreases(objective: Objective) -> None:
    """Sixty steps of Adam on what the policy says of every token lower the loss of the batch."""
    batch = batch_for(objective)
    state = batch.state
    optimizer = torch.optim.Adam(batch.leaves.values(), lr=0.03)
    first = last = float("nan")
    for step in range(61):
        example = batch.given(state=state).example
        loss = objective.loss(example).sum() / objective.weight(example).sum()
        last = float(loss.detach())
        first = last if step == 0 else first
        if not loss.requires_grad:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for name, leaf in batch.leaves.items():
                leaf.clamp_(*BOUNDS[name])
    assert last < first, (
        f"60 steps down its own gradient took the loss from {first:.4g} to {last:.4g}; look for a sign or a detach"
    )
