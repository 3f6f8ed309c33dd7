"""The conformance kit: checks that every objective must pass.

Each failure says how to fix it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from alignzoo.core.errors import first_line
from alignzoo.interfaces.declared import NotDeclared
from alignzoo.interfaces.objective import Objective
from alignzoo.testing.declarations import (
    declared_needs_are_enough,
    declared_needs_are_used,
    declared_needs_can_be_met,
    documented,
    parameters_are_bounded,
)
from alignzoo.testing.descent import descent_raises_what_it_says
from alignzoo.testing.invariance import (
    input_is_untouched,
    left_out_draws_count_in_nothing,
    order_does_not_matter,
    rows_are_independent,
    same_twice,
    state_round_trips,
    weights_are_positive,
)
from alignzoo.testing.numerics import (
    finite_at_extremes,
    finite_in_bfloat16,
    gradient_is_right,
    gradient_reaches_the_policy,
    keeps_the_dtype,
    loss_decreases,
    one_loss_per_example,
)
from alignzoo.testing.own_statistics import own_statistics_are_right

Check = Callable[[Objective], None]

CHECKS: tuple[Check, ...] = (
    one_loss_per_example, keeps_the_dtype, finite_at_extremes, finite_in_bfloat16, gradient_is_right,
    gradient_reaches_the_policy, loss_decreases, descent_raises_what_it_says, rows_are_independent,
    order_does_not_matter, left_out_draws_count_in_nothing, input_is_untouched, same_twice, weights_are_positive,
    state_round_trips, own_statistics_are_right,
    declared_needs_can_be_met, declared_needs_are_enough, declared_needs_are_used, parameters_are_bounded, documented,
)  # fmt: skip


def run_checks(objective: Objective) -> dict[str, str]:
    """Return the name of each check with its failure, or "" if it passes.

    All terms of a sum are checked.
    """
    terms = [term for _, term in objective.terms]
    found: dict[str, str] = {}
    for check in CHECKS:
        problems = [_problem(check, term) for term in terms]
        named = [f"{term.name}: {problem}" for term, problem in zip(terms, problems, strict=True) if problem]
        found[check.__name__] = problems[0] if len(terms) == 1 else "; ".join(named)
    return found


def _problem(check: Check, objective: Objective) -> str:
    """Return the first line of the failure. Any exception of the objective counts as one."""
    try:
        check(objective)
    except AssertionError as error:
        text = str(error)
    except NotDeclared:
        text = f"could not be checked: see {declared_needs_are_enough.__name__}"
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    else:
        return ""
    return first_line(text) or "it failed without a message"


class ObjectiveTests:
    """A pytest mixin with one test per check: subclass it and set `objective = Mine(...)`."""

    objective: ClassVar[Objective]


def _as_test(check: Check) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        for _, term in self.objective.terms:
            check(term)

    test.__doc__ = check.__doc__
    return test


for _check in CHECKS:
    setattr(ObjectiveTests, f"test_{_check.__name__}", _as_test(_check))
