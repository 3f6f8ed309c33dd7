"""Losses that depend on the whole global batch."""

from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair, Scored, ties


class AOT(Objective):
    """AOT on pairs: a logistic loss between the sorted margins of policy and reference.

    When: the distribution of margins should improve, not each pair.

    Not when: batches are small: the ranks are within a batch.
    """

    name = "aot"
    family = "batch"
    source = "Melnyk et al. 2024, arXiv:2406.05882, section 3 (paired)"
    equation = "-log sigmoid(beta (sort(log pi_w - log pi_l) - sort(log ref_w - log ref_l))), rank by rank"
    scope = "batch"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss of each pair's rank, shape (B,). Ties share the mean of the reference's margins."""
        policy = pair.chosen.log_prob - pair.rejected.log_prob
        reference = pair.chosen.ref_log_prob - pair.rejected.ref_log_prob
        groups = ties.tie_groups(policy, pair.tolerance)
        return -logsigmoid(self.beta * (policy - ties.by_rank(groups, reference.sort().values)))


class AOTUnpaired(Objective):
    """AOT on separate sets: a logistic loss between sorted chosen and rejected log-ratios.

    When: chosen and rejected completions do not belong to the same prompts.

    Not when: pairs are informative: the pairing is ignored.
    """

    name = "aot_unpaired"
    family = "batch"
    source = "Melnyk et al. 2024, arXiv:2406.05882, section 3 (unpaired)"
    equation = "-log sigmoid(beta (sort(log_ratio_w) - sort(log_ratio_l))), rank by rank"
    scope = "batch"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss of each chosen completion's rank, shape (B,). Ties share the mean of their ranks."""
        chosen, rejected = pair.chosen.log_ratio, pair.rejected.log_ratio
        groups = ties.tie_groups(chosen, pair.chosen.tolerance)
        return -logsigmoid(self.beta * (chosen - ties.by_rank(groups, rejected.sort().values)))


class DrDPO(Objective):
    """Dr. DPO: distributionally robust DPO, a soft minimum of the losses in a batch.

    When: some pairs are labeled wrongly and should count less.

    Not when: batches are small: the weights are relative to the batch.
    """

    name = "dr_dpo"
    family = "batch"
    source = "Wu et al. 2024, arXiv:2407.07880"
    equation = "-beta' log mean_batch exp(log sigmoid(beta h) / beta')"
    scope = "batch"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    beta_prime: float = Field(1.0, gt=0, description="trust in the labels; DPO in the limit of infinity")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss of the batch for every pair, shape (B,)."""
        right = logsigmoid(self.beta * pair.margin)
        mean = (right / self.beta_prime).logsumexp(0) - log(len(right))
        return (-self.beta_prime * mean).expand(len(right))


class BetaDPO(Objective):
    """Beta-DPO: DPO with a beta that follows the margins of the batch, without outliers.

    The paper compares beta h with its running mean. The authors' code (junkangwu/beta-DPO) compares h, with a = 0.6 and
    beta = 0.1; the default alpha = a / beta = 6 gives the same numbers.

    When: pairs differ much in quality and one beta fits none.

    Not when: runs must be free of random drops and of state.
    """

    name = "beta_dpo"
    family = "batch"
    source = "Wu et al. 2024, arXiv:2407.08639"
    equation = (
        "-log sigmoid(beta_b h), beta_b = beta (1 + alpha (mean over kept pairs of beta h - M)), M a running mean"
    )
    scope = "batch"
    needs_uniform = True
    stop_gradient = "the batch's beta, and which pairs are kept, are constants of each step"

    beta: float = Field(0.1, gt=0, description="the beta of a batch whose mean margin is the running mean")
    alpha: float = Field(6.0, ge=0, description="relative change of beta per unit of beta h")
    keep: float = Field(0.8, gt=0, le=1, description="fraction of the pairs kept (the paper's 1 - rho)")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the running mean and deviation")

    def initial_state(self) -> dict[str, float]:
        """Return the initial running mean and standard deviation of beta h."""
        return {"mean": 0.0, "deviation": 1.0}

    def next_state(self, pair: Pair) -> dict[str, float]:
        """Return the running statistics after this batch."""
        gap = (self.beta * pair.margin).detach()
        now = {"mean": float(gap.mean()), "deviation": float(gap.std(correction=0))}
        return {key: self.momentum * old + (1 - self.momentum) * now[key] for key, old in pair.state.items()}

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,): zero for dropped pairs, which also do not affect the batch's beta."""
        gap, kept = (self.beta * pair.margin).detach(), self._kept(pair)
        informative = (gap * kept).sum() / kept.sum() - pair.state["mean"]
        beta = (self.beta * (1 + self.alpha * informative)).clamp(min=1e-3)
        return -logsigmoid(beta * pair.margin) * kept

    def weight(self, pair: Pair) -> Tensor:
        """Return the weights for a mean over the kept pairs, shape (B,)."""
        return self._kept(pair)

    def _kept(self, pair: Pair) -> Tensor:
        """Return 1 for kept pairs and 0 for the others, shape (B,).

        They are drawn without replacement, in proportion to a normal density around the running mean. Pairs that tie
        for the last places share them.
        """
        gap = (self.beta * pair.margin).detach()
        count = max(1, round(self.keep * len(gap)))
        deviation = max(pair.state["deviation"], 1e-6)
        z = (gap - pair.state["mean"]) / deviation
        # Efraimidis and Spirakis: the largest u^(1/w) are such a draw, which are the smallest log(-log u) - log w.
        key = (-(pair.uniform.clamp(1e-12, 1 - 1e-7)).log()).log() + z**2 / 2
        rounding = pair.tolerance * (1 + z.abs() * self.beta / deviation)
        first = (torch.arange(len(gap), device=gap.device) < count).to(gap)
        return ties.by_rank(ties.tie_groups(key, rounding), first)


