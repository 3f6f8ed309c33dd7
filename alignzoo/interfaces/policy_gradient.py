"""Parts of policy-gradient losses: KL estimators, clipped ratios and token reductions.

Reductions go from values of tokens to a loss of a prompt.

All functions act on tensors of any shape, with gradient, in the dtype of their inputs. `log_ratio` is log pi - log
pi_ref of draws from pi, of a token or of a whole completion. This module does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from alignzoo.interfaces.group import Group

LARGEST_EXPONENT = 20.0
"""Exponent from which `exp` goes on along its tangent. e^20 is 4.9e8."""
Reduction = Literal["completion", "sequence", "group_tokens", "batch_tokens", "constant"]
"""Ways to reduce values of tokens to one loss of a prompt; see `reduce_tokens`."""


def exp(exponent: Tensor) -> Tensor:
    """Return e^x, continued along its tangent above x = 20.

    Value and gradient stay finite.
    """
    return exponent.clamp(max=LARGEST_EXPONENT).exp() * (1 + (exponent - LARGEST_EXPONENT).relu())


def k1(log_ratio: Tensor) -> Tensor:
    """Return the estimate k1 = log pi - log pi_ref of KL(pi || pi_ref).

    It is unbiased, of either sign. As a loss its expected gradient is zero. In the reward it gives the gradient of the
    KL divergence.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """Return the estimate k2 = (log pi - log pi_ref)^2 / 2 of KL(pi || pi_ref).

    It is biased, never negative. As a loss on whole completions its expected gradient is that of the KL divergence.
    Summed over tokens it lacks the effect of a token on those after it.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return log_ratio.square() / 2


def k3(log_ratio: Tensor) -> Tensor:
    """Return the estimate k3 = pi_ref / pi - 1 - log(pi_ref / pi) of KL(pi || pi_ref).

    It is unbiased, never negative. As a loss its gradient is that of KL(pi_ref || pi), not of KL(pi || pi_ref). The
    ratio is `exp` of this module.

    Source: Schulman 2020, "Approximating KL divergence"; Shao et al. 2024, arXiv:2402.03300, equation 4.
    """
    small = log_ratio.abs() < 1e-2  # the difference would cancel: its series has all digits
    series = log_ratio.square() * (0.5 - log_ratio * (1 / 6 - log_ratio * (1 / 24 - log_ratio * (1 / 120))))
    return series.where(small, exp(-log_ratio) - 1 + log_ratio)


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Return PPO's loss -min(ratio A, clip(ratio, 1 - low, 1 + high) A).

    Ratios are of tokens or of completions. The gradient is zero where the ratio has left the interval in the direction
    that the advantage points to.

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7; two limits: Yu et al. 2025, arXiv:2503.14476.
    """
    return -(ratio * advantage).minimum(ratio.clamp(1 - low, 1 + high) * advantage)


def reduce_tokens(group: Group, values: Tensor, how: Reduction) -> Tensor:
    """Reduce values of tokens, (N,), to one number per prompt, (B,).

    The number is over the completions that are kept. A step divides the sum of these numbers by the sum of
    `reduction_weight`, over the prompts of the global batch.

    Args:
        group: The completions.
        values: A value of each token.
        how: `completion`: the mean over a completion's tokens, then over completions (GRPO). `sequence`: the sum over a
            completion's tokens, then the mean over completions (RLOO). `constant`: the same, divided by the limit of
            new tokens (Dr. GRPO). `group_tokens`: the mean over all tokens of a prompt's completions (DAPO, equation
            8). `batch_tokens`: their sum, for a mean over all tokens of the global batch (DAPO in TRL and verl).
    """
    tokens = group.completions.tokens
    if how == "completion":
        return group.mean(tokens.mean(values))
    if how in ("sequence", "constant"):
        return group.mean(tokens.sum(values)) / (group.max_new_tokens if how == "constant" else 1)
    total = group.sum(tokens.sum(values))
    return total / group.token_count.clamp(min=1) if how == "group_tokens" else total


def reduction_weight(group: Group, how: Reduction) -> Tensor:
    """Return the weight of each prompt in the loss of a step, (B,).

    It is the number of tokens for `batch_tokens`, else 1, and 0 if no completion is kept.
    """
    return group.token_count if how == "batch_tokens" else group.ones()
