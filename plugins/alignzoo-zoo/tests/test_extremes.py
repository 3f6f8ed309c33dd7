"""Values and slopes far from the reference, in float64, and f' as the slope of f."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from alignzoo_zoo import OBJECTIVES
from alignzoo_zoo.divergence import FDPO, derivative
from alignzoo_zoo.ranked import plackett_luce
from cases import build, pair

import alignzoo.testing

ALPHA = 0.3
F = {
    "reverse_kl": lambda u: u * math.log(u),
    "forward_kl": lambda u: -math.log(u),
    "js": lambda u: u * math.log(u) - (u + 1) * math.log((u + 1) / 2),
    "alpha": lambda u: (u ** (1 - ALPHA) - (1 - ALPHA) * u - ALPHA) / (ALPHA * (ALPHA - 1)),
    "chi_squared": lambda u: (u - 1) ** 2,
}
"""Wang et al. 2023, arXiv:2309.16240, table 1."""


@pytest.mark.parametrize("divergence", F)
@pytest.mark.parametrize("u", [0.05, 0.7, 1.0, 3.0, 40.0])
def test_each_f_prime_is_the_slope_of_its_f(divergence, u):
    def slope(at: float) -> float:
        return (F[divergence](at * (1 + 1e-6)) - F[divergence](at * (1 - 1e-6))) / (2e-6 * at)

    got = derivative(divergence, torch.tensor(u, dtype=torch.float64).log(), ALPHA).item()
    assert got == pytest.approx(slope(u) - slope(1.0), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("r", [-60.0, -30.0, 25.0, 60.0, 200.0, 500.0])
def test_the_exponent_of_the_alpha_divergence_is_bounded_and_not_its_log_ratio(r):
    """The derivative f' is (1 - u^-alpha) / alpha, and its slope by log u is u^-alpha, for alpha r > -20."""
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    value = derivative("alpha", x, ALPHA)
    (slope,) = torch.autograd.grad(value, x)
    assert value.item() == pytest.approx(-math.expm1(-ALPHA * r) / ALPHA, rel=1e-12)
    assert slope.item() == pytest.approx(math.exp(-ALPHA * r), rel=1e-12)


@pytest.mark.parametrize("divergence", F)
@pytest.mark.parametrize("r", [-500.0, -100.0, 100.0, 500.0])
def test_a_pair_that_is_ordered_wrongly_has_a_gradient_however_far_it_is(divergence, r):
    """Only the side on which f' itself is flat may have none: it falls below the smallest float."""
    one = alignzoo.testing.pair(min(r, 0.0), max(r, 0.0), ref_chosen=0.0, ref_rejected=0.0)
    loss = FDPO(divergence=divergence).loss(one)
    slopes = torch.autograd.grad(loss.sum(), [one.chosen.log_prob, one.rejected.log_prob])
    assert loss.isfinite().all()
    assert all(slope.isfinite().all() for slope in slopes)
    flat = {"forward_kl", "js", "alpha"} if r > 0 else {"chi_squared"}
    if divergence not in flat:
        assert abs(slopes[int(r > 0)].item()) > 1e-3


FLAT = {
    **dict.fromkeys(("exo_pair", "discopop", "focal_po", "apo_zero", "apo_down", "chi_po"), "a bounded loss"),
    **dict.fromkeys(("beta_dpo", "dr_dpo", "aot", "aot_unpaired", "alpha_dpo"), "a loss of the whole batch"),
}
"""Losses that give up on a pair that is too far out, or that look at the batch."""
ONE_SIDED = {
    "f_dpo": "the slope of the rejected side vanishes with JS",
    "bpo": "only the smaller side has a slope",
}


@pytest.mark.parametrize("r", [30.0, 100.0, 500.0])
@pytest.mark.parametrize(
    "cls",
    [one for one in OBJECTIVES if one.data == "pair" and one.head != "scalar" and one.name not in FLAT],
    ids=lambda cls: cls.name,
)
def test_a_wrongly_ordered_pair_is_never_given_up(cls, r):
    """A rejected completion that is r nats above its reference, beside a chosen one r below: both have a gradient.

    Win rates, quantiles and scores agree with the labels, and both completions are safe.
    """
    sides = pair(*([(-10.0 + by * r / 100, -10.0)] * 100 for by in (-1, 1)))
    chosen, rejected = (
        replace(y, win_rate=rate, quantile=rate, safe=1.0) for y, rate in ((sides.chosen, 1.0), (sides.rejected, 0.0))
    )
    example = build(cls, [replace(sides, chosen=chosen, rejected=rejected)])
    leaves = [side.tokens.log_prob if cls.tokens else side.log_prob for side in (example.chosen, example.rejected)]
    up, down = (slope.sum().item() for slope in torch.autograd.grad(cls().loss(example).sum(), leaves))
    assert up < 0
    assert cls.name in ONE_SIDED or down > 0


def test_more_equal_scores_than_can_be_ordered_are_an_error():
    """Equal rewards have -log p = log K! in any order."""
    equal = [(torch.full((1, n), -3.0, dtype=torch.float64), torch.zeros(1, n, dtype=torch.long)) for n in (12, 13)]
    assert plackett_luce(*equal[0]).item() == pytest.approx(math.log(math.factorial(12)))
    with pytest.raises(ValueError, match="13 completions have equal scores; at most 12 may"):
        plackett_luce(*equal[1])
