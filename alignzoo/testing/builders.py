"""Builders of loss inputs from plain numbers, for tests of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignzoo.interfaces.loss_inputs import Pair, Scored, Tokens

Numbers = float | Sequence[float] | Tensor


def scored(
    log_prob: Numbers, ref: Numbers | None = None, length: Numbers = 1.0, dtype: torch.dtype = torch.float64
) -> Scored:
    """Return completions with these summed log-probs (natural logarithms); a single number is a batch of one.

    Args:
        log_prob: log-probs under the policy, shape (B,); they require a gradient.
        ref: log-probs under the reference, shape (B,); None for an objective without a reference.
        length: numbers of tokens.
        dtype: the type of all tensors.
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
    tied: Sequence[bool] | None = None,
) -> Pair:
    """Return preference pairs with these summed log-probs under policy and reference, and no ties unless marked.

    >>> from alignzoo import get_objective
    >>> round(get_objective("dpo", beta=0.1).loss(pair(-10, -12, ref_chosen=-11, ref_rejected=-11)).item(), 4)
    0.5981
    """
    one = scored(chosen, ref_chosen, chosen_length, dtype)
    ties = torch.zeros(one.length.shape, dtype=torch.bool) if tied is None else torch.tensor(tied)
    return Pair(one, scored(rejected, ref_rejected, rejected_length, dtype), ties)


def _tensor(numbers: Numbers, dtype: torch.dtype) -> Tensor:
    if isinstance(numbers, Tensor):
        return numbers.to(dtype).reshape(-1)
    return torch.tensor(numbers, dtype=dtype).reshape(-1)


def completions(
    token_log_probs: Sequence[Sequence[float]],
    ref_token_log_probs: Sequence[Sequence[float]] | None = None,
    *,
    statistics: Mapping[str, Sequence[Sequence[float]]] | None = None,
    uniform: Sequence[Sequence[float]] | None = None,
    columns: Mapping[str, Numbers] | None = None,
    scalar: Numbers | None = None,
    refs: Mapping[str, Sequence[Sequence[float]]] | None = None,
    outputs: Mapping[str, Numbers] | None = None,
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Scored:
    """Return completions with these token log-probs, one list per completion, and any other input of an objective.

    Args:
        token_log_probs: log-probs under the policy; they require a gradient.
        ref_token_log_probs: log-probs under the reference.
        statistics: name -> a value for each token.
        uniform: a random number in [0, 1) for each token.
        columns: name -> a value for each completion.
        scalar: a reward model's score of each completion; the scores require a gradient.
        refs: name of a reference -> a log-prob for each token.
        outputs: name of a reward model's output -> a number for each completion; the numbers require a gradient.
        shape: (B, K) for ranked lists, whose completions are concatenated; by default (B,).
        dtype: the type of all tensors except indices.
    """
    size = shape or (len(token_log_probs),)
    lengths = torch.tensor([len(tokens) for tokens in token_log_probs])
    token = _flat(token_log_probs, dtype).requires_grad_()
    ref = None if ref_token_log_probs is None else _flat(ref_token_log_probs, dtype)
    named = {name: _flat(values, dtype) for name, values in (refs or {}).items()}
    tokens = Tokens(
        token,
        torch.arange(len(lengths)).repeat_interleave(lengths),
        torch.cat([torch.arange(int(n)) for n in lengths]),
        size,
        ref,
        {name: _flat(values, dtype) for name, values in (statistics or {}).items()},
        None if uniform is None else _flat(uniform, dtype),
        named,
    )
    return Scored(
        tokens.sum(token),
        lengths.to(dtype).reshape(size),
        None if ref is None else tokens.sum(ref),
        tokens,
        {name: _tensor(values, dtype).reshape(size) for name, values in (columns or {}).items()},
        None if scalar is None else _tensor(scalar, dtype).reshape(size).requires_grad_(),
        _refs={name: tokens.sum(values) for name, values in named.items()},
        _outputs={name: _tensor(one, dtype).reshape(size).requires_grad_() for name, one in (outputs or {}).items()},
    )


def _flat(values: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    return torch.tensor([value for row in values for value in row], dtype=dtype)
