"""KL estimators, clipping and reductions against their definitions, in float64 and over whole distributions."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo import Group, policy_gradient
from alignzoo.interfaces.declared import NotDeclared
from alignzoo.testing import completions


def two_policies(symbols: int = 5, seed: int = 0):
    torch.manual_seed(seed)
    logits = torch.randn(symbols, dtype=torch.float64, requires_grad=True)
    return logits, logits.log_softmax(0), torch.randn(symbols, dtype=torch.float64).log_softmax(0)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_have_the_kl_as_their_mean_and_k2_has_not(name):
    _, own, ref = two_policies()
    kl = (own.exp() * (own - ref)).sum()
    assert float((own.exp() * getattr(policy_gradient, name)(own - ref)).sum().detach() - kl.detach()) == pytest.approx(
        0, abs=1e-14
    )
    assert abs(float((own.exp() * policy_gradient.k2(own - ref)).sum().detach() - kl.detach())) > 1e-3


def test_the_mean_gradients_are_those_that_the_docstrings_state():
    """Draws are fixed: the weight pi of each symbol is held constant, as it is of a batch of draws."""
    logits, own, ref = two_policies()

    def gradient(value):
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    def mean_gradient(estimate):
        return gradient((own.detach().exp() * estimate(own - ref)).sum())

    reverse, forward = (own.exp() * (own - ref)).sum(), (ref.exp() * (ref - own)).sum()
    assert mean_gradient(policy_gradient.k1).abs().max() < 1e-15
    assert torch.allclose(mean_gradient(policy_gradient.k2), gradient(reverse), atol=1e-14)
    assert torch.allclose(mean_gradient(policy_gradient.k3), gradient(forward), atol=1e-14)
    assert not torch.allclose(gradient(forward), gradient(reverse), atol=1e-2)


@pytest.mark.parametrize("value", [1e-12, -1e-9, 3e-5, -0.0099, 0.0101, 1.5, -3.0])
def test_k3_has_all_digits(value):
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    r = Decimal(value)
    exact = float((-r).exp() - 1 + r)
    assert float(policy_gradient.k3(torch.tensor(value, dtype=torch.float64))) == pytest.approx(exact, rel=4e-11)
    assert float(policy_gradient.k3(torch.tensor(value))) == pytest.approx(exact, rel=1e-3)


def test_the_exponential_is_exact_up_to_its_limit_and_finite_beyond():
    x = torch.tensor([-5.0, 0.0, 19.9, 20.0, 21.0, 1e4], dtype=torch.float64, requires_grad=True)
    value = policy_gradient.exp(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    top = math.exp(20)
    want = [math.exp(-5), 1, math.exp(19.9), top, 2 * top, top * (1 + 1e4 - 20)]
    assert value.tolist() == pytest.approx(want, rel=1e-14)
    assert slope[[0, 1, 2, 4, 5]].tolist() == pytest.approx([math.exp(-5), 1, math.exp(19.9), top, top], rel=1e-14)
    big = policy_gradient.k3(torch.tensor([1e4, -1e4], requires_grad=True))
    assert big.isfinite().all()
    assert (big > 0).all()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0), (1.1, 2.0, -2.2, -2.0), (1.5, 2.0, -2.6, 0.0), (0.5, 2.0, -1.0, -2.0),
        (0.5, -2.0, 1.6, 0.0), (1.5, -2.0, 3.0, 2.0), (0.9, -2.0, 1.8, 2.0), (1.29, 2.0, -2.58, -2.0),
    ],
)  # fmt: skip
def test_a_clipped_ratio_has_no_gradient_where_the_advantage_points_out(ratio, advantage, loss, slope):
    rho = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    found = policy_gradient.clipped(rho, torch.tensor(advantage, dtype=torch.float64), 0.2, 0.3)
    (gradient,) = torch.autograd.grad(found, rho)
    assert (float(found.detach()), float(gradient)) == pytest.approx((loss, slope), abs=1e-15)


REWARD = [[1.0, 4.0, 10.0], [2.0, 2.0, 2.0], [0.3, 0.3, 7.0], [5.0, 0.0, 0.0]]
KEPT = [[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 0]]
LENGTHS = [[3, 1, 2], [1, 2, 1], [4, 1, 2], [1, 1, 1]]


def group(**more) -> Group:
    lengths = [n for row in LENGTHS for n in row]
    tokens = [[-0.1 * (k + 1) - i for k in range(n)] for i, n in enumerate(lengths)]
    return Group(
        completions(tokens, shape=(4, 3)), torch.tensor(REWARD, dtype=torch.float64), torch.tensor(KEPT).bool(),
        torch.ones(4, 3).bool(), 8, **more,
    )  # fmt: skip


def test_statistics_of_a_group_are_over_what_is_kept():
    g = group()
    assert g.count.tolist() == [3, 3, 2, 0]
    assert g.token_count.tolist() == [6, 4, 5, 0]
    assert g.ones().tolist() == [1, 1, 1, 0]
    assert g.has_spread.tolist() == [True, False, False, False]
    assert g.mean(g.reward).tolist() == pytest.approx([5, 2, 0.3, 0])
    assert g.std(g.reward).tolist() == pytest.approx([math.sqrt((16 + 1 + 25) / 2), 0, 0, 0])
    assert g.centered(g.reward).tolist() == [[-4, -1, 5], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert g.leave_one_out(g.reward)[0].tolist() == pytest.approx([1 - 7, 4 - 5.5, 10 - 2.5])
    assert not g.leave_one_out(g.reward)[1:].any()


def test_reductions_are_the_published_ones():
    g = group()
    values = torch.arange(float(g.completions.tokens.log_prob.numel()), dtype=torch.float64) + 1
    rows, at = [], 0
    for lengths, kept in zip(LENGTHS, KEPT, strict=True):
        own = []
        for n, keep in zip(lengths, kept, strict=True):
            own += [values[at : at + n].tolist()] * keep
            at += n
        rows.append(own)
    wanted = {
        "completion": [sum(sum(c) / len(c) for c in row) / len(row) if row else 0 for row in rows],
        "sequence": [sum(map(sum, row)) / len(row) if row else 0 for row in rows],
        "constant": [sum(map(sum, row)) / len(row) / 8 if row else 0 for row in rows],
        "group_tokens": [sum(map(sum, row)) / sum(map(len, row)) if row else 0 for row in rows],
        "batch_tokens": [sum(map(sum, row)) for row in rows],
    }
    for how, want in wanted.items():
        assert policy_gradient.reduce_tokens(g, values, how).tolist() == pytest.approx(want), how
    assert policy_gradient.reduction_weight(g, "batch_tokens").tolist() == [6, 4, 5, 0]
    assert policy_gradient.reduction_weight(g, "completion").tolist() == [1, 1, 1, 0]


def test_an_advantage_is_one_a_completion_or_one_a_token():
    with pytest.raises(NotDeclared, match=r"group\.reward"):
        group().advantage  # noqa: B018
    each = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    spread = group(_advantage=each).token_advantage
    assert spread.tolist() == [float(i) for i, n in enumerate(n for row in LENGTHS for n in row) for _ in range(n)]
    assert torch.equal(group(_advantage=spread).token_advantage, spread)
