"""The conformance kit accuses every mutant by the check that names its fault, and no good objective of any kind."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from kit_mutants import FOLLOWS, GOOD, MUTANTS, Good, InBatch, broken
from zoo import MODIFIERS, modified

from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.sft import SFT
from alignzoo.objectives.composition import Sum
from alignzoo.testing import CHECKS, ObjectiveTests, held_constant, pair, run_checks


@cache
def accusations(cls) -> dict[str, str]:
    """The kit's word on a mutant, by check; run once for all tests that read it."""
    return {check: problem for check, problem in run_checks(cls()).items() if problem}


@pytest.mark.parametrize("cls", GOOD, ids=lambda cls: cls.__name__)
def test_no_good_objective_is_accused(cls):
    assert {check: problem for check, problem in run_checks(cls()).items() if problem} == {}


def test_there_is_a_mutant_for_every_check():
    assert {check for check, _ in MUTANTS} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize(("check", "cls"), MUTANTS)
@pytest.mark.slow
def test_each_mutant_is_caught_by_the_check_that_names_its_fault_and_no_other(check, cls):
    problems = accusations(cls)
    assert check in problems
    assert set(problems) - {check} <= FOLLOWS.get(check, set()), problems
    assert all("\n" not in problem for problem in problems.values())
    said = problems[check]  # with what to do about it, in its second half or as what to write
    assert "; " in said or ": write " in said or "needs " in said or "; remove it" in said or "; write " in said, said


@pytest.mark.parametrize("check", sorted(set(FOLLOWS) - {"declared_needs_are_enough"}))
def test_the_table_of_what_follows_is_no_wider_than_it_must_be(check):
    also = {name for fault, cls in MUTANTS if fault == check for name in accusations(cls)}
    assert also - {check} == FOLLOWS[check]


def test_an_objective_that_raises_is_reported_and_not_raised():
    problems = run_checks(broken(Good, loss=lambda self, pair: 1 / 0)())
    assert problems["one_loss_per_example"] == "ZeroDivisionError: division by zero"
    assert problems["documented"] == ""


def test_a_sum_names_the_part_that_fails():
    objective = Sum(parts=(DPO(), broken(Good, name="bad", source="")()), weights=(1.0, 1.0))
    assert run_checks(objective)["documented"].startswith("bad: no source")


def test_of_two_parts_of_one_name_each_is_heard():
    parts = (broken(Good, name="same", source="")(), broken(Good, name="same")())
    for order in (parts, parts[::-1]):
        assert run_checks(Sum(parts=order, weights=(1.0, 1.0)))["documented"].startswith("same: no source")


def test_a_modifiers_fault_is_its_objectives():
    """It is checked around an objective, and its fields, its source and its declarations are."""
    cls = type("Loose", (MODIFIERS["margin"],), {
        "__doc__": "A margin.", "__module__": __name__, "__annotations__": {"more": float}, "more": 1.0, "source": "",
        "reference": "token",
    })  # fmt: skip
    problems = run_checks(modified("dpo", cls()))
    assert "no bound of more" in problems["parameters_are_bounded"]
    assert problems["documented"].startswith("no source")
    assert problems["declared_needs_can_be_met"] == (
        'Loose declares what can\'t be provided: `reference = "token"` needs `tokens = True`'
    )


def test_what_is_held_constant_is_reported():
    assert held_constant(InBatch()) == "the reference point"
    assert held_constant(Sum(parts=(DPO(), InBatch()), weights=(1.0, 1.0))) == "the reference point"
    assert held_constant(DPO()) == ""


class TestTheMixin(ObjectiveTests):
    objective = Sum(parts=(DPO(), SFT()), weights=(1.0, 0.2))

    def test_it_has_every_check(self):
        assert all(hasattr(self, f"test_{check.__name__}") for check in CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(("check", "cls"), {check: (check, cls) for check, cls in MUTANTS}.values())
def test_the_mixin_fails_where_the_kit_accuses_and_nowhere_else(check, cls):
    tests = type("TestMine", (ObjectiveTests,), {"objective": Sum(parts=(DPO(), cls()), weights=(1.0, 1.0))})()
    with pytest.raises(Exception, match=r".+"):
        getattr(tests, f"test_{check}")()
    for name in {one.__name__ for one in CHECKS} - accusations(cls).keys():
        getattr(tests, f"test_{name}")()


def test_a_pair_from_plain_numbers():
    one = pair(-10, -12, ref_chosen=-11, ref_rejected=-11, chosen_length=4, rejected_length=5)
    assert one.margin.item() == 2
    assert (one.chosen.length.item(), one.rejected.length.item()) == (4, 5)
    many = pair([-1, -2], [-3, -4], ref_chosen=[-1, -1], ref_rejected=[-2, -2])
    assert many.margin.tolist() == [1, 1]
    assert many.chosen.log_prob.dtype == torch.float64
