"""Checks of invariances that a run relies on: rows, order, calls, weights and state."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Objective
from alignzoo.testing.synthetic_batch import Batch, batch_for


def rows_are_independent(objective: Objective) -> None:
    """Check that examples have the same losses apart and together, so that micro-batches change nothing.

    Objectives with `scope = "batch"` are exempt: their losses may depend on other examples.
    """
    if objective.scope == "batch":
        return
    batch = batch_for(objective)
    whole = _losses(batch, range(6))
    for rows in ([0, 3, 5], [2], [1, 4]):
        assert _alike(_losses(batch, rows), {row: whole[row] for row in rows}), (
            "an example's loss changes with what else is in the batch, so micro-batches would change the result; use "
            'no mean or rank over the batch, or write `scope = "batch"` in the class'
        )


def order_does_not_matter(objective: Objective) -> None:
    """Check that rows in another order have the same losses, in that order."""
    batch = batch_for(objective)
    assert _alike(_losses(batch, [5, 0, 3, 1, 4, 2]), _losses(batch, range(6))), (
        "an example's loss changes with its place in the batch; a batch is a set, and rows may stand anywhere"
    )


def _losses(batch: Batch, rows: Any) -> dict[int, Tensor]:
    """Map each row to the losses of its examples; an unpaired row may have several."""
    given = batch.given(batch.flat(rows=list(rows)))
    loss, owners = batch.objective.loss(given.example).detach(), torch.from_numpy(given.owners)
    return {row: loss[owners == place] for place, row in enumerate(rows)}


def _alike(one: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> bool:
    return all(torch.allclose(value, other[row], rtol=1e-9, atol=1e-10) for row, value in one.items())


def input_is_untouched(objective: Objective) -> None:
    """Check that the objective changes no input."""
    example = batch_for(objective).example
    for name in ("next_state", "loss", "weight"):
        if name == "next_state" and not objective.initial_state():
            continue
        before = _numbers(example)
        with torch.set_grad_enabled(name != "next_state"):
            getattr(objective, name)(example)
        after = _numbers(example)
        same = len(before) == len(after) and all(map(_equal, before, after))
        assert same, f"{name} changed its input; avoid operations that end in an underscore or assign in place"


def _numbers(value: Any) -> list[Any]:
    """Copy every tensor and number in an example, at any depth."""
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
    """Check that two calls with equal numbers give equal losses."""
    batches = batch_for(objective), batch_for(objective)
    state = batches[0].state
    first, second = (objective.loss(batch.given(state=state).example).detach() for batch in batches)
    assert torch.equal(first, second), (
        "two calls gave two losses; keep nothing between calls, and draw no numbers of your own: "
        "`needs_uniform = True` gives seeded ones"
    )


def weights_are_positive(objective: Objective) -> None:
    """Check that `weight` returns (B,) positive numbers that depend on no score and have no gradient."""
    batch = batch_for(objective)
    given = batch.given()
    weight, wanted = objective.weight(given.example), (len(given.owners),)
    assert isinstance(weight, Tensor), f"weight returned {type(weight).__name__}; return a tensor"
    assert weight.shape == wanted, (
        f"weight returned shape {tuple(weight.shape)} for {wanted[0]} examples; return one weight an example"
    )
    assert not weight.requires_grad, "a weight carries a gradient; detach it"
    assert bool(weight.isfinite().all()), (
        "a weight is not finite; return finite numbers, as the step divides by their sum"
    )
    if objective.scope == "batch":
        divides = bool((weight >= 0).all()) and float(weight.sum()) > 0
        assert divides, "a weight is negative, or all are zero; return none below 0, as the step divides by their sum"
        return
    assert bool((weight > 0).all()), (
        "a weight is not positive; return numbers above 0, as the step divides by their sum"
    )
    known = torch.allclose(weight, objective.weight(batch.zeros()).to(weight.dtype))
    assert known, (
        'weight depends on scores or random numbers, and the sum is needed first; write `scope = "batch"` in the class'
    )


def state_round_trips(objective: Objective) -> None:
    """Check that a state survives JSON, keeps its keys, stays finite, and depends on batch and state alone."""
    state = objective.initial_state()
    if not state:
        changes = type(objective).next_state is not Objective.next_state and len(objective.components) == 1
        assert not changes, "next_state is never called; let initial_state return the numbers that are kept"
        return
    _keepable("initial_state", state, state)
    batch = batch_for(objective)
    assert not isinstance(batch.given(state=state).example, Scored), (
        '`data = "chosen"` gives no state to read; take pairs and read `pair.chosen`'
    )
    for _ in range(3):
        after, again = (_next(objective, batch, before) for before in (state, json.loads(json.dumps(state))))
        _keepable("next_state", after, state)
        assert after == again, (
            "next_state gave two answers to the same batch and state; let it depend on these alone: a resumed run has "
            "nothing else"
        )
        state = after


def _next(objective: Objective, batch: Batch, state: dict[str, float]) -> dict[str, float]:
    with torch.no_grad():
        return objective.next_state(batch.given(state=state).example)


def _keepable(method: str, state: Any, before: Mapping[str, float]) -> None:
    assert isinstance(state, dict), f"{method} returned {type(state).__name__}; return a dictionary of floats"
    assert set(state) == set(before), (
        f"{method} returned the keys {', '.join(sorted(state)) or 'none'}; return those of initial_state, "
        f"{', '.join(sorted(before))}"
    )
    for key, value in state.items():
        assert isinstance(value, int | float), f"{method} returned a {type(value).__name__} for {key}; use float(...)"
        assert math.isfinite(value), f"{method} returned {value} for {key}; keep it finite"
