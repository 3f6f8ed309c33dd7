"""What is held constant has no gradient, and the rest has the gradient that it would have with a constant there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import BY_NAME, PAIRS, RANKED, UNPAIRED, build, completion, losses
from torch import Tensor


def gradients(name: str, rows, *, statistic: str = "", **fields) -> tuple[list[Tensor | None], ...]:
    """Of the summed loss: to each side's token log-probs, and to their `statistic`."""
    cls = BY_NAME[name]
    example = build(cls, rows)
    sides = list(example.sides().values())
    tokens = [side._log_prob for side in sides]
    for tensor in tokens:
        tensor.retain_grad()
    others = [side.tokens._statistics[statistic].requires_grad_() for side in sides] if statistic else []
    cls(**fields).loss(example).sum().backward()
    return [tensor.grad for tensor in tokens], [tensor.grad for tensor in others]


def none(gradient: Tensor | None) -> bool:
    return gradient is None or not gradient.any()


def test_wpos_weight_is_held_constant():
    rows = PAIRS["ragged"]
    (chosen, rejected), others = gradients("wpo", rows, statistic="log_collision_prob", beta=0.1)
    weight = torch.tensor(losses("wpo", rows, beta=0.1)) / torch.tensor(losses("dpo", rows, beta=0.1))
    (expected, unexpected), _ = gradients("dpo", rows, beta=0.1)
    assert chosen.tolist() == pytest.approx((weight * expected).tolist())
    assert rejected.tolist() == pytest.approx((weight * unexpected).tolist())
    assert all(map(none, others))


def test_tdpo2_holds_the_chosen_kl_constant_and_tdpo1_neither():
    _, (chosen, rejected) = gradients("tdpo2", PAIRS["ragged"], statistic="forward_kl")
    assert none(chosen)
    assert (rejected > 0).all()  # the loss falls when the rejected completion's KL does
    _, (chosen, rejected) = gradients("tdpo1", PAIRS["ragged"], statistic="forward_kl")
    assert (chosen < 0).all()
    assert (rejected > 0).all()


def test_ktos_kl_estimate_is_held_constant():
    rows = [replace(row, mismatched=completion([(-1.0, -2.0)], 0)) for row in UNPAIRED["ragged"]]
    (own, mismatched), _ = gradients("kto", rows)
    assert none(mismatched)
    assert [value < 0 for value in own.tolist()] == [row.desirable for row in rows]


def test_alpha_dpos_margin_is_held_constant():
    """So its gradient is SimPO's with that margin: by length, beta sigmoid(...) on either side."""
    rows = PAIRS["ragged"]
    loss = torch.tensor(losses("alpha_dpo", rows, beta=2.0, alpha=0.3), dtype=torch.float64)
    (chosen, rejected), _ = gradients("alpha_dpo", rows, beta=2.0, alpha=0.3)
    lengths = torch.tensor([[row.chosen.n, row.rejected.n] for row in rows])
    expected = -2.0 * -torch.expm1(-loss)  # sigmoid(-x) = 1 - exp(-loss)
    assert chosen.tolist() == pytest.approx((expected / lengths[:, 0]).tolist())
    assert rejected.tolist() == pytest.approx((-expected / lengths[:, 1]).tolist())


def test_beta_dpos_beta_is_held_constant():
    rows = PAIRS["ragged"]
    (chosen, rejected), _ = gradients("beta_dpo", rows, keep=1.0, alpha=2.0)
    loss = torch.tensor(losses("beta_dpo", rows, keep=1.0, alpha=2.0), dtype=torch.float64)
    h = torch.tensor([row.chosen.r - row.rejected.r for row in rows], dtype=torch.float64)
    beta = -torch.log(torch.expm1(loss)) / h
    assert beta.tolist() == pytest.approx([beta[0].item()] * len(rows))
    assert chosen.tolist() == pytest.approx((beta * torch.expm1(-loss)).tolist())
    assert rejected.tolist() == pytest.approx((-chosen).tolist())


def test_lipos_weights_are_held_constant():
    """Its ranks do not move by themselves, and of two completions the gradient is DPO's times the swap's weight."""
    cls = BY_NAME["lipo_lambda"]
    example = build(cls, RANKED["two of two"])
    example.completions._log_prob.retain_grad()
    cls(beta=0.1).loss(example).sum().backward()
    (chosen, rejected), _ = gradients("dpo", PAIRS["ragged"])
    weighted = torch.tensor(losses("lipo_lambda", RANKED["two of two"], beta=0.1))
    weight = weighted / torch.tensor(losses("dpo", PAIRS["ragged"]))
    expected = torch.stack([weight * chosen, weight * rejected], 1)
    assert example.completions._log_prob.grad.flatten().tolist() == pytest.approx(expected.flatten().tolist())


def test_dr_dpo_weighs_pairs_by_how_well_they_are_ranked():
    """A pair's share of the gradient is proportional to sigmoid(beta h)^(1 / beta')."""
    rows, beta_prime = PAIRS["ragged"], 0.5
    (chosen, _), _ = gradients("dr_dpo", rows, beta_prime=beta_prime)
    (dpo, _), _ = gradients("dpo", rows)
    share = torch.softmax(-torch.tensor(losses("dpo", rows), dtype=torch.float64) / beta_prime, 0)
    assert (chosen / len(rows)).tolist() == pytest.approx((share * dpo).tolist())
