"""Parts of actor-critic objectives: advantages, whitening, value loss, KL coefficient.

Values of tokens have shape (N,), in the order of `Tokens`. All functions keep the dtype of their inputs. This module
does not import torch when it is imported.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from alignzoo.interfaces.tokens import Tokens

LARGEST_ERROR = 0.2
"""Limit of the relative error of the KL divergence that `adapted_coefficient` acts on."""


def at_last_token(tokens: Tokens, values: Tensor) -> Tensor:
    """Place one value per completion at its last token, and 0 at the others: `shape` to (N,)."""
    lengths = tokens.sequence.bincount(minlength=math.prod(tokens.shape))
    found = values.new_zeros(tokens.sequence.shape)
    found[lengths.cumsum(0)[lengths > 0] - 1] = values.reshape(-1)[lengths > 0]
    return found


def gae(tokens: Tokens, reward: Tensor, value: Tensor, gamma: float, lam: float, after: Tensor | None = None) -> Tensor:
    """Return the generalized advantage estimate of each token, (N,).

    delta_t = r_t + gamma V_{t+1} - V_t, and A_t = delta_t + gamma lam A_{t+1}, within each completion.

    Args:
        tokens: The tokens.
        reward: (N,) reward of each token.
        value: (N,) V_t, the critic's output before token t is known.
        gamma: The discount of a token.
        lam: The decay lambda. 1 gives returns minus values, 0 the one-step error.
        after: The value after the last token, in the shape of `tokens.shape`. None is 0 everywhere, which is right for
            finished completions, and counts one that was cut as ended by the cut.

    Source: Schulman et al. 2015, arXiv:1506.02438, equations 11, 12 and 16.
    """
    from torch import arange, stack

    lengths = tokens.sequence.bincount(minlength=math.prod(tokens.shape))
    size = (len(lengths), int(lengths.max()) + 1)
    rewards, values = reward.new_zeros(size), value.new_zeros(size)
    rewards[tokens.sequence, tokens.position] = reward
    values[tokens.sequence, tokens.position] = value
    if after is not None:
        values[arange(len(lengths), device=lengths.device), lengths] = after.reshape(-1).to(values)
    inside = arange(size[1] - 1, device=lengths.device) < lengths[:, None]
    delta = (rewards[:, :-1] + gamma * values[:, 1:] - values[:, :-1]).masked_fill(~inside, 0)
    found, later = [], delta.new_zeros(size[0])
    for column in reversed(delta.unbind(1)):
        later = column + gamma * lam * later
        found.append(later)
    return stack(found[::-1], 1)[tokens.sequence, tokens.position]


def whiten(values: Tensor, kept: Tensor, eps: float = 1e-8) -> Tensor:
    """Return (values - mean) / sqrt(var + eps) where `kept` is True, and 0 elsewhere.

    Mean and variance are over all kept values; the divisor of the variance is n - 1. A single value becomes 0.
    """
    weight = kept.to(values)
    count = weight.sum()
    centered = (values - (values * weight).sum() / count.clamp(min=1)).masked_fill(~kept, 0)
    return centered / (centered.square().sum() / (count - 1).clamp(min=1) + eps).sqrt()


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Return the squared error of a value, and at least that of the clipped value, halved.

    max((V - G)^2, (clip(V, V_old - clip, V_old + clip) - G)^2) / 2, or (V - G)^2 / 2 without a clip.
    All tensors have one shape. The gradient is zero where V has left the interval towards the target G.

    Source: the code of Schulman et al. 2017 (openai/baselines, ppo2); Huang et al. 2024, arXiv:2403.17031, appendix.
    """
    error = (value - target).square()
    if clip is None:
        return error / 2
    return error.maximum((value.clamp(old_value - clip, old_value + clip) - target).square()) / 2


def dual_clip(loss: Tensor, advantage: Tensor, limit: float) -> Tensor:
    """Return min(loss, -limit A) where A < 0, and the loss elsewhere.

    It bounds the loss of a token with a negative advantage whose ratio is large; `limit` is above 1.

    Source: Ye et al. 2019, arXiv:1912.09729, equation 5.
    """
    return loss.minimum(-limit * advantage).where(advantage < 0, loss)


def adapted_coefficient(coefficient: float, kl: float, target: float, draws: int, horizon: float) -> float:
    """Return the KL coefficient after a rollout.

    coefficient (1 + clip(kl / target - 1, -0.2, 0.2) min(draws / horizon, 1)). Without the minimum a rollout of more
    than five horizons could turn the penalty into a bonus.

    Args:
        coefficient: The coefficient of the rollout.
        kl: The mean KL divergence of its completions from the reference, in nats.
        target: The KL divergence to reach, above 0.
        draws: Number of completions of the rollout.
        horizon: Number of completions in which an error of one fifth changes the coefficient by about as much.

    Source: Ziegler et al. 2019, arXiv:1909.08593, section 2.2.
    """
    error = max(-LARGEST_ERROR, min(LARGEST_ERROR, kl / target - 1))
    return coefficient * (1 + error * min(draws / horizon, 1))


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Return 1 - Var(target - value) / Var(target), a scalar: 1 is perfect, 0 a constant's.

    It is nan where all targets are equal.
    """
    spread = target.var(correction=0)
    return (1 - (target - value).var(correction=0) / spread).where(spread > 0, spread.new_tensor(math.nan))
