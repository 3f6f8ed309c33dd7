"""No objective or modifier, of ours or of the catalogue, is accused by the kit."""

from __future__ import annotations

import pytest
from zoo import MODIFIERS, OBJECTIVES, make, modified

from alignzoo.composition import Sum, meaningless
from alignzoo.objectives.sft import SFT
from alignzoo.testing import run_checks


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_objective_of_ours_or_of_the_catalogue_is_accused(name):
    assert {check: problem for check, problem in run_checks(make(name)).items() if problem} == {}


@pytest.mark.parametrize("name", MODIFIERS)
def test_no_composition_is_accused(name):
    around = modified("dpo", name)
    for objective in (around, Sum(parts=(around, SFT()), weights=(1.0, 0.2))):
        assert {check: problem for check, problem in run_checks(objective).items() if problem} == {}


RISES = {("lipo_lambda", "length_normalised")}
"""Its weights follow the ranks by reward, which rewards per token hardly move: what is held constant rises faster."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MODIFIERS)
def test_no_modifier_around_whatever_it_may_be_put_around_is_accused(name):
    around = [modified(objective, name) for objective in OBJECTIVES]
    allowed = [one for one in around if not meaningless(one)]
    assert len(allowed) > 20
    for objective in allowed:
        problems = {check for check, problem in run_checks(objective).items() if problem}
        assert problems == ({"loss_decreases"} if (objective.name, name) in RISES else set()), objective
