"""The `objective` section: an objective or a weighted list, each with its modifiers."""

from __future__ import annotations

from math import inf
from typing import Any

from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.compatibility import incompatibility
from alignzoo.objectives.composition import Modified, Sum
from alignzoo.recipe.components import ComponentBuilder, as_list, as_node

AT = ("objective",)


def build_objective(given: Any, builder: ComponentBuilder) -> Objective | None:
    """Return the objective of a plain node, or None where any part of it has a problem."""
    if not isinstance(given, list):
        return _term(given, AT, ("modifiers",), builder)
    if not given:
        builder.problems.add(AT, "an empty list", "at least one objective")
        return None
    terms, weights = [], []
    for i, item in enumerate(map(as_node, given)):
        at = (*AT, str(i))
        weights.append(_weight(item, at, builder))
        terms.append(_term(item, at, ("modifiers", "weight"), builder))
    parts = tuple(term for term in terms if term is not None)
    if len(parts) < len(terms):
        return None
    objective = Sum(parts=parts, weights=tuple(weights))
    if why := incompatibility(objective):
        builder.problems.add(AT, why)
    return objective


def _weight(item: Any, at: tuple[str, ...], builder: ComponentBuilder) -> float:
    """Take the weight out of a term's node."""
    weight = item.pop("weight", 1.0) if isinstance(item, dict) else 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < inf:
        builder.problems.add((*at, "weight"), f"{weight!r} is not a weight", "a number above 0")
        return 1.0
    return float(weight)


def _term(given: Any, at: tuple[str, ...], beside: tuple[str, ...], builder: ComponentBuilder) -> Objective | None:
    """One objective with its modifiers, the first of the list innermost."""
    modifiers = as_list(given.pop("modifiers", []) if isinstance(given, dict) else [])
    inner = builder.build(given, at, "objective", beside)
    if not isinstance(modifiers, list):
        builder.problems.add((*at, "modifiers"), "not a list", "a list of modifiers")
        return None
    around = [
        builder.build(as_node(item), (*at, "modifiers", str(i)), "modifier") for i, item in enumerate(modifiers)
    ]  # fmt: skip
    if inner is None or None in around:
        return None
    objective: Objective = Modified(inner=inner, modifiers=tuple(around)) if around else inner
    if why := incompatibility(objective):
        builder.problems.add(at, why)
        return None
    return objective
