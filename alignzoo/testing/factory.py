"""What an objective sees, made from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alignzoo.objective import Pair, Scored

Numbers = float | Sequence[float] | Tensor


def scored(
    log_prob: Numbers, ref: Numbers | None = None, length: Numbers = 1.0, dtype: torch.dtype = torch.float64
) -> Scored:
    """Completions from their summed log-probs (natural logarithms); a single number makes a batch of one.

    The policy's log-probs require a gradient; `ref` is left out for an objective without a reference.
    """
    policy = _tensor(log_prob, dtype)
    if not policy.requires_grad:
        policy = policy.clone().requires_grad_()
    lengths = _tensor(length, dtype).expand(policy.shape).clone()
    return Scored(policy, lengths, None if ref is None else _tensor(ref, dtype).expand(policy.shape).clone())


def pair(
    chosen: Numbers,
    rejected: Numbers,
    ref_chosen: Numbers | None = None,
    ref_rejected: Numbers | None = None,
    chosen_length: Numbers = 1.0,
    rejected_length: Numbers = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Pair:
    """Preference pairs from the summed log-probs of both completions under policy and reference.

    >>> from alignzoo import get_objective
    >>> round(get_objective("dpo", beta=0.1).loss(pair(-10, -12, ref_chosen=-11, ref_rejected=-11)).item(), 4)
    0.5981
    """
    return Pair(
        scored(chosen, ref_chosen, chosen_length, dtype),
        scored(rejected, ref_rejected, rejected_length, dtype),
    )


def _tensor(numbers: Numbers, dtype: torch.dtype) -> Tensor:
    if isinstance(numbers, Tensor):
        return numbers.to(dtype).reshape(-1)
    return torch.tensor(numbers, dtype=dtype).reshape(-1)
