"""Log-probs, entropy, collision probability and divergences of token distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignzoo.interfaces.requirements import DIVERGENCES, OF_REFERENCE, TokenStatistic


def token_statistics(
    logits: Tensor,
    target: Tensor,
    statistics: Sequence[str] = (),
    ref_logits: Tensor | None = None,
    own: Mapping[str, TokenStatistic] | None = None,
) -> tuple[Tensor, ...]:
    """Compute the log-prob of each target and statistics of each distribution, in nats.

    Args:
        logits: (N, V) logits of the policy.
        target: (N,) token ids.
        statistics: Names among `entropy`, `log_collision_prob`, `forward_kl`, which is KL(reference || policy),
            `reverse_kl`, which is KL(policy || reference), `ref_normalized_entropy`, the reference's over log V, and
            names in `own`.
        ref_logits: (N, V) logits of the reference.
        own: Further statistics by name, functions of the log-probs (N, V) of policy and reference.

    Returns:
        Tensors (N,): the policy's log-prob, each statistic in order, and with `ref_logits` the reference's log-prob.

    Raises:
        ValueError: A statistic is unknown, or compares with a reference and there are no `ref_logits`.
    """
    normalizer = logits.logsumexp(1, keepdim=True)
    found = [_at(logits, target) - normalizer[:, 0]]
    # The same arithmetic for both: equal models have log-ratios and divergences of exactly 0.
    ref_normalizer = None if ref_logits is None else ref_logits.logsumexp(1, keepdim=True)
    log_probs = logits - normalizer if statistics else logits
    compares = any(name in OF_REFERENCE or name in (own or ()) for name in statistics)
    reference = None
    if compares and ref_logits is not None and ref_normalizer is not None:
        reference = ref_logits - ref_normalizer
    for name in statistics:
        if own is not None and name in own:
            found.append(own[name](log_probs, reference))
        elif name == "entropy":
            found.append(-_mean_under(log_probs, log_probs))
        elif name == "log_collision_prob":
            found.append((2 * log_probs).logsumexp(1))
        elif name in DIVERGENCES and reference is not None:
            one, other = (reference, log_probs) if name == "forward_kl" else (log_probs, reference)
            found.append(_mean_under(one, one - other))
        elif name == "ref_normalized_entropy" and reference is not None:
            found.append(-_mean_under(reference, reference) / math.log(reference.shape[1]))
        else:
            raise ValueError(f"no statistic {name}" + ("" if ref_logits is not None else " without a live reference"))
    if ref_logits is not None and ref_normalizer is not None:
        found.append(_at(ref_logits, target) - ref_normalizer[:, 0])
    return tuple(found)


def _mean_under(log_p: Tensor, values: Tensor) -> Tensor:
    """Return the mean under p of values (N, V), which may be infinite where p is 0."""
    p = log_p.exp()
    return (p * values.masked_fill(p == 0, 0)).sum(1)


def _wide(values: Tensor) -> Tensor:
    """Convert to float32, or keep float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _at(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(1, target[:, None])[:, 0]


def per_sequence(token_values: Tensor, offsets: Tensor) -> Tensor:
    """Sum token values (N,) over the scored tokens of each sequence, to (S,)."""
    return torch.segment_reduce(token_values, "sum", offsets=offsets)
