"""Checks of the shape, the values and the gradient of the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.core.errors import first_line
from alignzoo.interfaces.objective import Objective
from alignzoo.testing.synthetic_batch import BOUNDS, UNBOUNDED, Batch, batch_apart, batch_for

MARGINS = (0.0, 1e-3, 10.0, 1e4)
"""In nats. A broken model or a very long completion reaches the last one."""


def one_loss_per_example(objective: Objective) -> None:
    """Check that `loss` returns shape (B,)."""
    for rows in (1, 6):
        loss_input = batch_for(objective, rows).loss_input()
        loss, expected = objective.loss(loss_input.example), (len(loss_input.owners),)
        assert isinstance(loss, Tensor), f"loss returned {type(loss).__name__}; return a tensor"
        assert loss.shape == expected, (
            f"loss returned shape {tuple(loss.shape)} for {expected[0]} examples; return one loss per example, not "
            "their mean"
        )


def keeps_the_dtype(objective: Objective) -> None:
    """Check that float64 inputs give a float64 loss.

    Constants or casts of another type would change it.
    """
    loss = objective.loss(batch_for(objective).example)
    assert loss.dtype == torch.float64, (
        f"float64 inputs gave a loss of {loss.dtype}; create constants with the dtype of the inputs"
    )


def finite_at_extremes(objective: Objective) -> None:
    """Check that loss and gradient are finite in float32 at extreme log-ratios.

    Policy and reference differ by up to 10,000 nats.
    """
    for margin in MARGINS:
        part = _not_finite(batch_apart(objective, margin))
        assert not part, f"the {part} not finite at a margin of +-{margin:g}; use logsigmoid, log1p, softplus, expm1"


def finite_in_bfloat16(objective: Objective) -> None:
    """Check that loss and gradient are finite in bfloat16.

    Its numbers have 8 significant bits.
    """
    for margin in MARGINS:
        try:
            part = _not_finite(batch_apart(objective, margin, torch.bfloat16))
        except RuntimeError as error:
            hint = "create constants with the dtype of the inputs"
            raise AssertionError(f"it fails in bfloat16: {first_line(error)}; {hint}") from None
        assert not part, (
            f"in bfloat16 the {part} not finite at a margin of +-{margin:g}; keep logs and divisors away from zero"
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
    """Return the `stop_gradient` declarations of the objective and its modifiers, or ""."""
    return "; ".join(dict.fromkeys(one.stop_gradient for one in objective.components if one.stop_gradient))


def gradient_is_right(objective: Objective) -> None:
    """Check the gradient by `torch.autograd.gradcheck` in float64 on every token's values.

    An objective that declares `stop_gradient` is not checked.
    """
    if held_constant(objective):
        return
    batch = batch_for(objective, rows=4)
    batch.state  # noqa: B018  a constant of the step, computed before the scores change

    def loss(*values: Tensor) -> Tensor:
        scored = batch.scored_batch(dict(zip(batch.leaves, values, strict=True)))
        return objective.loss(batch.loss_input(scored).example)

    if loss(*batch.leaves.values()).dtype != torch.float64:
        return  # rounding hides the derivative; `keeps_the_dtype` reports it
    right = torch.autograd.gradcheck(loss, list(batch.leaves.values()), raise_exception=False, atol=1e-5, rtol=1e-3)
    assert right, (
        "the gradient is not the derivative of the loss; look for detach, .data, rounding or a hard switch, or declare "
        'the term that is held constant: `stop_gradient = "..."` in the class'
    )


def gradient_reaches_the_policy(objective: Objective) -> None:
    """Check that the gradient with respect to the policy's values is not zero."""
    batch = batch_for(objective)
    loss = objective.loss(batch.example)
    found = (
        torch.autograd.grad(loss.sum(), list(batch.leaves.values()), allow_unused=True) if loss.requires_grad else ()
    )
    moved = any(g is not None and bool(g.abs().sum() > 0) for g in found)
    assert moved, (
        f"no gradient reaches the policy's {' or '.join(batch.leaves)}; the loss must depend on it without detach"
    )


def loss_decreases(objective: Objective) -> None:
    """Check that sixty steps of Adam on the policy's values lower the loss of the batch.

    Skipped for objectives that hold something constant on groups, or where nothing is declared to rise: only the
    direction of their gradient means anything.
    """
    if held_constant(objective) and (objective.data == "group" or objective.raises == "nothing"):
        return
    batch = batch_for(objective)
    state = batch.state
    optimizer = torch.optim.Adam(batch.leaves.values(), lr=0.03)
    first = last = float("nan")
    for step in range(61):
        example = batch.loss_input(state=state).example
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
                leaf.clamp_(*BOUNDS.get(name, UNBOUNDED))
    assert last < first, (
        f"60 steps down the gradient took the loss from {first:.4g} to {last:.4g}; check the sign and look for detach"
    )
