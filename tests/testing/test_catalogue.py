"""No objective or modifier, of ours or of the catalogue, is accused by the kit.

The catalogue's own tests run the kit on each of its objectives and on its modifiers around DPO.
"""

from __future__ import annotations

import pytest
from zoo import MODIFIERS, OBJECTIVES, ZOO, make, modified

from alignzoo.objectives.builtin.sft import SFT
from alignzoo.objectives.compatibility import incompatibility
from alignzoo.objectives.composition import Sum
from alignzoo.testing import run_checks

RISES = {("lipo_lambda", "length_normalization"), ("sppo", "wpo_weighting"), ("qrpo", "wpo_weighting")}
"""What is held constant rises faster than the loss falls: LiPO's weights follow the ranks by reward, which rewards per
token hardly move; WPO's follow likelihoods that rise, while a regression that is far from its goal hardly falls."""
SLICES = len(MODIFIERS)
"""benchmarks/kit_products.py has all of what a slice of the products stands for here."""


def accused(name: str, around: str) -> set[str]:
    """The checks that accuse a modifier around an objective beyond what is known; none where it may not be there."""
    objective = modified(name, around)
    if incompatibility(objective):
        return set()
    problems = {check for check, problem in run_checks(objective).items() if problem}
    return problems - ({"loss_decreases"} if (name, around) in RISES else set())


@pytest.mark.parametrize("name", [name for name, cls in OBJECTIVES.items() if cls not in ZOO])
def test_no_objective_of_ours_is_accused(name):
    assert {check: problem for check, problem in run_checks(make(name)).items() if problem} == {}


@pytest.mark.parametrize("name", MODIFIERS)
def test_no_modified_part_of_a_sum_is_accused(name):
    objective = Sum(parts=(modified("dpo", name), SFT()), weights=(1.0, 0.2))
    assert {check: problem for check, problem in run_checks(objective).items() if problem} == {}


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(MODIFIERS)))
def test_no_modifier_around_whatever_it_may_be_put_around_is_accused(place):
    """Every modifier around some objectives, each around others: every objective has its turn."""
    around = list(MODIFIERS)[place]
    names = list(OBJECTIVES)[place % SLICES :: SLICES]
    assert {name: found for name in names if (found := accused(name, around))} == {}
