"""Checks of an objective's declarations: its inputs, its fields, its documentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from alignzoo.interfaces.component import summary
from alignzoo.interfaces.declared import NotDeclared
from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import OF_REFERENCE, OWN, Requirements, contradiction
from alignzoo.testing.synthetic_batch import Batch, batch_for

BOUNDS = ("exclusiveMinimum", "minimum", "exclusiveMaximum", "maximum")
"""JSON Schema's names of gt, ge, lt and le."""


def declared_needs_can_be_met(objective: Objective) -> None:
    """Check that an engine can provide every declared input.

    The registry does not load a class that fails this.
    """
    for component in objective.components:
        reason = contradiction(type(component))
        assert not reason, f"{type(component).__name__} declares what can't be provided: {reason}"


def declared_needs_are_enough(objective: Objective) -> None:
    """Check that loss, weight, reward and state read only declared inputs."""
    try:
        batch = batch_for(objective)
        if objective.data == "group":
            objective.advantage(batch.group())
        if objective.head == "value":
            objective.returns(batch.group())
        example = batch.example
        objective.loss(example)
        objective.weight(example)
        for side in [example] if isinstance(example, Scored) else example.sides().values():
            objective.implicit_reward(side)
    except NotDeclared as error:
        raise AssertionError(str(error)) from None


def declared_needs_are_used(objective: Objective) -> None:
    """Check that every declared input is read.

    A reference or a statistic costs time in every step.
    """
    batch = batch_for(objective)
    for requirements, hint in _reduced(objective):
        assert _fails_with(batch, requirements), hint
    if objective.advantage_reads_log_probs:
        assert _advantage_fails(batch), (
            "`advantage_reads_log_probs = True`: declared but never read; remove it from the class"
        )


def _reduced(objective: Objective) -> Iterator[tuple[Requirements, str]]:
    """Yield the requirements without one declaration each, with an error message.

    The message is for an objective that works with them.
    """
    full, unread = objective.requirements, "declared but never read"
    own = bool(objective.own_statistics)
    divergences = own or bool(set(OF_REFERENCE) & set(full.statistics))
    if full.reference != "none" and not divergences:  # which need one, and are checked below
        yield replace(full, reference="none"), f'the reference: {unread}; write `reference = "none"` in the class'
    if full.reference == "token":
        yield replace(full, reference="sequence"), f'reference tokens: {unread}; write `reference = "sequence"`'
    if full.reference == "live" and not divergences:
        cheaper = '"token"' if full.tokens else '"sequence"'
        # The objective works with its full requirements, so that this message is always given.
        hint = f"write `reference = {cheaper}`, which is cached"
        yield full, f"a live reference is for {', '.join(OF_REFERENCE)} and statistics of its own: {hint}"
    if full.head == "value":
        yield replace(full, head="language_model"), f"the critic: {unread}; remove `head` from the class"
    if full.language_head:
        yield replace(full, language_head=False), f"`language_head = True`: {unread}; remove it from the class"
    if full.tokens:
        yield replace(full, tokens=False), f"`tokens = True`: {unread}; remove it from the class"
    for statistic in full.statistics:
        rest = tuple(other for other in full.statistics if other != statistic)
        yield replace(full, statistics=rest), f'"{statistic.partition(OWN)[0]}": {unread}; remove it from `statistics`'
    for name in full.columns:
        columns = tuple(other for other in full.columns if other != name)
        yield replace(full, columns=columns), f'"{name}": {unread}; remove it from `columns`'
    for name in full.references:
        fewer = tuple(other for other in full.references if other != name)
        yield replace(full, references=fewer), f'"{name}": {unread}; remove it from `references`'
    if full.hidden_sum:
        yield replace(full, hidden_sum=False), f"`hidden_sum = True`: {unread}; remove it from the class"
    for name in full.outputs:
        kept = tuple(other for other in full.outputs if other != name)
        yield replace(full, outputs=kept), f'"{name}": {unread}; remove it from `outputs`'
    if full.ties and full.data == "pair":
        yield replace(full, ties=False), f"`ties = True`: {unread}; remove it from the class, or read `pair.tied`"
    if full.mismatched:
        yield replace(full, mismatched=False), f"`mismatched = True`: {unread}; remove it from the class"
    if full.needs_uniform:
        yield replace(full, needs_uniform=False), f"`needs_uniform = True`: {unread}; remove it from the class"


def _fails_with(batch: Batch, requirements: Requirements) -> bool:
    """Return True if the objective reads an input that these requirements leave out."""
    objective = batch.objective
    example = batch.loss_input(requirements=requirements).example
    try:
        if objective.data == "group":
            objective.advantage(batch.group(requirements))
        if objective.initial_state():
            with torch.no_grad():
                objective.next_state(example)
        objective.loss(example)
        objective.weight(example)
    except NotDeclared:
        return True
    return False


def _advantage_fails(batch: Batch) -> bool:
    """Return True if `advantage` reads a log-prob."""
    group = batch.group()
    try:
        batch.objective.advantage(replace(group, completions=Scored(None, group.completions.length)))
    except NotDeclared:
        return True
    return False


def parameters_are_bounded(objective: Objective) -> None:
    """Check that every numeric field has a bound, so that a typo is an error of the recipe."""
    for component in objective.components:
        fields = type(component).model_json_schema().get("properties", {})
        unbounded = [name for name, field in fields.items() if _is_unbounded(field)]
        assert not unbounded, f"no bound of {', '.join(unbounded)}; write Field(default, gt=0, description=...)"


def _is_unbounded(field: dict[str, Any]) -> bool:
    types = field.get("anyOf", [field])  # a field that may be null has two
    numbers = [one for one in types if one.get("type") in ("number", "integer")]
    return any(not any(word in one for word in (*BOUNDS, "enum", "const")) for one in numbers)


def documented(objective: Objective) -> None:
    """Check for a docstring, a source, an equation, and a description of every field."""
    for component in objective.components:
        cls = type(component)
        assert summary(cls), f"{cls.__name__} has no docstring; write its full name and what it does"
        assert cls.source, "no source; write the publication: authors, year, arXiv id, equation"
        assert cls.equation, "no equation; write the loss of one example in plain text"
        bare = [name for name, info in cls.model_fields.items() if not info.description]
        assert not bare, f"no description of {', '.join(bare)}; use Field(default, description=...)"
