"""The head's own gradient against autograd's, from the definition."""

from __future__ import annotations

import pytest
import torch

from alignzoo.scoring import lm_head


def made(dtype: torch.dtype, bias: bool) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    hidden, weight, offset = (torch.randn(shape, generator=generator).to(dtype) for shape in ((23, 8), (41, 8), (41,)))
    return [hidden.requires_grad_(), weight.requires_grad_(), offset.requires_grad_() if bias else None]


TARGET = torch.arange(23) * 7 % 41
SLOPE = torch.linspace(-2, 3, 23)


def written_out(hidden, weight, bias):
    logits = hidden @ weight.T + (0 if bias is None else bias)
    return logits.log_softmax(1).gather(1, TARGET[:, None])[:, 0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kept", [0, 2**29])
@pytest.mark.parametrize("rows", [4, 1000])
def test_log_probs_and_every_gradient_are_autograds(monkeypatch, rows, kept, bias):
    monkeypatch.setattr(lm_head, "CHUNK_BYTES", rows * 41 * 8)
    monkeypatch.setattr(lm_head, "KEPT_BYTES", kept)
    ours, plain = made(torch.float64, bias), made(torch.float64, bias)
    got, want = lm_head.token_log_probs(*ours, TARGET), written_out(*plain)
    assert torch.allclose(got, want, rtol=1e-12)
    (got * SLOPE).sum().backward()
    (want * SLOPE).sum().backward()
    for mine, oracle in zip(ours, plain, strict=True):
        assert mine is None or torch.allclose(mine.grad, oracle.grad, rtol=1e-10, atol=1e-12)


def test_very_likely_and_very_unlikely_tokens_stay_finite():
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    got = lm_head.token_log_probs(hidden, weight, None, torch.tensor([0, 0]))
    got.sum().backward()
    assert got.tolist() == [0.0, -2e4]
    assert bool(hidden.grad.isfinite().all())
    assert bool(weight.grad.isfinite().all())


def test_without_gradient_nothing_is_kept():
    hidden, weight, _ = made(torch.float32, False)
    with torch.no_grad():
        assert not lm_head.token_log_probs(hidden, weight, None, TARGET).requires_grad
    frozen = lm_head.token_log_probs(hidden, weight.detach(), None, TARGET)
    frozen.sum().backward()
    assert hidden.grad is not None


def test_under_autocast_it_is_as_near_to_the_truth_as_autocast_is():
    truth = written_out(*made(torch.float32, True)).detach()
    ours, plain = made(torch.float32, True), made(torch.float32, True)
    with torch.autocast("cpu", torch.bfloat16):
        got = lm_head.token_log_probs(*ours, TARGET)
        hidden, weight, bias = plain
        logits = torch.nn.functional.linear(hidden, weight, bias).float()
        naive = logits.log_softmax(1).gather(1, TARGET[:, None])[:, 0]
    assert got.dtype == torch.float32
    assert torch.allclose(got, naive, atol=1e-5)
    assert 0 < (got - truth).abs().max() < 0.1
    (got * SLOPE).sum().backward()
    (naive * SLOPE).sum().backward()
    for mine, autocast in zip(ours, plain, strict=True):
        assert (mine.grad - autocast.grad).norm() <= 0.02 * autocast.grad.norm()
