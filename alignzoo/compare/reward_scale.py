"""The unit of implicit rewards, and runs whose reference is themselves."""

from __future__ import annotations

from typing import Any

from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.composition import Modified
from alignzoo.recipe.resolved import Resolved


def reward_scale(objective: Objective) -> list[Any]:
    """Return the definition of the implicit reward; margins with the same one share a unit.

    The default reward is beta times the log-ratio, or the log-prob without a reference. A reward of the objective's own
    may depend on any of its fields. Modifiers count if they change the log-ratio of a completion.
    """
    term = objective.terms[0][1]
    inner, modifiers = (term.inner, term.modifiers) if isinstance(term, Modified) else (term, ())
    around = [one for one in modifiers if type(one).scored is not Modifier.scored]
    if type(inner).implicit_reward is Objective.implicit_reward and inner.head != "scalar":
        own: Any = ["log_prob" if inner.reference == "none" else "log_ratio", getattr(inner, "beta", 1.0)]
    else:
        own = inner.to_recipe()
    return [own, *({"name": one.name, **one.model_dump(mode="json")} for one in around)]


def is_own_reference(resolved: Resolved) -> bool:
    """Return True for supervised fine-tuning without `model.from`, the start of other runs."""
    terms = [term for _, term in resolved.recipe.objective.terms]
    return resolved.start is None and all(term.data == "chosen" and term.reference == "none" for term in terms)
