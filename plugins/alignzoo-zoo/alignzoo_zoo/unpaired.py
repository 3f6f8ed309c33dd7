"""Objectives on single completions labeled desirable or undesirable; a pair is one of each."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Unpaired


def signed(batch: Unpaired, logit: Tensor) -> Tensor:
    """Return the logit of the label, shape (B,). A product with +-1 in another dtype would round it."""
    return logit.where(batch.desirable, -logit)


class KTO(Objective):
    """KTO: a Kahneman-Tversky value of each completion's log-ratio against a KL estimate.

    When: thumbs up or down for single completions, also in unequal numbers.

    Not when: pairs are at hand and clean.
    """

    name = "kto"
    family = "unpaired"
    source = "Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1"
    equation = (
        "desirable: l_D (1 - sigmoid(beta (r - z0))); undesirable: l_U (1 - sigmoid(beta (z0 - r))); r = log_ratio"
    )
    data = "unpaired"
    mismatched = True
    scope = "batch"
    stop_gradient = "the KL estimate z0 is a constant of each step, as in the paper"

    beta: float = Field(0.1, gt=0, description="slope of the value function; larger is more risk-averse")
    desirable_weight: float = Field(
        1.0, gt=0, description="l_D; the paper balances l_D and l_U by the counts of labels"
    )
    undesirable_weight: float = Field(1.0, gt=0, description="l_U")

    def loss(self, batch: Unpaired) -> Tensor:
        """Return the loss, shape (B,). z0 is the mean log-ratio of the batch's mismatched completions, at least 0."""
        reference_point = batch.mismatched.log_ratio.mean().clamp(min=0).detach()
        missed = (-signed(batch, self.beta * (batch.completion.log_ratio - reference_point))).sigmoid()
        return (self.desirable_weight * missed).where(batch.desirable, self.undesirable_weight * missed)


class BCO(Objective):
    """BCO: a binary classifier on the implicit reward, shifted by the running means.

    When: thumbs up or down, with rewards that drift together.

    Not when: runs must be free of state.
    """

    name = "bco"
    family = "unpaired"
    source = "Jung et al. 2024, arXiv:2404.04656, equations 7 and 8 (without the density ratio weights)"
    equation = (
        "desirable: -log sigmoid(r - delta); undesirable: -log sigmoid(delta - r); r = beta log_ratio, delta halfway "
        "between the running means of r of both kinds"
    )
    data = "unpaired"
    scope = "batch"
    stop_gradient = "delta is a constant of each step, as in the paper"

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of the running means; not in the paper")

    def initial_state(self) -> dict[str, float]:
        """Return zero for both running mean rewards, their value at the reference."""
        return {"desirable": 0.0, "undesirable": 0.0}

    def next_state(self, batch: Unpaired) -> dict[str, float]:
        """Return the running means after this batch; a label that is not in it keeps its mean."""
        reward, state = self.beta * batch.completion.log_ratio.detach(), dict(batch.state)
        for kind, mine in (("desirable", batch.desirable), ("undesirable", ~batch.desirable)):
            if mine.any():
                state[kind] = self.momentum * state[kind] + (1 - self.momentum) * float(reward[mine].mean())
        return state

    def loss(self, batch: Unpaired) -> Tensor:
        """Return the loss, shape (B,)."""
        delta = (batch.state["desirable"] + batch.state["undesirable"]) / 2
        return -logsigmoid(signed(batch, self.beta * batch.completion.log_ratio - delta))


class APOZeroUnpaired(Objective):
    """APO-zero on labeled completions: KTO with a reference point of zero.

    When: thumbs up or down, without KTO's second forward pass.

    Not when: log-ratios have an offset, which KTO's reference point takes away.
    """

    name = "apo_zero_unpaired"
    family = "unpaired"
    source = "D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7, on single completions"
    equation = "desirable: 1 - sigmoid(beta log_ratio); undesirable: sigmoid(beta log_ratio)"
    data = "unpaired"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, batch: Unpaired) -> Tensor:
        """Return the loss, shape (B,)."""
        return (-signed(batch, self.beta * batch.completion.log_ratio)).sigmoid()


UNPAIRED = [KTO, BCO, APOZeroUnpaired]
