"""Check that the parts of a composition can be trained together, when a recipe is read."""

from __future__ import annotations

from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.composition import Modified
from alignzoo.objectives.probe import reads_log_ratio


def incompatibility(objective: Objective) -> str:
    """Return why a composition cannot be trained or has no meaning, or "" if it is fine."""
    terms = [term for _, term in objective.terms]
    references = [term.reference for term in terms]
    if len({term.policy_head for term in terms}) > 1:
        return "one term trains a reward model and another a language model; a run has one policy"
    if len({bool(term.outputs) for term in terms}) > 1:
        return "one term trains a reward model with named outputs and another one without"
    if references.count("moving") > 1:
        return "two terms move the reference; a run has one reference"
    if "moving" in references and set(references) - {"none", "moving"}:
        return "one term has a moving reference and another a frozen one; a run has one reference"
    if len(terms) > 1 and (group := next((term for term in terms if term.data == "group"), None)):
        rows = "the terms of a sum share their rows"
        return f"{group.name} learns from groups of draws, and can't be a term of a sum: {rows}"
    for n, term in enumerate(terms):
        if term in terms[:n]:
            return f"{term} is listed twice; list it once, with the sum of the weights"
        reason = _modifiers(term) if isinstance(term, Modified) else ""
        if reason:
            return reason
    return ""


def _modifiers(modified: Modified) -> str:
    """Return the first reason why one of the modifiers does not apply, or ""."""
    for n, modifier in enumerate(modified.modifiers):
        inside = Modified(inner=modified.inner, modifiers=modified.modifiers[:n]) if n else modified.inner
        reason = _modifier(modifier, inside)
        if reason:
            return reason
    return ""


def _modifier(modifier: Modifier, inside: Objective) -> str:
    """Return why a modifier does not apply to an objective, or "".

    `inside` is the objective with the modifiers inside of this one.
    """
    name, objective = modifier.name, inside.components[0]
    assert isinstance(objective, Objective)
    if inside.data not in modifier.data:
        return f"{name} applies to {' or '.join(modifier.data)} data, and {objective.name} takes {inside.data}"
    if name in objective.already_applies:
        return f"{name} is already part of {objective.name}"
    if type(modifier) in [type(component) for component in inside.components]:
        return f"{name} is listed twice"
    if objective.head == "scalar" and (modifier.changes_log_ratio or modifier.tokens or modifier.reference != "none"):
        return f"{name} reads log-probs, and {objective.name} trains a reward model, which has none"
    if modifier.changes_log_ratio and objective.reference == "none":
        return f"{name} changes the log-ratio, and {objective.name} has no reference and therefore no log-ratio"
    if modifier.changes_log_ratio and not reads_log_ratio(inside):
        return f"{name} changes the log-ratio, which {inside} does not read; it would have no effect"
    return modifier.incompatible_with(inside)
