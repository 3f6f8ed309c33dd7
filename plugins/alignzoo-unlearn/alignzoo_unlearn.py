"""Unlearning: losses on the rows whose flag `forget` is 1, and losses that keep what is known of the others.

A recipe sums one of each. Every term is a mean over its own rows, as both losses are in open-unlearning, with which the
formulas are compared (locuslab/open-unlearning).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair, Scored, hookimpl


class Forget(Objective):
    """Base class of losses on the rows to forget: a mean over rows, or over tokens with `by_token`."""

    family = "unlearning"
    data = "chosen"
    flags = ("forget",)
    raises = "nothing"
    by_token: ClassVar[bool] = False

    def weight(self, scored: Scored) -> Tensor:
        """Return 1, or the number of tokens, for rows to forget, and 0 for others."""
        return scored.column("forget") * (scored.length if self.by_token else 1)


class GradAscent(Forget):
    """Gradient ascent: the log-likelihood per token of the rows to forget. With `retain_nll` it is GradDiff.

    When: a baseline is needed: it is the simplest loss that forgets.

    Not when: training is long: without a bound the model falls apart.
    """

    name = "grad_ascent"
    source = "Maini et al. 2024 (TOFU), arXiv:2401.06121, section 4"
    equation = "log pi(y) of rows to forget, a mean over tokens"
    reference = "none"
    by_token = True

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,). It has no lower bound."""
        return scored.column("forget") * scored.log_prob


class NPO(Forget):
    """NPO: negative preference optimization, DPO's loss without a chosen completion.

    When: rows should be forgotten and the model should stay whole.

    Not when: the start is not the model that knows them: it is the reference.
    """

    name = "npo"
    source = "Zhang et al. 2024, arXiv:2404.05868, equation 3"
    equation = "-(2 / beta) log sigmoid(-beta log_ratio) of rows to forget"

    beta: float = Field(0.1, gt=0, description="in the limit of 0 the gradient is that of grad_ascent, not per token")

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        return scored.column("forget") * -2 / self.beta * logsigmoid(-self.beta * scored.log_ratio)


class SimNPO(Forget):
    """SimNPO: NPO without a reference, on log-probs per token. open-unlearning gives it the weight 0.125.

    When: rows to forget differ in length or in how well they are known.

    Not when: a bound relative to the start is wanted.
    """

    name = "simnpo"
    source = "Fan et al. 2024, arXiv:2410.07163"
    equation = "-(2 / beta) log sigmoid(beta (-log pi(y) / |y| - delta)) of rows to forget"
    reference = "none"

    beta: float = Field(4.5, gt=0, description="sharpness")
    delta: float = Field(0.0, ge=0, description="negative log-prob per token beyond which rows count as forgotten")

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        apart = -scored.log_prob / scored.length - self.delta
        return scored.column("forget") * -2 / self.beta * logsigmoid(self.beta * apart)


class UNDIAL(Forget):
    """UNDIAL: distillation from the start with the logit of each true token lowered.

    The value is the cross-entropy without a part that does not depend on the policy, the start's entropy over Z. It is
    a mean over the scored tokens; open-unlearning's also has the prompt's and the padding's.

    When: forgetting should be stable, with a fixed target.

    Not when: memory is short: the start runs beside the policy.
    """

    name = "undial"
    source = "Dong et al. 2024, arXiv:2402.10052"
    equation = (
        "-sum_v q(v) log pi(v) at each token y of rows to forget, q = softmax(logits_ref - strength [v = y]), as "
        "(KL(ref || pi) + (1 - e^-strength) ref(y) log pi(y)) / Z, Z = 1 - (1 - e^-strength) ref(y)"
    )
    reference = "live"
    tokens = True
    statistics = ("forward_kl",)
    by_token = True

    strength: float = Field(10.0, gt=0, description="what the true token's logit loses")

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        tokens = scored.tokens
        lost = -torch.expm1(torch.full_like(tokens.forward_kl, -self.strength)) * tokens.ref_log_prob.exp()
        z = -torch.expm1(tokens.ref_log_prob) + (tokens.ref_log_prob - self.strength).exp()
        return scored.column("forget") * tokens.sum((tokens.forward_kl + lost * tokens.log_prob) / z)


class WGA(Forget):
    """WGA: gradient ascent with tokens weighted by a power of their probability.

    When: tokens that are forgotten already should stop counting.

    Not when: known and unknown tokens should count alike: `grad_ascent`.
    """

    name = "wga"
    source = "Wang et al. 2025, arXiv:2502.19301"
    equation = "pi(y_t)^beta log pi(y_t), a mean over tokens of rows to forget, with the power held constant"
    reference = "none"
    tokens = True
    by_token = True
    stop_gradient = "the weight of each token is a constant of each step"

    beta: float = Field(1.0, ge=0, description="power; 0 is grad_ascent")

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        own = scored.tokens.log_prob
        return scored.column("forget") * scored.tokens.sum((self.beta * own.detach()).exp() * own)


