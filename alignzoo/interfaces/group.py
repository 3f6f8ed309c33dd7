"""Input of objectives that learn from draws: completions grouped by prompt, with rewards.

This module does not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignzoo.interfaces.declared import declared
from alignzoo.interfaces.loss_inputs import Example, Scored

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group(Example):
    """A batch of prompts, each with G completions drawn from the policy and their rewards.

    `sum`, `mean`, `std`, `centered` and `leave_one_out` act on values of shape (B, G), over the completions that are
    kept.
    """

    completions: Scored
    """The draws: fields of shape (B, G)."""
    reward: Tensor
    """The weighted sum of the rewards, (B, G), without gradient; 0 where a completion is not kept."""
    kept: Tensor
    """(B, G) bool: False for completions that are left out, which count in no sum, mean or deviation."""
    finished: Tensor
    """(B, G) bool: False for completions that the limit of new tokens has cut."""
    max_new_tokens: int
    """The limit of new tokens."""
    _advantage: Tensor | None = None
    _greedy_reward: Tensor | None = None
    _returns: Tensor | None = None

    @property
    def greedy_reward(self) -> Tensor:
        """The reward of the policy's likeliest completion, (B,). Needs `greedy_baseline = True`."""
        return declared(self._greedy_reward, "the reward of the likeliest completion", "greedy_baseline = True")

    @property
    def advantage(self) -> Tensor:
        """The result of the objective's `advantage`: (B, G), or (N,) for one per token."""
        return declared(self._advantage, "the advantage, in `advantage` itself", "group.reward")

    @property
    def token_advantage(self) -> Tensor:
        """The advantage of each token, (N,)."""
        return self.advantage if self.advantage.dim() == 1 else self.completions.tokens.spread(self.advantage)

    @property
    def returns(self) -> Tensor:
        """The result of the objective's `returns`, (N,): what the critic's values are fitted to."""
        return declared(self._returns, "the returns, in `advantage` and `returns` themselves", "group.reward")

    @property
    def kept_tokens(self) -> Tensor:
        """(N,) bool: False for tokens of completions that are left out."""
        return self.completions.tokens.spread(self.kept)

    @property
    def count(self) -> Tensor:
        """Number of completions that are kept, (B,)."""
        return self.kept.sum(1).to(self.reward)

    @property
    def token_count(self) -> Tensor:
        """Number of tokens of the completions that are kept, (B,)."""
        return self.sum(self.completions.length)

    @property
    def has_spread(self) -> Tensor:
        """(B,) bool: True if two kept completions have different rewards."""
        low, high = (self.reward.masked_fill(~self.kept, end) for end in (math.inf, -math.inf))
        return high.amax(1) > low.amin(1)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over each prompt's completions: (B, G) to (B,)."""
        return values.masked_fill(~self.kept, 0).sum(1)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over each prompt's completions: (B, G) to (B,); 0 where none is kept."""
        return self.sum(values) / self.count.clamp(min=1)

    def centered(self, values: Tensor) -> Tensor:
        """Return values minus their mean over the prompt's completions: (B, G).

        The result is 0 where a completion is not kept.
        """
        first = values.gather(1, self.kept.long().argmax(1, keepdim=True))  # so that equal values give exactly 0
        return (values - first - self.mean(values - first)[:, None]).masked_fill(~self.kept, 0)

    def std(self, values: Tensor) -> Tensor:
        """Return the standard deviation over each prompt's completions: (B, G) to (B,).

        The divisor is n - 1. The result is 0 for a single completion.
        """
        return (self.centered(values).square().sum(1) / (self.count - 1).clamp(min=1)).sqrt()

    def leave_one_out(self, values: Tensor) -> Tensor:
        """Return values minus the mean over the prompt's other completions: (B, G).

        It is 0 where a completion is not kept, or is the only one.
        """
        n = self.count
        return (n / (n - 1).clamp(min=1))[:, None] * self.centered(values)

    def ones(self) -> Tensor:
        """Return ones of shape (B,), and zeros for prompts without a completion that is kept."""
        return self.kept.any(1).to(self.reward)

    def sides(self) -> dict[str, Scored]:
        """Return all completions by name."""
        return {"completions": self.completions}
