"""Log-probs and statistics of the distributions at tokens, from one or two models.

They are computed from hidden states.

A divergence reads the whole distributions of policy and reference, and autograd would keep about ten arrays of logits
for it. Here the heads run in slices over tokens, and the statistics over blocks of a slice that a cache holds. The
backward computes a block's statistics once more, and writes the gradient of its logits over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from alignzoo.interfaces.requirements import CONSTANT, TokenStatistic
from alignzoo.models.logits import _wide, token_statistics
from alignzoo.scoring.lm_head import KEPT_BYTES, _added, block_rows

SLICE_BYTES = {"cpu": 2**25, "cuda": 2**27}
"""Logits of one head that are computed at a time. The product gains nothing from more."""


class Head(NamedTuple):
    """A head that is a matrix product and nothing more, with its input."""

    hidden: Tensor
    """(N, d)"""
    weight: Tensor
    """(V, d)"""
    bias: Tensor | None
    """(V,)"""

    def cast(self, dtype: torch.dtype) -> Head:
        """Return the head in another type."""
        return Head(self.hidden.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))

    def narrow(self, width: int) -> Head:
        """Return the head of the first `width` tokens of the vocabulary."""
        return Head(self.hidden, self.weight[:width], None if self.bias is None else self.bias[:width])


class _Asked(NamedTuple):
    """The statistics that are computed, as `token_statistics` takes them."""

    names: tuple[str, ...]
    own: Mapping[str, TokenStatistic]

    def of(self, logits: Tensor, target: Tensor, ref_logits: Tensor | None) -> tuple[Tensor, ...]:
        return token_statistics(logits, target, self.names, None if ref_logits is None else _wide(ref_logits), self.own)


def head_statistics(
    policy: Head, target: Tensor, names: Sequence[str], reference: Head | None = None,
    own: Mapping[str, TokenStatistic] | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Compute `token_statistics` of the logits of two heads, which never exist as a whole.

    At most KEPT_BYTES of logits are kept for the backward. Those of other slices are computed again there, at the cost
    of one product for each head. Tensors are float32, or float64 for float64 inputs. Gradients reach the policy's head
    alone.

    Args:
        policy: The head of the policy.
        target: (N,) token ids.
        names: Names of statistics.
        reference: The head of the reference, with a vocabulary of the same size.
        own: Further statistics by name.

    Returns:
        Tensors (N,): the policy's log-prob, each statistic in order, and with a reference the reference's log-prob.
    """
    kind = policy.hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        policy, reference = policy.cast(dtype), None if reference is None else reference.cast(dtype)
    with torch.autocast(kind, enabled=False):
        asked, learns = _Asked(tuple(names), own or {}), torch.is_grad_enabled()
        found: tuple[Tensor, ...] = _HeadStatistics.apply(*policy, target, reference, asked, learns)
        return found


class _HeadStatistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reference: Head | None,
        asked: _Asked, learns: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        ctx.rows = max(1, SLICE_BYTES.get(hidden.device.type, 2**27) // (len(weight) * hidden.element_size()))
        found, kept, held = [], [], 0
        for part, wanted, ref in _cut(ctx.rows, hidden, target, reference and reference.hidden):
            both = linear(part, weight, bias), _reference_logits(ref, reference)
            blocks = _cut(block_rows(both[0]), both[0], wanted, both[1])
            found += [asked.of(_wide(logits), wanted_here, other) for logits, wanted_here, other in blocks]
            size = sum(one.nbytes for one in both if one is not None)
            keep = learns and held + size <= KEPT_BYTES
            held += size if keep else 0
            kept.append(both if keep else None)
        ctx.kept, ctx.reference, ctx.asked = kept, reference, asked
        ctx.save_for_backward(hidden, weight, bias, target)
        ctx.set_materialize_grads(False)
        columns = tuple(torch.cat(column) for column in zip(*found, strict=True))
        constant = [column for name, column in zip(asked.names, columns[1:], strict=False) if name in CONSTANT]
        ctx.mark_non_differentiable(*constant, *([] if reference is None else columns[-1:]))
        return columns

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        of_hidden = []
        of_weight = of_bias = None
        slopes = [(n, one.split(ctx.rows)) for n, one in enumerate(gradients) if one is not None]
        reference = ctx.reference
        for i, (part, wanted, ref) in enumerate(_cut(ctx.rows, hidden, target, reference and reference.hidden)):
            both, ctx.kept[i] = ctx.kept[i], None
            logits, other = both or (linear(part, weight, bias), _reference_logits(ref, reference))
            _differentiate(logits, wanted, other, ctx.asked, [(n, one[i]) for n, one in slopes])
            del both, other
            if need_hidden:
                of_hidden.append(logits @ weight)
            if need_weight:
                of_weight = _added(of_weight, logits.t() @ part)
            if need_bias:
                of_bias = _added(of_bias, logits.sum(0, dtype=_wide(logits[:0]).dtype))
        return torch.cat(of_hidden) if need_hidden else None, of_weight, of_bias, *[None] * 4


def _differentiate(
    logits: Tensor, target: Tensor, ref_logits: Tensor | None, asked: _Asked, slopes: Sequence[tuple[int, Tensor]]
) -> None:
    """Replace a slice's logits by their gradient, given that of some statistics, by number."""
    start = 0
    for block, wanted, other in _cut(block_rows(logits), logits, target, ref_logits):
        with torch.enable_grad():
            leaf = _wide(block).detach().requires_grad_()
            found = asked.of(leaf, wanted, other)
        own = [(found[n], one[start : start + len(block)]) for n, one in slopes if found[n].requires_grad]
        start += len(block)
        if own:
            (gradient,) = torch.autograd.grad([value for value, _ in own], leaf, [slope for _, slope in own])
            block.copy_(gradient)
        else:
            block.zero_()


def _cut(
    rows: int, values: Tensor, target: Tensor, others: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    parts = values.split(rows)
    rest: Sequence[Tensor | None] = [None] * len(parts) if others is None else others.split(rows)
    return zip(parts, target.split(rows), rest, strict=True)


def _reference_logits(hidden: Tensor | None, reference: Head | None) -> Tensor | None:
    return None if hidden is None or reference is None else linear(hidden, reference.weight, reference.bias)
