"""Checks of an objective's declarations: its needs, its fields and its source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from alignzoo.interfaces.loss_inputs import NotDeclared, Scored
from alignzoo.interfaces.objective import Objective, contradiction
from alignzoo.testing.synthetic_batch import Batch, batch_for, less

BOUNDS = ("exclusiveMinimum", "minimum", "exclusiveMaximum", "maximum")
"""JSON Schema's words for gt, ge, lt and le."""


def declared_needs_can_be_met(objective: Objective) -> None:
    """Check that every declaration can be provided. Other classes fail when their plugin is loaded."""
    for piece in objective.components:
        why = contradiction(type(piece))
        assert not why, f"{type(piece).__name__} declares what can't be provided: {why}"


def declared_needs_are_enough(objective: Objective) -> None:
    """Check that loss, weight, implicit reward and state read declared fields alone."""
    try:
        batch = batch_for(objective)
        example = batch.example
        objective.loss(example)
        objective.weight(example)
        for side in [example] if isinstance(example, Scored) else example.sides().values():
            objective.implicit_reward(side)
    except NotDeclared as error:
        raise AssertionError(str(error)) from None


def declared_needs_are_used(objective: Objective) -> None:
    """Check that every declaration is read. A reference costs a forward of every row, statistics a pass."""
    batch = batch_for(objective)
    for changes, hint in _lesser(objective):
        assert _misses(batch, less(objective, **changes)), hint


def _lesser(objective: Objective) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each declaration removed, with the message for a loss that does not need it."""
    read = "is declared but never read"
    if objective.reference != "none":
        yield {"reference": "none"}, f'the reference {read}: write `reference = "none"` in the class'
    if objective.reference == "token":
        yield {"reference": "sequence"}, f'a token of the reference {read}: write `reference = "sequence"`'
    if objective.reference == "live" and "kl" not in objective.statistics:
        cheaper = '"token"' if objective.tokens else '"sequence"'
        # nothing is removed: without the KL nothing needs it
        yield {}, f'a live reference is for `statistics = ("kl",)`: write `reference = {cheaper}`, which is cached'
    if objective.tokens:
        yield {"tokens": False}, f"`tokens = True` {read}: take it out of the class"
    for key in ("statistics", "columns"):
        names = getattr(objective, key)
        for name in names:
            rest = tuple(other for other in names if other != name)
            yield {key: rest}, f'"{name}" {read}: take it out of `{key}`'
    for key in ("mismatched", "needs_uniform"):
        if getattr(objective, key):
            yield {key: False}, f"`{key} = True` {read}: take it out of the class"


def _misses(batch: Batch, declared: Any) -> bool:
    objective = batch.objective
    example = batch.given(declared=declared).example
    try:
        if objective.initial_state():
            with torch.no_grad():
                objective.next_state(example)
        objective.loss(example)
        objective.weight(example)
    except NotDeclared:
        return True
    return False


def parameters_are_bounded(objective: Objective) -> None:
    """Check that every number has a bound, so that a typing error in a recipe is reported before a run."""
    for piece in objective.components:
        fields = type(piece).model_json_schema().get("properties", {})
        loose = [name for name, field in fields.items() if _is_loose(field)]
        assert not loose, f"no bounds for {', '.join(loose)}; write Field(default, gt=0, description=...)"


def _is_loose(field: dict[str, Any]) -> bool:
    kinds = field.get("anyOf", [field])  # a field that may be null has two
    numbers = [kind for kind in kinds if kind.get("type") in ("number", "integer")]
    return any(not any(word in kind for word in (*BOUNDS, "enum", "const")) for kind in numbers)


def documented(objective: Objective) -> None:
    """Check for a docstring, a source, an equation, and a description of every field."""
    for piece in objective.components:
        cls = type(piece)
        assert (cls.__dict__.get("__doc__") or "").strip(), (
            f"{cls.__name__} has no docstring; describe its purpose in a sentence"
        )
        assert cls.source, "no source; name the publication: authors, year, arXiv id, equation"
        assert cls.equation, "no equation; write the loss of one example in plain text"
        bare = [name for name, info in cls.model_fields.items() if not info.description]
        assert not bare, f"no description of {', '.join(bare)}; use Field(default, description=...)"