class AlphaDPO(Objective):
    """alpha-DPO: SimPO with a target margin for each pair that depends on the reference.

    gamma and alpha are not scaled by beta. The authors' code (junkangwu/alpha-DPO) multiplies both by beta; the
    defaults are its Llama 3 setting, 10 * 0.4 and 10 * 0.2. It uses running averages of the mean and the deviation;
    this objective uses those of the global batch.

    When: SimPO's margin should differ from pair to pair.

    Not when: batches are small: the margin is a z-score within the batch.
    """

    name = "alpha_dpo"
    family = "batch"
    source = "Wu et al. 2024, arXiv:2410.10148"
    equation = "-log sigmoid(beta (a_w - a_l) - (gamma + alpha M)), a = log pi / |y|, M = z-score of beta h per token"
    already_applies = ("length_normalization",)
    scope = "batch"
    stop_gradient = "the target margin is a constant of each step, as in the paper"

    beta: float = Field(10.0, gt=0, description="scale of the reward per token")
    gamma: float = Field(4.0, ge=0, description="target margin; the authors use 0.4 beta for Llama 3")
    alpha: float = Field(2.0, ge=0, description="weight of the reference in the margin; the authors use 0.2 beta")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        c, r = pair.chosen, pair.rejected
        apart = (c.log_ratio / c.length - r.log_ratio / r.length).detach()
        apart = ties.tie_means(apart, ties.tie_groups(apart, c.tolerance / c.length + r.tolerance / r.length))
        score = (apart - apart.mean()) / (apart.std(correction=1 if len(apart) > 1 else 0) + 1e-8)
        return -logsigmoid(self.implicit_reward(c) - self.implicit_reward(r) - self.gamma - self.alpha * score)

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta times the mean log-prob, as in SimPO."""
        return self.beta * scored.log_prob / scored.length


BATCH = [AOT, AOTUnpaired, DrDPO, BetaDPO, AlphaDPO]
