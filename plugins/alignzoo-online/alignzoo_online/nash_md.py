"""Nash-MD: a policy that is preferred to a mixture of itself and the reference."""

from typing import Literal

import torch
from torch import Tensor

from alignzoo import Field, Group, Objective


class NashMD(Objective):
    """Nash-MD: REINFORCE on the probability to be preferred to a draw of a mixture of policy and reference.

    When: the policy is to be preferred to others, rather than to have a high mean score.

    Not when: rewards are scores of a single judge: `rloo` maximizes them directly.
    """

    name = "nash_md"
    family = "policy gradients"
    source = "Munos et al. 2023, arXiv:2312.00886, section 7 (Nash-MD-PG)"
    equation = "-(P(y > y') - 1/2 - tau log(pi(y) / pi_ref(y))) log pi(y), y' by the token from pi^(1 - c) pi_ref^c"
    data = "group"
    reference = "sequence"
    drawn_by = ("policy", "mixture")
    advantage_reads_log_probs = True

    tau: float = Field(0.1, ge=0, description="strength of the KL penalty")
    mixture_coef: float = Field(0.5, ge=0, le=1, description="share of the reference in the mixture; 0 is self-play")
    preference: Literal["bradley_terry", "given"] = Field(
        "bradley_terry",
        description="probability to be preferred: sigmoid of the difference of two rewards; given: the rewards are "
        "such probabilities themselves",
    )

    def advantage(self, group: Group) -> Tensor:
        """Return the penalized preference of the policy's draw, and 0 for the mixture's, (B, 2)."""
        first, second = group.reward.unbind(1)
        apart = first - second
        edge = apart.sigmoid() - 0.5 if self.preference == "bradley_terry" else apart / 2
        own = (edge - self.tau * group.completions.log_ratio[:, 0]) * group.kept.all(1)
        return torch.stack([own, torch.zeros_like(own)], 1)

    def loss(self, group: Group) -> Tensor:
        """Return the loss, shape (B,)."""
        return group.sum(-group.advantage * group.completions.log_prob)

    def weight(self, group: Group) -> Tensor:
        """Return 1 for prompts with both draws, else 0."""
        return group.kept.all(1).to(group.reward)
