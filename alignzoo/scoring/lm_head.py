"""Log-probs of given tokens from hidden states, without keeping the logits.

log p = logit[target] - logsumexp(logits). Its gradient needs the softmax of every position, which here is the one array
of that size: the logits are turned into it in place, and in the backward into the gradient of the logits, while
autograd would keep logits and softmax and make new arrays of their size for each operation between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KEPT_BYTES = 2**29
"""Softmaxes kept for the backward. The rest is computed again there, at the cost of one product."""
CHUNK_BYTES = 2**27
"""Logits computed at a time."""
BLOCK_BYTES = {"cpu": 2**21, "cuda": 2**27}
"""Logits normalized at a time: the size of a CPU's cache, or enough to keep a GPU busy."""


def token_log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    """Return log-probs (N,) in nats of targets (N,) under softmax(hidden @ weight.T + bias).

    `hidden` is (N, d), `weight` (V, d), `bias` (V,) or None. The result is float32, or float64 for float64
    inputs. Under autocast the product has its dtype; sums over the vocabulary are never narrower than float32.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast(kind, enabled=False):
        learns = torch.is_grad_enabled()
        found: Tensor = _TokenLogProbs.apply(hidden, weight, bias, target, learns)
        return found


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, learns: bool) -> Tensor:
        ctx.rows = max(1, CHUNK_BYTES // (weight.shape[0] * hidden.element_size()))
        log_probs, scales, kept, held = [], [], [], 0
        for part, wanted in zip(hidden.split(ctx.rows), target.split(ctx.rows), strict=True):
            logits = torch.nn.functional.linear(part, weight, bias)
            best = logits.gather(1, wanted[:, None])[:, 0]
            top, total = _exponentiate(logits)
            log_probs.append(best.to(total.dtype) - top - total.log())
            keep = learns and held + logits.nbytes <= KEPT_BYTES
            held += logits.nbytes if keep else 0
            kept.append(logits if keep else None)
            scales.append(total)
        ctx.kept, ctx.scales = kept, scales
        ctx.save_for_backward(hidden, weight, bias, target)
        return torch.cat(log_probs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        of_hidden = []
        of_weight = of_bias = None
        pieces = zip(*(x.split(ctx.rows) for x in (hidden, target, gradient)), ctx.kept, ctx.scales, strict=True)
        for part, wanted, slope, odds, total in pieces:
            if odds is None:
                odds = torch.nn.functional.linear(part, weight, bias)
                _exponentiate(odds)
            odds.mul_(-(slope / total).to(odds.dtype)[:, None])
            odds.scatter_add_(1, wanted[:, None], slope.to(odds.dtype)[:, None])
            if need_hidden:
                of_hidden.append(odds @ weight)
            if need_weight:
                of_weight = _added(of_weight, odds.t() @ part)
            if need_bias:
                of_bias = _added(of_bias, odds.sum(0, dtype=total.dtype))
        ctx.kept = None
        return torch.cat(of_hidden) if need_hidden else None, of_weight, of_bias, None, None


def _exponentiate(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Replace logits by exp(logits - max), and return the maxima (N,) and sums (N,).

    Both are float32 or float64.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    tops, totals = [], []
    for block in logits.split(block_rows(logits)):
        values = block.to(wide)  # the same tensor if it is wide already
        top = values.amax(1)
        values.sub_(top[:, None]).exp_()
        tops.append(top)
        totals.append(values.sum(1))
        if values is not block:
            block.copy_(values)
    return torch.cat(tops), torch.cat(totals)


def block_rows(logits: Tensor) -> int:
    """Return how many rows of logits (N, V) are a block of BLOCK_BYTES."""
    return max(1, BLOCK_BYTES.get(logits.device.type, 2**27) // (logits.shape[1] * 4))


def _added(total: Tensor | None, part: Tensor) -> Tensor:
    """Add a chunk to a sum that is never rounded to bfloat16."""
    return part if total is None else total.to(torch.float32 if part.dtype != torch.float64 else part.dtype) + part
