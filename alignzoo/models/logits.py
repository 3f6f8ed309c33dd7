"""Token statistics of logits: log-probs, entropy, collision probability, KL."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def token_statistics(
    logits: Tensor, target: Tensor, statistics: Sequence[str] = (), ref_logits: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The target's log-prob, every statistic of the distribution, and the reference's log-prob if it is there."""
    normalizer = logits.logsumexp(1, keepdim=True)
    found = [_at(logits, target) - normalizer[:, 0]]
    log_probs = logits - normalizer if statistics else logits
    for name in statistics:
        if name == "entropy":
            found.append(-(log_probs.exp() * log_probs).sum(1))
        elif name == "log_collision_prob":
            found.append((2 * log_probs).logsumexp(1))
        elif name == "kl" and ref_logits is not None:
            reference = ref_logits - ref_logits.logsumexp(1, keepdim=True)
            found.append((reference.exp() * (reference - log_probs)).sum(1))
        else:
            raise ValueError(f"no statistic {name}" + ("" if ref_logits is not None else " without a live reference"))
    if ref_logits is not None:  # by the policy's own arithmetic: a policy that is its reference has log-ratios of 0
        found.append(_at(ref_logits, target) - ref_logits.logsumexp(1))
    return tuple(found)


def _wide(values: Tensor) -> Tensor:
    """In float32, or in float64 where the model is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _at(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(1, target[:, None])[:, 0]


def per_sequence(token_values: Tensor, offsets: Tensor) -> Tensor:
    """(S,) sums over each sequence's scored tokens."""
    return torch.segment_reduce(token_values, "sum", offsets=offsets)