class SatImp(Forget):
    """SatImp: gradient ascent with tokens weighted by how saturated and how important they are.

    When: tokens in between, neither sure nor forgotten, should count most.

    Not when: one weight is enough: `wga`.
    """

    name = "satimp"
    source = "Yang et al. 2025, arXiv:2505.11953"
    equation = "p^beta1 (1 - p)^beta2 log p, a mean over tokens of rows to forget, with the weight held constant"
    reference = "none"
    tokens = True
    by_token = True
    stop_gradient = "the weight of each token is a constant of each step"

    beta1: float = Field(5.0, ge=0, description="power of p")
    beta2: float = Field(1.0, ge=0, description="power of 1 - p")

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        own = scored.tokens.log_prob
        fixed = own.detach()
        weight = (self.beta1 * fixed).exp() * (-torch.expm1(fixed)) ** self.beta2
        return scored.column("forget") * scored.tokens.sum(weight * own)


class CEU(Forget):
    """CE-U: cross-entropy to the policy's own distribution without the true token.

    The target is a constant of each step. The loss then has the gradient of p / (1 - p) log p: tokens that are already
    unlikely hardly count, and surely known ones count most. The first tokens of a completion are left out, as in
    open-unlearning.

    When: gradient ascent falls apart, and no reference should be needed.

    Not when: rows should be forgotten at one pace: `npo`.
    """

    name = "ceu"
    source = "Yang 2025, arXiv:2503.01224"
    equation = (
        "-sum_{v != y} q(v) log pi(v), with q = pi(v) / (1 - pi(y)) held constant, a mean over tokens of rows to "
        "forget but their first ones; (H + p log p) / (1 - p), H the entropy"
    )
    reference = "none"
    tokens = True
    statistics = ("entropy",)
    by_token = True
    stop_gradient = "the target is a constant of each step"

    skip: int = Field(1, ge=0, description="first tokens of each completion that do not count")

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,). The value is the cross-entropy's, the gradient that of odds times log p."""
        tokens = scored.tokens
        own = tokens.log_prob
        fixed = own.detach().clamp(max=-torch.finfo(own.dtype).eps)
        rest = -torch.expm1(fixed)
        value = (tokens.entropy.detach() + fixed.exp() * fixed) / rest
        each = value + fixed.exp() / rest * (own - own.detach())
        return scored.column("forget") * tokens.sum(each * (tokens.position >= self.skip))

    def weight(self, scored: Scored) -> Tensor:
        """Return the number of tokens that count for rows to forget, and 0 for others."""
        return scored.column("forget") * (scored.length - self.skip).clamp(min=0)


class IdkDPO(Objective):
    """IdkDPO: DPO from an answer to forget to a refusal.

    The chosen completion of a row to forget is the refusal. Rows to keep are pairs too; `retain_nll` reads their chosen
    completion.

    When: a refusal should take the place of the answer.

    Not when: refusing is itself a loss: the model learns to say that it does not know.
    """

    name = "idk_dpo"
    family = "unlearning"
    source = "Maini et al. 2024 (TOFU), arXiv:2401.06121, section 4; Zhang et al. 2024, arXiv:2404.05868"
    equation = "-(2 / beta) log sigmoid(beta h) of rows to forget"
    flags = ("forget",)
    raises = "margin"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return pair.column("forget") * -2 / self.beta * logsigmoid(self.beta * pair.margin)

    def weight(self, pair: Pair) -> Tensor:
        """Return 1 for rows to forget, and 0 for others."""
        return pair.column("forget")


class Retain(Objective):
    """Base class of losses on the rows to keep: a mean over their tokens."""

    family = "unlearning"
    data = "chosen"
    flags = ("forget",)

    def weight(self, scored: Scored) -> Tensor:
        """Return the number of tokens for rows to keep, and 0 for others."""
        return (1 - scored.column("forget")) * scored.length


class RetainNLL(Retain):
    """The negative log-likelihood per token of the rows to keep.

    When: the rows to keep have answers that the model should go on giving.

    Not when: only the model's behavior should stay, whatever the rows say: `retain_kl`.
    """

    name = "retain_nll"
    source = "Maini et al. 2024 (TOFU), arXiv:2401.06121, section 4"
    equation = "-log pi(y) of rows to keep, a mean over tokens"
    reference = "none"

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        return -(1 - scored.column("forget")) * scored.log_prob


class RetainKL(Retain):
    """The KL divergence from the start to the policy on the rows to keep.

    When: the policy should stay where it was on the rows to keep.

    Not when: memory is short: the start runs beside the policy.
    """

    name = "retain_kl"
    source = "Maini et al. 2024 (TOFU), arXiv:2401.06121, section 4"
    equation = "KL(ref || pi) at each token of rows to keep, a mean over tokens"
    reference = "live"
    tokens = True
    statistics = ("forward_kl",)
    raises = "nothing"

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        return (1 - scored.column("forget")) * scored.tokens.sum(scored.tokens.forward_kl)


OBJECTIVES: list[Any] = [GradAscent, NPO, SimNPO, UNDIAL, WGA, SatImp, CEU, IdkDPO, RetainNLL, RetainKL]


@hookimpl
def register_objectives():
    return OBJECTIVES
