"""Checks that micro-batches, order, repetition and checkpoints do not change the result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Objective
from alignzoo.testing.synthetic_batch import Batch, batch_for


def rows_are_independent(objective: Objective) -> None:
    """Check that the loss of an example does not depend on the rest of its micro-batch.

    Skipped for `scope = "batch"`, where it may.
    """
    if objective.scope == "batch":
        return
    batch = batch_for(objective)
    together = _losses(batch, range(6))
    for rows in ([0, 3, 5], [2], [1, 4]):
        assert _alike(_losses(batch, rows), {row: together[row] for row in rows}), (
            "an example's loss depends on the rest of the batch, so micro-batches would change the result; use "
            'no mean or rank over the batch, or write `scope = "batch"` in the class'
        )


def order_does_not_matter(objective: Objective) -> None:
    """Check that permuting the rows permutes the losses."""
    batch = batch_for(objective)
    assert _alike(_losses(batch, [5, 0, 3, 1, 4, 2]), _losses(batch, range(6))), (
        "an example's loss depends on its index in the batch; make it independent of the order of the rows"
    )


def left_out_draws_count_in_nothing(objective: Objective) -> None:
    """Check that advantages and losses do not depend on draws that are not kept.

    Only groups have draws.
    """
    if objective.data != "group":
        return
    batch = batch_for(objective)
    group = batch.group()
    own, other = (
        objective.advantage(replace(group, reward=group.reward.masked_fill(~group.kept, value))) for value in (0.0, 9.0)
    )
    kept = group.kept if own.dim() == 2 else batch.kept_tokens
    assert torch.allclose(own[kept], other[kept], rtol=1e-9, atol=1e-10), (
        "an advantage depends on a draw that is left out; use `group.mean`, `centered`, `std` and `leave_one_out`, "
        "which are over the draws that are kept"
    )
    leaves = {name: leaf - 0.05 * ~batch.kept_tokens for name, leaf in batch.leaves.items()}
    before, after = (
        objective.loss(batch.loss_input(batch.scored_batch(values)).example) for values in (batch.leaves, leaves)
    )
    assert torch.allclose(before, after, rtol=1e-9, atol=1e-10), (
        "a loss depends on a draw that is left out; use `group.sum` and `group.mean`, which are over the draws that "
        "are kept"
    )


def _losses(batch: Batch, rows: Any) -> dict[int, Tensor]:
    """Return row -> the losses of its examples (an unpaired row may have several)."""
    loss_input = batch.loss_input(batch.scored_batch(rows=list(rows)))
    loss, owners = batch.objective.loss(loss_input.example).detach(), torch.from_numpy(loss_input.owners)
    return {row: loss[owners == index] for index, row in enumerate(rows)}


def _alike(one: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> bool:
    return all(torch.allclose(value, other[row], rtol=1e-9, atol=1e-10) for row, value in one.items())


def input_is_untouched(objective: Objective) -> None:
    """Check that the objective does not modify its input."""
    example = batch_for(objective).example
    for name in ("next_state", "loss", "weight"):
        if name == "next_state" and not objective.initial_state():
            continue
        before = _numbers(example)
        with torch.set_grad_enabled(name != "next_state"):
            getattr(objective, name)(example)
        after = _numbers(example)
        same = len(before) == len(after) and all(map(_equal, before, after))
        assert same, f"{name} changed its input; avoid in-place operations, whose names end in an underscore"


def _numbers(value: Any) -> list[Any]:
    """Return copies of all tensors and numbers in an example."""
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    if isinstance(value, Mapping):
        return [number for _, one in sorted(value.items()) for number in _numbers(one)]
    if is_dataclass(value):
        return [number for field in fields(value) for number in _numbers(getattr(value, field.name))]
    return [value]


def _equal(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a is b or a == b


def same_twice(objective: Objective) -> None:
    """Check that two calls on equal batches give the same losses."""
    batches = batch_for(objective), batch_for(objective)
    state = batches[0].state
    first, second = (objective.loss(batch.loss_input(state=state).example).detach() for batch in batches)
    assert torch.equal(first, second), (
        "two calls gave different losses; keep no state between calls, and use `needs_uniform = True` for random "
        "numbers, which are seeded"
    )


def weights_are_positive(objective: Objective) -> None:
    """Check that `weight` returns positive numbers that do not depend on the scores.

    They have the shape (B,). With `scope = "batch"` they may depend on the scores, and only their sum must be positive.
    With `flags` or `drawn_by` those of some rows may be zero.
    """
    batch = batch_for(objective)
    loss_input = batch.loss_input()
    weight, expected = objective.weight(loss_input.example), (len(loss_input.owners),)
    assert isinstance(weight, Tensor), f"weight returned {type(weight).__name__}; return a tensor"
    assert weight.shape == expected, (
        f"weight returned shape {tuple(weight.shape)} for {expected[0]} examples; return one weight per example"
    )
    assert not weight.requires_grad, "a weight requires a gradient; detach it"
    assert bool(weight.isfinite().all()), (
        "a weight is not finite; return finite numbers, because the step divides by their sum"
    )
    if objective.scope == "batch" or objective.flags or objective.drawn_by:
        divides = bool((weight >= 0).all()) and float(weight.sum()) > 0
        assert divides, "a weight is negative, or all are zero; return numbers >= 0 with a positive sum"
    else:
        assert bool((weight > 0).all()), (
            "a weight is not positive; return numbers above 0, because the step divides by their sum"
        )
    if objective.scope == "batch":
        return
    independent = torch.allclose(weight, objective.weight(batch.zeros()).to(weight.dtype))
    assert independent, (
        'weight depends on scores or random numbers, whose values come later; write `scope = "batch"` in the class'
    )


def state_round_trips(objective: Objective) -> None:
    """Check that a state survives a checkpoint and depends only on the batch.

    It also keeps its keys and stays finite.
    """
    state = objective.initial_state()
    if not state:
        changes = type(objective).next_state is not Objective.next_state and len(objective.components) == 1
        assert not changes, "next_state is never called without a state; return the initial numbers from initial_state"
        return
    _check_state("initial_state", state, state)
    batch = batch_for(objective)
    assert not isinstance(batch.loss_input(state=state).example, Scored), (
        '`data = "chosen"` has no state; use pairs and read `pair.chosen`'
    )
    for _ in range(3):
        after, again = (_next(objective, batch, before) for before in (state, json.loads(json.dumps(state))))
        _check_state("next_state", after, state)
        assert after == again, (
            "next_state gave different results for the same batch and state; make it depend only on these, so that a "
            "run can be resumed"
        )
        state = after


def _next(objective: Objective, batch: Batch, state: dict[str, float]) -> dict[str, float]:
    with torch.no_grad():
        return objective.next_state(batch.loss_input(state=state).example)


def _check_state(method: str, state: Any, before: Mapping[str, float]) -> None:
    assert isinstance(state, dict), f"{method} returned {type(state).__name__}; return a dictionary of floats"
    assert set(state) == set(before), (
        f"{method} returned the keys {', '.join(sorted(state)) or 'none'}; return those of initial_state, "
        f"{', '.join(sorted(before))}"
    )
    for key, value in state.items():
        assert isinstance(value, int | float), f"{method} returned a {type(value).__name__} for {key}; use float(...)"
        assert math.isfinite(value), f"{method} returned {value} for {key}; keep it finite"
