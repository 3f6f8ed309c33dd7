"""Builders of loss inputs from plain numbers, for tests of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from alignzoo.interfaces.group import Group
from alignzoo.interfaces.loss_inputs import Pair, Scored
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.tokens import Tokens

Numbers = float | Sequence[float] | Tensor


def scored(
    log_prob: Numbers, ref: Numbers | None = None, length: Numbers = 1.0, dtype: torch.dtype = torch.float64
) -> Scored:
    """Return completions with these summed log-probs (natural logarithms).

    A single number is a batch of one.

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
    """Return preference pairs with these summed log-probs under policy and reference.

    There are no ties unless marked.

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
    """Return completions with these token log-probs and any other input of an objective.

    The log-probs are one list per completion.

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
        _refs=named,
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


def group(
    objective: Objective,
    token_log_probs: Sequence[Sequence[Sequence[float]]],
    reward: Sequence[Sequence[float]],
    *,
    old: Sequence[Sequence[Sequence[float]]] | None = None,
    ref: Sequence[Sequence[Sequence[float]]] | None = None,
    kept: Sequence[Sequence[bool]] | None = None,
    finished: Sequence[Sequence[bool]] | None = None,
    greedy_reward: Sequence[float] | None = None,
    value: Sequence[Sequence[Sequence[float]]] | None = None,
    old_value: Sequence[Sequence[Sequence[float]]] | None = None,
    max_new_tokens: int = 16,
    state: Mapping[str, float] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Group:
    """Return draws with the advantages that the objective gives them, as its `loss` sees them.

    Args:
        objective: the objective, whose `advantage` sees log-probs at the time of drawing.
        token_log_probs: for each prompt and each of its G draws the log-probs under the policy; they require gradients.
        reward: for each prompt the reward of each draw.
        old: log-probs at the time of drawing; by default those of the policy.
        ref: log-probs under the reference.
        kept: False for draws that are left out; by default none is.
        finished: False for draws that were cut; by default none was.
        greedy_reward: for each prompt the reward of the likeliest completion.
        value: for each prompt and each draw the critic's values; they require gradients.
        old_value: the critic's values at the time of drawing; by default `value`.
        max_new_tokens: the limit of new tokens.
        state: the objective's state; by default its initial one.
        dtype: the type of all tensors except indices.
    """
    shape = (len(reward), len(reward[0]))
    flat = [tokens for prompt in token_log_probs for tokens in prompt]
    before = flat if old is None else [tokens for prompt in old for tokens in prompt]
    refs = None if ref is None else [tokens for prompt in ref for tokens in prompt]
    first, second = (completions(one, refs, shape=shape, dtype=dtype) for one in (before, flat))
    old_tokens = first.tokens.log_prob.detach()
    old_sums = first.tokens.sum(old_tokens)

    now = None if value is None else _flat([tokens for prompt in value for tokens in prompt], dtype).requires_grad_()
    then = None if now is None else now.detach()
    if old_value is not None:
        then = _flat([tokens for prompt in old_value for tokens in prompt], dtype)

    def with_old(one: Scored, own: Tensor, critic: Tensor | None) -> Scored:
        tokens = replace(one.tokens, log_prob=own, _old_log_prob=old_tokens, _value=critic, _old_value=then)
        return replace(one, _log_prob=tokens.sum(own), _tokens=tokens, _old_log_prob=old_sums)

    ones = torch.ones(shape, dtype=torch.bool)
    keep, end = (ones if mask is None else torch.tensor(mask) for mask in (kept, finished))
    greedy = None if greedy_reward is None else torch.tensor(greedy_reward, dtype=dtype)
    given = Group(
        with_old(first, old_tokens, then), torch.tensor(reward, dtype=dtype), keep, end, max_new_tokens, None, greedy,
        _state=objective.initial_state() if state is None else state,
    )  # fmt: skip
    with torch.no_grad():
        advantage = objective.advantage(given)
        target = objective.returns(given) if objective.head == "value" else None
    seen = with_old(second, second.tokens.log_prob, now)
    return replace(given, completions=seen, _advantage=advantage, _returns=target)


def _flat(values: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    return torch.tensor([value for row in values for value in row], dtype=dtype)
