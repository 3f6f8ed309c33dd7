"""Single completions, each labelled desirable or undesirable. A pair is one of each."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Unpaired


class KTO(Objective):
    """KTO: a Kahneman-Tversky value of each completion's reward, against the policy's KL from the reference."""

    name = "kto"
    family = "unpaired"
    source = "Ethayarajh et al. 2024, arXiv:2402.01306, equation 8"
    equation = (
        "desirable: l_D (1 - sigmoid(beta (r - z0))); undesirable: l_U (1 - sigmoid(beta (z0 - r))); r = log_ratio"
    )
    data = "unpaired"
    mismatched = True
    scope = "batch"
    detached = "the KL estimate z0 is a constant of each step, as in the paper"

    beta: float = Field(0.1, gt=0, description="how risk-averse the value is")
    desirable_weight: float = Field(1.0, gt=0, description="l_D; the paper balances the two by their counts")
    undesirable_weight: float = Field(1.0, gt=0, description="l_U")

    def loss(self, batch: Unpaired) -> Tensor:
        """Shape (B,). z0 is the mean log-ratio of mismatched completions over the global batch, at least 0."""
        reference_point = batch.mismatched.log_ratio.mean().clamp(min=0).detach()
        sign = 2.0 * batch.desirable - 1.0
        weight = batch.desirable * self.desirable_weight + ~batch.desirable * self.undesirable_weight
        return weight * (-self.beta * sign * (batch.completion.log_ratio - reference_point)).sigmoid()


class BCO(Objective):
    """BCO: a binary classifier whose logit is the implicit reward less a running mean of it."""

    name = "bco"
    family = "unpaired"
    source = "Jung et al. 2024, arXiv:2404.04656, equations 9 and 10 (without the density ratio weights)"
    equation = "desirable: -log sigmoid(r - delta); undesirable: -log sigmoid(-(r - delta)); r = beta log_ratio"
    data = "unpaired"
    scope = "batch"
    detached = "delta is a constant of each step, as in the paper"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def initial_state(self) -> dict[str, float]:
        """The mean reward of all examples so far, and how many they are."""
        return {"delta": 0.0, "count": 0.0}

    def next_state(self, batch: Unpaired) -> dict[str, float]:
        """The mean over this batch's rewards too."""
        reward = self.beta * batch.completion.log_ratio.detach()
        count = batch.state["count"] + len(reward)
        delta = batch.state["delta"] + (float(reward.mean()) - batch.state["delta"]) * len(reward) / count
        return {"delta": delta, "count": count}

    def loss(self, batch: Unpaired) -> Tensor:
        """Shape (B,)."""
        sign = 2.0 * batch.desirable - 1.0
        return -logsigmoid(sign * (self.beta * batch.completion.log_ratio - batch.state["delta"]))


class APOZeroUnpaired(Objective):
    """APO-zero on labelled completions: KTO with its reference point at zero."""

    name = "apo_zero_unpaired"
    family = "unpaired"
    source = "D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7, on single completions"
    equation = "desirable: 1 - sigmoid(beta log_ratio); undesirable: sigmoid(beta log_ratio)"
    data = "unpaired"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, batch: Unpaired) -> Tensor:
        """Shape (B,)."""
        return (-(2.0 * batch.desirable - 1.0) * self.beta * batch.completion.log_ratio).sigmoid()


UNPAIRED = [KTO, BCO, APOZeroUnpaired]
