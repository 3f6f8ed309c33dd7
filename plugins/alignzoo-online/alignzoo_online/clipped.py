"""Clipped policy gradients with the prompt's mean as baseline, which differ in ratio, limits and reduction."""

from typing import Literal

from torch import Tensor

from alignzoo import Field, Group, Objective
from alignzoo import policy_gradient as pg

Clip = Field(0.2, gt=0, lt=1, description="largest distance of the ratio from 1 that is learnt from")
Low = Field(0.2, gt=0, lt=1, description="largest distance of the ratio below 1 that is learnt from")


def ratio(group: Group) -> Tensor:
    """Return pi / pi_old of each token, (N,)."""
    tokens = group.completions.tokens
    return pg.exp(tokens.log_prob - tokens.old_log_prob)


class _Centered(Objective):
    """Rewards minus their mean over the draws of a prompt."""

    family = "policy gradients"
    data = "group"
    tokens = True

    def advantage(self, group: Group) -> Tensor:
        """Return centered rewards, (B, G)."""
        return group.centered(group.reward)


class _Standardized(_Centered):
    """Centered rewards over their standard deviation."""

    eps: float = Field(1e-4, gt=0, description="added to the standard deviation; TRL uses 1e-4, verl 1e-6")

    def advantage(self, group: Group) -> Tensor:
        """Return standardized rewards, (B, G)."""
        return self._standardized(group, group.reward)

    def _standardized(self, group: Group, reward: Tensor) -> Tensor:
        """Return values (B, G), standardized. The deviation has divisor G - 1, as torch's and TRL's have."""
        return group.centered(reward) / (group.std(reward)[:, None] + self.eps)


class GRPO(_Standardized):
    """GRPO: clipped token ratios times standardized rewards, and k3 in the loss.

    When: rewards of a prompt's draws differ in scale from prompt to prompt.

    Not when: lengths matter: a token of a long draw counts less; see `dr_grpo`.
    """

    name = "grpo"
    source = "Shao et al. 2024, arXiv:2402.03300, equations 3 and 4"
    equation = "mean_i mean_t (-min(rho A, clip(rho, 1 +- clip) A) + beta k3), A = (R - mean) / std"
    reference = "token"

    beta: float = Field(0.04, ge=0, description="strength of the KL penalty; TRL's default is 0")
    clip: float = Clip

    def loss(self, group: Group) -> Tensor:
        """Return the loss, shape (B,)."""
        surrogate = pg.clipped(ratio(group), group.token_advantage, self.clip, self.clip)
        penalty = self.beta * pg.k3(group.completions.tokens.log_ratio)
        return pg.reduce_tokens(group, surrogate + penalty, "completion")


class DrGRPO(_Centered):
    """Dr. GRPO: GRPO without the division by length and standard deviation, and without a KL penalty.

    When: GRPO's weights of easy and hard prompts, and of long draws, are not wanted.

    Not when: the policy must stay close to its start: nothing but the learning rate holds it.
    """

    name = "dr_grpo"
    source = "Liu et al. 2025, arXiv:2503.20783, section 3.2"
    equation = "mean_i sum_t -min(rho A, clip(rho, 1 +- clip) A) / max_new_tokens, A = R - mean"
    reference = "none"

    clip: float = Clip

    def loss(self, group: Group) -> Tensor:
        """Return the loss, shape (B,)."""
        surrogate = pg.clipped(ratio(group), group.token_advantage, self.clip, self.clip)
        return pg.reduce_tokens(group, surrogate, "constant")


