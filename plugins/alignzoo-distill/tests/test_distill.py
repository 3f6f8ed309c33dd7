"""Each divergence against its formula in float64 on whole logits, its identities, and the numbers of peers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from alignzoo_distill import GKD, OBJECTIVES, DistiLLM2, ForwardKL, ReverseKL, SkewForwardKL, SkewReverseKL

from alignzoo.cli.describe import have
from alignzoo.interfaces.loss_inputs import Pair, Scored
from alignzoo.models.logits import token_statistics
from alignzoo.testing import completions, run_checks

RECORD = Path(__file__).parents[3] / "tests" / "objectives" / "peer_distillation.json"
LENGTHS, V = [3, 1, 4], 7


def normal(seed: int, scale: float = 2.0) -> torch.Tensor:
    """Logits of some tokens."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(sum(LENGTHS), V, generator=generator, dtype=torch.float64)


def seen(objective, student: torch.Tensor, teacher: torch.Tensor, lengths=LENGTHS) -> Scored:
    """Completions of these lengths as the objective sees them, with gradient to the student's logits."""
    target = torch.zeros(len(student), dtype=torch.long)
    own = objective.own_statistics
    log_prob, *values, ref = token_statistics(student, target, tuple(own), teacher, own)
    scored = completions(
        [one.tolist() for one in log_prob.split(lengths)], [one.tolist() for one in ref.split(lengths)]
    )
    statistics = {name.partition(" of ")[0]: value for name, value in zip(own, values, strict=True)}
    tokens = replace(scored.tokens, log_prob=log_prob, _statistics=statistics)
    return replace(scored, _log_prob=tokens.sum(log_prob), _tokens=tokens)


def divergence(objective, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The divergence at each token."""
    return objective.divergence(student.log_softmax(1), teacher.log_softmax(1))


def by_hand(p, q) -> torch.Tensor:
    """KL(p || q), from probabilities, one token at a time."""
    return torch.stack([sum(p[i, v] * (p[i, v] / q[i, v]).log() for v in range(p.shape[1])) for i in range(len(p))])


def gkd(beta: float, temperature: float = 1.0):
    """Equation 1 of GKD's paper, and the two KL divergences at its ends."""

    def formula(s, t):
        s, t = ((logits / temperature).softmax(1) for logits in (s, t))
        if beta in (0, 1):
            return by_hand(t, s) if beta == 0 else by_hand(s, t)
        m = beta * t + (1 - beta) * s
        return beta * by_hand(t, m) + (1 - beta) * by_hand(s, m)

    return formula


def skew(alpha: float, reverse: bool):
    """DistiLLM's skew KL divergence, and the reverse one."""

    def formula(s, t):
        p, q = (one.softmax(1) for one in ((s, t) if reverse else (t, s)))
        return by_hand(p, alpha * p + (1 - alpha) * q)

    return formula


FORMULAS = [
    (ForwardKL(), gkd(0)), (ReverseKL(), gkd(1)),
    *[(GKD(beta=beta), gkd(beta)) for beta in (0, 1e-3, 0.1, 0.5, 0.9, 1)],
    *[(GKD(beta=beta, temperature=2.5), gkd(beta, 2.5)) for beta in (0, 0.3, 1)],
    *[(SkewForwardKL(alpha=alpha), skew(alpha, False)) for alpha in (0, 0.1, 0.7)],
    *[(SkewReverseKL(alpha=alpha), skew(alpha, True)) for alpha in (0, 0.1, 0.7)],
]  # fmt: skip


@pytest.mark.parametrize("reduction", ["completion", "batch_tokens"])
@pytest.mark.parametrize(("objective", "formula"), FORMULAS, ids=[str(one) for one, _ in FORMULAS])
def test_loss_and_gradient_are_the_formulas(objective, formula, reduction):
    objective = type(objective)(**objective.model_dump() | {"reduction": reduction})
    student, teacher = normal(0).requires_grad_(), normal(1)
    scored = seen(objective, student, teacher)
    loss = objective.loss(scored).sum() / objective.weight(scored).sum()
    each = formula(student, teacher)
    means = torch.stack([one.mean() for one in each.split(LENGTHS)])
    want = means.mean() if reduction == "completion" else each.mean()
    assert float(loss.detach()) == pytest.approx(float(want.detach()), rel=1e-12)
    got, expected = (torch.autograd.grad(one, student)[0] for one in (loss, want))
    assert torch.allclose(got, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5])
def test_distillm2_is_skew_kl_of_the_chosen_and_skew_reverse_kl_of_the_rejected(beta):
    objective = DistiLLM2(alpha=0.2, beta=beta)
    logits = [normal(seed) for seed in range(4)]
    pair = Pair(seen(objective, logits[0], logits[1]), seen(objective, logits[2], logits[3]))
    first, second = skew(0.2, False)(*logits[:2]), skew(0.2, True)(*logits[2:])
    want = [
        (2 - beta) * a.mean() + beta * b.mean()
        for a, b in zip(first.split(LENGTHS), second.split(LENGTHS), strict=True)
    ]
    assert objective.loss(pair).tolist() == pytest.approx(torch.stack(want).tolist(), rel=1e-12)


