"""The four built-in objectives against their papers' formulas, written out again in plain float64 arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo.interfaces.declared import NotDeclared
from alignzoo.interfaces.loss_inputs import Pair, Scored
from alignzoo.objectives.builtin.cdpo import CDPO
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.ipo import IPO
from alignzoo.objectives.builtin.sft import SFT

CASES = [
    (-10.0, -12.0, -11.0, -11.5),
    (-3.0, -2.0, -3.5, -1.0),
    (-50.0, -50.0, -50.0, -50.0),
    (-7.0, -30.0, -9.0, -8.0),
]


def pair(chosen, rejected, ref_chosen, ref_rejected, lengths=(4.0, 6.0), dtype=torch.float64):
    def side(value, ref, length):
        return Scored(
            torch.tensor([value], dtype=dtype, requires_grad=True),
            torch.tensor([length], dtype=dtype),
            torch.tensor([ref], dtype=dtype),
        )

    return Pair(side(chosen, ref_chosen, lengths[0]), side(rejected, ref_rejected, lengths[1]))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_is_equation_7(case, beta):
    policy_w, policy_l, ref_w, ref_l = case
    expected = -log_sigmoid(beta * (policy_w - ref_w) - beta * (policy_l - ref_l))
    assert DPO(beta=beta).loss(pair(*case)).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_dpo_gradient_is_the_papers_closed_form(case):
    """Section 4: the gradient's weight is beta * sigmoid(r(rejected) - r(chosen)) = beta * sigmoid(-beta h)."""
    beta, example = 0.3, pair(*case)
    DPO(beta=beta).loss(example).sum().backward()
    h = (case[0] - case[2]) - (case[1] - case[3])
    weight = beta / (1 + math.exp(beta * h))
    assert example.chosen.log_prob.grad.item() == pytest.approx(-weight, rel=1e-12)
    assert example.rejected.log_prob.grad.item() == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_cdpo_is_a_mixture_of_both_labels(case, smoothing):
    h = 0.1 * ((case[0] - case[2]) - (case[1] - case[3]))
    expected = -(1 - smoothing) * log_sigmoid(h) - smoothing * log_sigmoid(-h)
    got = CDPO(beta=0.1, label_smoothing=smoothing).loss(pair(*case)).item()
    assert got == pytest.approx(expected, rel=1e-14)
    if smoothing == 0:
        assert got == DPO(beta=0.1).loss(pair(*case)).item()


def test_cdpo_is_at_rest_where_the_assumed_noise_says():
    beta, smoothing = 0.2, 0.1
    h = math.log((1 - smoothing) / smoothing) / beta
    example = pair(h, 0.0, 0.0, 0.0)
    CDPO(beta=beta, label_smoothing=smoothing).loss(example).sum().backward()
    assert example.chosen.log_prob.grad.item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("beta", [0.01, 0.1])
def test_ipo_by_sum_is_the_papers_equation_17(case, beta):
    h = (case[0] - case[2]) - (case[1] - case[3])
    assert IPO(beta=beta).loss(pair(*case)).item() == pytest.approx((h - 1 / (2 * beta)) ** 2, rel=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_ipo_by_mean_divides_each_log_ratio_by_its_own_length(case):
    h = (case[0] - case[2]) / 4 - (case[1] - case[3]) / 6
    got = IPO(beta=0.1, log_ratio="mean").loss(pair(*case)).item()
    assert got == pytest.approx((h - 5) ** 2, rel=1e-14)


def test_sft_counts_tokens_or_sequences():
    scored = Scored(torch.tensor([-6.0, -2.0]), torch.tensor([3.0, 2.0]))
    assert SFT().loss(scored).tolist() == [6.0, 2.0]
    assert SFT().weight(scored).tolist() == [3.0, 2.0]
    assert SFT(reduction="sequence").weight(scored).tolist() == [1.0, 1.0]


def test_where_policy_and_reference_agree_the_losses_are_what_the_papers_say():
    at_start = pair(-20.0, -30.0, -20.0, -30.0)
    assert DPO().loss(at_start).item() == pytest.approx(math.log(2))
    assert CDPO().loss(at_start).item() == pytest.approx(math.log(2))
    assert IPO(beta=0.1).loss(at_start).item() == pytest.approx(25.0)


@pytest.mark.parametrize("margin", [-1e4, 1e4])
@pytest.mark.parametrize("objective", [DPO(), CDPO(), IPO(), IPO(log_ratio="mean")], ids=lambda o: repr(o))
def test_extreme_margins_stay_finite_in_float32(objective, margin):
    example = pair(margin / 2, -margin / 2, 0.0, 0.0, dtype=torch.float32)
    loss = objective.loss(example)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert example.chosen.log_prob.grad.isfinite().all()
    if isinstance(objective, DPO) and margin < 0:
        assert loss.item() == pytest.approx(-0.1 * margin)
        assert example.chosen.log_prob.grad.item() == pytest.approx(-0.1)


def test_what_is_not_declared_is_not_there():
    with pytest.raises(NotDeclared, match='reference = "sequence"'):
        DPO().loss(Pair(Scored(torch.zeros(1), torch.ones(1)), Scored(torch.zeros(1), torch.ones(1))))
