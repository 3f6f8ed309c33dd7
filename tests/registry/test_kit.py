"""The conformance kit accuses every mutant by the check that names its fault, and no good objective."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from alignzoo.objective import Field, Objective
from alignzoo.registry import Registry
from alignzoo.testing import CHECKS, pair, run_checks


class Base(Objective):
    """DPO, to be broken."""

    name = "base"
    source = "a test"
    equation = "-log sigmoid(beta h)"
    beta: float = Field(0.1, gt=0, description="strength")

    def loss(self, pair):
        return -logsigmoid(self.beta * pair.margin)


class Mean(Base):
    def loss(self, pair):
        return super().loss(pair).mean()


class Float32(Base):
    def loss(self, pair):
        return super().loss(pair).float()


class Overflows(Base):
    def loss(self, pair):
        return (1 + (-self.beta * pair.margin).exp()).log()


class WrongGradient(Base):
    def loss(self, pair):
        h = self.beta * pair.margin
        return -logsigmoid(h) * h.detach().sigmoid()


class NoGradient(Base):
    def loss(self, pair):
        return super().loss(pair).detach() + 0 * pair.chosen.log_prob


class Coupled(Base):
    def loss(self, pair):
        return -logsigmoid(self.beta * (pair.margin - pair.margin.mean()))


class ChangesInput(Base):
    def loss(self, pair):
        pair.chosen.length.add_(1)
        return super().loss(pair)


class Random(Base):
    def loss(self, pair):
        return super().loss(pair) * torch.rand(())


class Undeclared(Base):
    reference = "none"


class ChangesReference(Base):
    def loss(self, pair):
        result = super().loss(pair)
        pair.rejected.ref_log_prob.mul_(2)
        return result


class Unread(Base):
    def loss(self, pair):
        return -logsigmoid(self.beta * (pair.chosen.log_prob - pair.rejected.log_prob))


class OverflowsDownwards(Base):
    """exp overflows for a large positive margin alone."""

    def loss(self, pair):
        h = self.beta * pair.margin
        return (1 + h.exp()).log() - h


class OnOne(Objective):
    """A good objective on the chosen completions, with a reference."""

    name = "on_one"
    source = "a test"
    equation = "-log_ratio"
    data = "chosen"
    beta: float = Field(0.1, gt=0, description="strength")

    def loss(self, scored):
        return -self.beta * scored.log_ratio


class MeanOnOne(OnOne):
    def loss(self, scored):
        return super().loss(scored).mean()


class OverflowsOnOne(OnOne):
    def loss(self, scored):
        return (-scored.log_ratio).exp()


class ChangesInputOnOne(OnOne):
    def loss(self, scored):
        scored.length.add_(1)
        return super().loss(scored)


class UndeclaredOnOne(OnOne):
    reference = "none"


class UnreadOnOne(OnOne):
    def loss(self, scored):
        return -scored.log_prob


class NegativeWeight(Base):
    def weight(self, pair):
        return -pair.chosen.length


class Unsourced(Base):
    source = ""


MUTANTS = {
    "one_loss_per_example": Mean, "keeps_the_dtype": Float32, "finite_at_extremes": Overflows,
    "gradient_is_right": WrongGradient, "gradient_reaches_the_policy": NoGradient, "rows_are_independent": Coupled,
    "input_is_untouched": ChangesInput, "same_twice": Random, "declared_needs_are_enough": Undeclared,
    "declared_needs_are_used": Unread,
    "weights_are_positive": NegativeWeight, "documented": Unsourced,
}  # fmt: skip
MORE = [
    ("input_is_untouched", ChangesReference), ("finite_at_extremes", OverflowsDownwards),
    ("one_loss_per_example", MeanOnOne), ("finite_at_extremes", OverflowsOnOne), ("input_is_untouched", ChangesInputOnOne),
    ("declared_needs_are_enough", UndeclaredOnOne), ("declared_needs_are_used", UnreadOnOne),
]  # fmt: skip


def test_there_is_a_mutant_for_every_check():
    assert set(MUTANTS) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize(("check", "cls"), [*MUTANTS.items(), *MORE])
def test_each_mutant_is_caught_by_the_check_that_names_its_fault(check, cls):
    mutant = type(cls.__name__, (cls,), {"__doc__": "A mutant.", "__module__": __name__})
    assert run_checks(mutant())[check]


@pytest.mark.parametrize("good", [Base(), OnOne()])
def test_what_the_mutants_were_made_of_is_good(good):
    assert set(run_checks(good).values()) == {""}


@pytest.mark.parametrize("name", sorted(Registry().known("objective")))
def test_no_built_in_is_accused(name):
    assert set(run_checks(Registry().find("objective", name)()).values()) == {""}


def test_a_pair_from_plain_numbers():
    one = pair(-10, -12, ref_chosen=-11, ref_rejected=-11, chosen_length=4, rejected_length=5)
    assert one.margin.item() == 2
    assert (one.chosen.length.item(), one.rejected.length.item()) == (4, 5)
    many = pair([-1, -2], [-3, -4], ref_chosen=[-1, -1], ref_rejected=[-2, -2])
    assert many.margin.tolist() == [1, 1]
    assert many.chosen.log_prob.dtype == torch.float64