def test_what_neither_says_counts_nothing():
    """A token of which both logits are -inf changes no value and has no gradient."""
    s, t = normal(0), normal(1)
    shut = torch.full_like(s[:, :1], -torch.inf)
    for objective, _ in FORMULAS:
        narrow, wide = (s.clone().requires_grad_() for _ in range(2))
        want = divergence(objective, narrow, t)
        found = divergence(objective, torch.cat([wide, shut], 1), torch.cat([t, shut], 1))
        assert torch.allclose(found, want, rtol=1e-12), str(objective)
        for one in (want, found):
            one.sum().backward()
        assert torch.allclose(wide.grad, narrow.grad, rtol=1e-9, atol=1e-14), str(objective)
    assert torch.isposinf(divergence(ForwardKL(), torch.cat([s, shut], 1), torch.cat([t, t[:, :1]], 1))).all()


def test_identities():
    s, t = normal(0), normal(1)
    for first, second in (
        (GKD(beta=0), ForwardKL()), (GKD(beta=1), ReverseKL()), (SkewForwardKL(alpha=0), ForwardKL()),
        (SkewReverseKL(alpha=0), ReverseKL()),
    ):  # fmt: skip
        assert torch.allclose(divergence(first, s, t), divergence(second, s, t), rtol=1e-12)
    for objective, formula in FORMULAS:
        assert (divergence(objective, s, t) > 0).all(), str(objective)
        assert divergence(objective, s, s).abs().max() < 1e-14, "zero where the student is the teacher"
        assert torch.equal(formula(s, t) > 0, torch.ones(len(s), dtype=torch.bool))
    assert torch.allclose(divergence(GKD(), s, t), divergence(GKD(), t, s), rtol=1e-12), "symmetric at beta 1/2"
    assert torch.allclose(divergence(GKD(beta=0.2), s, t), divergence(GKD(beta=0.8), t, s), rtol=1e-12)
    assert torch.allclose(divergence(SkewForwardKL(), s, t), divergence(SkewReverseKL(), t, s), rtol=1e-12)
    far = 60 * (torch.eye(V, dtype=torch.float64)[:4] - torch.eye(V, dtype=torch.float64)[3:])
    assert torch.allclose(divergence(GKD(), far, -far), torch.full((4,), 2.0).double().log().where(far.any(1), 0.0))
    small = divergence(GKD(beta=1e-7), s, t) / 1e-7
    assert torch.allclose(small, divergence(ForwardKL(), s, t), rtol=1e-5), "the limit of the formula over beta"


PEERS = {
    **{f"trl gkd beta {beta:g}": GKD(beta=beta) for beta in (0.0, 0.1, 0.5, 0.9, 1.0)},
    "trl gkd beta 0.5 at 2": GKD(beta=0.5, temperature=2.0), "trl gkd beta 0 at 0.9": GKD(beta=0.0, temperature=0.9),
    "distillm2 forward": SkewForwardKL(alpha=0.1), "distillm2 reverse": SkewReverseKL(alpha=0.1),
    "distillm2 forward_kl": ForwardKL(), "distillm2 gkd": GKD(beta=0.9),
}  # fmt: skip
VALUE_ALONE = {"distillm2 reverse"}
"""The authors hold the mixture of the reverse divergence constant."""


@pytest.mark.skipif(not RECORD.is_file(), reason=f"no {RECORD}")
def test_values_and_gradients_are_the_peers():
    record = json.loads(RECORD.read_text())
    assert record["losses"].keys() == PEERS.keys()
    lengths = record["lengths"]
    for name, objective in PEERS.items():
        wanted = record["losses"][name]
        reduction = "completion" if name.startswith("distillm2") else "batch_tokens"
        objective = type(objective)(**objective.model_dump() | {"reduction": reduction})
        whole, teacher = (torch.tensor(record[key], dtype=torch.float64) for key in ("student", "teacher"))
        whole.requires_grad_()
        rows = [torch.cat([a[:n] for a, n in zip(one, lengths, strict=True)]) for one in (whole, teacher)]
        scored = seen(objective, *rows, lengths)
        loss = objective.loss(scored)
        loss = loss.sum() / objective.weight(scored).sum() if reduction == "batch_tokens" else loss
        assert loss.tolist() == pytest.approx(wanted["value"], rel=1e-12), name
        (gradient,) = torch.autograd.grad(loss.sum(), whole)
        close = torch.allclose(gradient, torch.tensor(wanted["gradient"], dtype=torch.float64), rtol=1e-9, atol=1e-14)
        assert close != (name in VALUE_ALONE), name


@pytest.mark.parametrize("objective", [*(cls() for cls in OBJECTIVES), GKD(beta=0), GKD(temperature=2)], ids=str)
def test_it_conforms(objective):
    assert {check: problem for check, problem in run_checks(objective).items() if problem} == {}


@pytest.mark.parametrize("cls", OBJECTIVES, ids=lambda cls: cls.name)
def test_it_is_listed_by_its_teacher_and_says_when_to_use_it(cls):
    assert have(cls) == "teacher"
    assert all(f"\n    {heading}: " in cls.__doc__ for heading in ("When", "Not when"))
