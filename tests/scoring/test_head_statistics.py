"""Statistics from heads in slices: those of whole logits, with the same gradient, without whole logits in memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignzoo.models.logits import token_statistics
from alignzoo.scoring import head_statistics as module
from alignzoo.scoring import lm_head
from alignzoo.scoring.head_statistics import Head, head_statistics

N, D, V = 11, 6, 17
NAMES = ("entropy", "log_collision_prob", "forward_kl", "reverse_kl", "squares")
OWN = {"squares": lambda log_pi, log_ref: (log_pi.exp() - log_ref.exp()).square().sum(1)}


def heads(n=N, v=V, wider=0, dtype=torch.float64):
    """The heads of a policy, whose tensors need a gradient, and of a reference of another width; and targets."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    policy = Head(*(one.requires_grad_() for one in (normal(n, D), normal(v, D), normal(v))))
    return policy, Head(normal(n, 2 * D), normal(v + wider, 2 * D), None), torch.arange(n) % v


def whole(policy, reference, target):
    """The same from whole logits, by autograd."""
    ref_logits = linear(reference.hidden, reference.weight)[:, : len(policy.weight)]
    return token_statistics(linear(*policy), target, NAMES, ref_logits, OWN)


@pytest.fixture(params=["one slice", "slices", "slices computed again"])
def slices(request, monkeypatch):
    """Sizes in bytes such that a slice has all rows, or 4 of them with blocks of 3, and the bytes that are kept."""
    if request.param != "one slice":
        monkeypatch.setitem(module.SLICE_BYTES, "cpu", 4 * V * 8)
        monkeypatch.setitem(lm_head.BLOCK_BYTES, "cpu", 3 * V * 4)
    if request.param == "slices computed again":
        monkeypatch.setattr(module, "KEPT_BYTES", 2 * 4 * V * 8)  # the first slice alone


@pytest.mark.parametrize("wanted", [range(6), [0], [5], []], ids=["all", "log-prob", "own", "none"])
@pytest.mark.usefixtures("slices")
def test_values_and_gradients_are_those_of_whole_logits(wanted):
    policy, reference, target = heads(wider=3)
    got = head_statistics(policy, target, NAMES, reference.narrow(V), OWN)
    want = whole(policy, reference, target)
    assert len(got) == len(want) == 7
    assert not got[-1].requires_grad, "of the reference"
    for one, other in zip(got, want, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    if not wanted:
        return
    slopes = torch.linspace(-1, 2, N, dtype=torch.float64)
    gradients = [torch.autograd.grad(sum((slopes * found[i]).sum() for i in wanted), policy) for found in (got, want)]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("slices")
def test_the_gradient_is_the_derivative():
    policy, reference, target = heads()

    def values(hidden, weight, bias):
        return head_statistics(Head(hidden, weight, bias), target, NAMES, reference, OWN)[:-1]

    assert torch.autograd.gradcheck(values, tuple(policy))


def test_tokens_of_probability_zero_count_nothing():
    """Logits of -inf leave values and derivatives as they are without them."""
    names = ("entropy", "log_collision_prob", "forward_kl", "reverse_kl")
    generator = torch.Generator().manual_seed(0)
    logits, ref = torch.randn(2, N, V, generator=generator, dtype=torch.float64)
    shut, target = torch.full((N, 2), -torch.inf, dtype=torch.float64), torch.arange(N) % V
    logits.requires_grad_()
    want = token_statistics(logits, target, names, ref)
    found = token_statistics(torch.cat([logits, shut], 1), target, names, torch.cat([ref, shut], 1))
    for one, other in zip(found, want, strict=True):
        assert torch.allclose(one, other, rtol=1e-12)
    one, other = (torch.autograd.grad(sum(part[:5]).sum(), logits)[0] for part in (found, want))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-14)
    (apart,) = token_statistics(torch.cat([logits, shut], 1), target, names[2:3], torch.cat([ref, ref[:, :2]], 1))[1:2]
    assert torch.isposinf(apart).all()
    assert torch.autograd.gradcheck(
        lambda x: token_statistics(torch.cat([x, shut], 1), target, names, torch.cat([ref, shut], 1))[:5], logits
    )


def test_a_part_of_the_head_may_be_frozen():
    policy, reference, target = heads()
    frozen = Head(policy.hidden, policy.weight.detach(), None)
    got = head_statistics(frozen, target, ("forward_kl",), reference)[1]
    want = token_statistics(linear(*frozen), target, ("forward_kl",), linear(reference.hidden, reference.weight))[1]
    both = [torch.autograd.grad(one.sum(), policy.hidden)[0] for one in (got, want)]
    assert torch.allclose(*both, rtol=1e-12)


def test_no_token_is_no_error():
    policy, reference, target = heads(n=0)
    assert [len(one) for one in head_statistics(policy, target, NAMES, reference, OWN)] == [0] * 7


class LargestTensor(TorchDispatchMode):
    """The largest number of elements that an operation returned."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.size = max(self.size, *(one.numel() for one in tree_leaves(out) if isinstance(one, torch.Tensor)), 0)
        return out


def test_logits_are_never_whole(monkeypatch):
    n, v, rows = 64, 512, 4
    monkeypatch.setitem(module.SLICE_BYTES, "cpu", rows * v * 4)
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    policy, reference, target = heads(n, v, dtype=torch.float32)
    with LargestTensor() as largest:
        sum(one.sum() for one in head_statistics(policy, target, NAMES, reference, OWN)[:-1]).backward()
    assert largest.size <= v * 2 * D, "the weights of the reference's head"
    with LargestTensor() as largest:
        sum(one.sum() for one in whole(policy, reference, target)[:-1]).backward()
    assert largest.size == n * v


def test_no_more_logits_are_kept_than_the_limit(monkeypatch):
    """Products of the heads: two in each forward of a slice, and two more in the backward of each that is not kept."""
    monkeypatch.setitem(module.SLICE_BYTES, "cpu", 4 * V * 8)
    monkeypatch.setattr(module, "KEPT_BYTES", 2 * 4 * V * 8)  # the first slice of three
    products = []
    monkeypatch.setattr(module, "linear", lambda *one: (products.append(1), linear(*one))[1])
    policy, reference, target = heads()
    found = head_statistics(policy, target, ("forward_kl",), reference)
    assert len(products) == 6
    found[1].sum().backward()
    assert len(products) == 10
    del products[:]
    with torch.no_grad():
        head_statistics(policy, target, ("forward_kl",), reference)
    assert len(products) == 6


def test_under_autocast_the_products_are_narrow_and_the_sums_are_not():
    policy, reference, target = heads(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = head_statistics(policy, target, NAMES, reference, OWN)
    found[-2].sum().backward()
    assert {one.dtype for one in found} == {torch.float32}
    logits = [linear(*one.cast(torch.bfloat16)).float() for one in (policy, reference)]
    want = token_statistics(logits[0], target, NAMES, logits[1], OWN)
    for one, other in zip(found, want, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    assert policy.weight.grad.dtype == torch.float32