class DAPO(_Standardized):
    """DAPO: two clip limits, a mean over tokens, a penalty on overlong draws, and no groups of equal rewards.

    When: rewards are right or wrong, and many prompts are always one of the two.

    Not when: most prompts have draws of equal rewards: they are left out, and take up to `rollout.max_attempts`
    attempts to replace.
    """

    name = "dapo"
    source = "Yu et al. 2025, arXiv:2503.14476, equations 8, 9 and 13"
    equation = "mean_{i,t} -min(rho A, clip(rho, 1 - low, 1 + high) A), A = (R - mean) / std"
    reference = "none"

    low: float = Low
    high: float = Field(0.28, gt=0, description="largest distance of the ratio above 1 that is learnt from")
    reduction: Literal["group_tokens", "batch_tokens"] = Field(
        "group_tokens", description="mean over a prompt's tokens (the paper), or over all of the batch (TRL, verl)"
    )
    overlong: int = Field(0, ge=0, description="last tokens below the limit in which the reward falls by 1; 0: none")

    def advantage(self, group: Group) -> Tensor:
        """Return standardized rewards after the soft penalty on overlong draws, (B, G)."""
        reward = group.reward
        if self.overlong:
            over = group.completions.length - (group.max_new_tokens - self.overlong)
            reward = reward - (over / self.overlong).clamp(0, 1)
        return self._standardized(group, reward)

    def loss(self, group: Group) -> Tensor:
        """Return the loss, shape (B,)."""
        surrogate = pg.clipped(ratio(group), group.token_advantage, self.low, self.high)
        return pg.reduce_tokens(group, surrogate, self.reduction) * self._teaches(group)

    def weight(self, group: Group) -> Tensor:
        """Return the reduction's weight, 0 for prompts whose draws all have the same advantage."""
        return pg.reduction_weight(group, self.reduction) * self._teaches(group)

    def _teaches(self, group: Group) -> Tensor:
        return group.sum(group.advantage.abs()).gt(0).to(group.reward)


class GSPO(_Standardized):
    """GSPO: GRPO with one ratio a completion, the geometric mean over its tokens, and narrow limits.

    When: token ratios are noisy, as with a mixture of experts.

    Not when: several updates are made of one rollout in bfloat16, whose rounding is beyond the limits.
    """

    name = "gspo"
    source = "Zheng et al. 2025, arXiv:2507.18071, equations 5 to 7"
    equation = "mean_i -min(s A, clip(s, 1 - low, 1 + high) A), s = exp(mean_t log rho), A = (R - mean) / std"
    reference = "none"

    low: float = Field(3e-4, gt=0, lt=1, description="largest distance of the ratio below 1 that is learnt from")
    high: float = Field(4e-4, gt=0, description="largest distance of the ratio above 1 that is learnt from")

    def loss(self, group: Group) -> Tensor:
        """Return the loss, shape (B,)."""
        tokens = group.completions.tokens
        s = pg.exp(tokens.mean(tokens.log_prob - tokens.old_log_prob))
        return group.mean(pg.clipped(s, group.advantage, self.low, self.high))


class CISPO(_Standardized):
    """CISPO: log-probs weighted by a limited ratio without gradient, so that every token is learnt from.

    When: rare tokens, which a clip would leave out, are the ones to learn.

    Not when: updates are large: no token is ever left out.
    """

    name = "cispo"
    source = "MiniMax 2025, arXiv:2506.13585, equations 4 and 5"
    equation = "mean_{i,t} -stop_gradient(min(rho, limit)) A log pi, over all tokens of the batch"
    reference = "none"
    stop_gradient = "no gradient goes through the ratio, as in the paper"

    limit: float = Field(
        5.0, gt=1, description="largest ratio: the paper's 1 + eps_high; ScaleRL (arXiv:2510.13786) and TRL use 5"
    )

    def loss(self, group: Group) -> Tensor:
        """Return the loss, shape (B,)."""
        limited = ratio(group).detach().clamp(max=self.limit)
        values = -limited * group.token_advantage * group.completions.tokens.log_prob
        return pg.reduce_tokens(group, values, "batch_tokens")

    def weight(self, group: Group) -> Tensor:
        """Return token counts, shape (B,)."""
        return pg.reduction_weight(group, "batch_tokens")
