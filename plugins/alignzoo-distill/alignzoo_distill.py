"""Distillation: divergences between the token distributions of the policy, the student, and a live teacher.

The recipe names the teacher: `references: {reference: RECIPE}`. In the equations T is the teacher's distribution at a
token, S the student's, and KL sums over the vocabulary.
"""

import math
from typing import Any, Literal

from torch import Tensor, finfo, logaddexp

from alignzoo import Field, Objective, Pair, Scored, hookimpl

Alpha = Field(0.1, ge=0, lt=1, description="share of the first distribution in the mixture; 0 is plain KL")


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) at each token, (n,), from log-probs (n, V). Outcomes of p = 0 count 0, as in the limit."""
    p = log_p.exp()
    return (p * (log_p - log_q).masked_fill(p == 0, 0)).sum(1)


def mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """Return the log of share p + (1 - share) q, (n, V)."""
    if share == 0:
        return log_q
    parts = log_p + math.log(share), log_q + math.log1p(-share)
    least = finfo(log_q.dtype).min  # the derivative of logaddexp of twice -inf is NaN
    return logaddexp(*(part.clamp(min=least) for part in parts))


def skew_kl(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """Return KL(p || alpha p + (1 - alpha) q) at each token, (n,)."""
    return kl(log_p, mixture(log_p, log_q, alpha))


class Distillation(Objective):
    """Base class of losses on the distributions of a student and a teacher that the recipe names."""

    family = "distillation"
    reference = "live"
    named_reference = True
    tokens = True
    raises = "nothing"

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the student's log-prob: the teacher is no start that it moves away from."""
        return scored.log_prob


class GivenAnswers(Distillation):
    """Base class of means of one divergence over the tokens of given answers."""

    data = "chosen"
    statistics = ("divergence",)

    reduction: Literal["completion", "batch_tokens"] = Field(
        "completion", description="a mean over a completion's tokens, then over completions, or over all tokens at once"
    )

    def divergence(self, log_pi: Tensor, log_ref: Tensor) -> Tensor:
        """Return the divergence at each token, (n,), from log-probs of student and teacher, (n, V)."""
        raise NotImplementedError

    def loss(self, scored: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        each = scored.tokens.statistic("divergence")
        return scored.tokens.mean(each) if self.reduction == "completion" else scored.tokens.sum(each)

    def weight(self, scored: Scored) -> Tensor:
        """Return 1, or the number of tokens."""
        return scored.ones() if self.reduction == "completion" else scored.length


class ForwardKL(GivenAnswers):
    """Forward KL: the student covers all that the teacher says.

    When: the student should be as broad as the teacher, and the answers are the teacher's or other good ones.

    Not when: the student is much smaller: it spreads over what it can't model; see `reverse_kl`.
    """

    name = "forward_kl"
    source = "Hinton et al. 2015, arXiv:1503.02531; at each token as in Agarwal et al. 2023, arXiv:2306.13649"
    equation = "mean_t KL(T || S)"

    def divergence(self, log_pi: Tensor, log_ref: Tensor) -> Tensor:
        """Return KL(T || S) at each token, (n,)."""
        return kl(log_ref, log_pi)


class ReverseKL(GivenAnswers):
    """Reverse KL: the student keeps to what the teacher finds likeliest.

    When: the student is too small for all of the teacher, and best on answers that it writes itself.

    Not when: variety counts: what the student does not say yet is hardly learnt.
    """

    name = "reverse_kl"
    source = "Gu et al. 2023 (MiniLLM), arXiv:2306.08543; at each token as in Agarwal et al. 2023, arXiv:2306.13649"
    equation = "mean_t KL(S || T)"

    def divergence(self, log_pi: Tensor, log_ref: Tensor) -> Tensor:
        """Return KL(S || T) at each token, (n,)."""
        return kl(log_pi, log_ref)


class GKD(GivenAnswers):
    """GKD: the generalized Jensen-Shannon divergence, between forward KL (beta 0) and reverse KL (beta 1).

    At 0 and 1 it is the KL divergence itself, as in TRL, and not the limit of the formula, which is 0.

    When: it is open which KL divergence suits the student: beta is tuned.

    Not when: teacher and student are far apart: the divergence is at most log 2, and its gradient vanishes.
    """

    name = "gkd"
    source = "Agarwal et al. 2023, arXiv:2306.13649, equation 1"
    equation = "mean_t (beta KL(T || M) + (1 - beta) KL(S || M)), M = beta T + (1 - beta) S"

    beta: float = Field(0.5, ge=0, le=1, description="share of the teacher in the mixture")
    temperature: float = Field(1.0, gt=0, le=100, description="divides both models' logits")

    def divergence(self, log_pi: Tensor, log_ref: Tensor) -> Tensor:
        """Return the divergence at each token, (n,)."""
        if self.temperature != 1:
            log_pi, log_ref = ((one / self.temperature).log_softmax(1) for one in (log_pi, log_ref))
        if self.beta in (0, 1):
            return kl(log_ref, log_pi) if self.beta == 0 else kl(log_pi, log_ref)
        mixed = mixture(log_ref, log_pi, self.beta)
        return self.beta * kl(log_ref, mixed) + (1 - self.beta) * kl(log_pi, mixed)


class SkewForwardKL(GivenAnswers):
    """Skew KL of DistiLLM: forward KL to a student mixed with some of the teacher, with a bounded gradient.

    When: forward KL is unstable, as the student gives some of the teacher's tokens no probability.

    Not when: the answers are the student's own: `skew_reverse_kl`.
    """

    name = "skew_forward_kl"
    source = "Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.1"
    equation = "mean_t KL(T || alpha T + (1 - alpha) S)"

    alpha: float = Alpha

    def divergence(self, log_pi: Tensor, log_ref: Tensor) -> Tensor:
        """Return the divergence at each token, (n,)."""
        return skew_kl(log_ref, log_pi, self.alpha)


class SkewReverseKL(GivenAnswers):
    """Skew reverse KL of DistiLLM: reverse KL to a teacher mixed with some of the student.

    When: the answers are the student's own, and the teacher finds some of them impossible.

    Not when: the answers are the teacher's: `skew_forward_kl`.
    """

    name = "skew_reverse_kl"
    source = "Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.1"
    equation = "mean_t KL(S || alpha S + (1 - alpha) T)"

    alpha: float = Alpha

    def divergence(self, log_pi: Tensor, log_ref: Tensor) -> Tensor:
        """Return the divergence at each token, (n,)."""
        return skew_kl(log_pi, log_ref, self.alpha)


class DistiLLM2(Distillation):
    """DistiLLM-2: skew forward KL on the teacher's answer (chosen), skew reverse KL on the student's (rejected).

    Alpha and beta are constant, as in the authors' code; the paper also has a schedule for each. The authors' code
    holds the second mixture constant. Here it has its gradient, as in the formula.

    When: each prompt has an answer of the teacher and one of the student.

    Not when: rejected answers are no samples of the student: the second term is for what it would say.

    With `rollout: {pairs: data}` the student's answers are drawn as it is, and the data has the teacher's.
    """

    name = "distillm2"
    source = "Ko et al. 2025, arXiv:2503.07067, section 3"
    equation = (
        "(2 - beta) mean_t KL(T || alpha T + (1 - alpha) S) of y_w "
        "+ beta mean_t KL(S || alpha S + (1 - alpha) T) of y_l"
    )
    statistics = ("forward", "reverse")
    given_chosen = True

    alpha: float = Alpha
    beta: float = Field(1.0, ge=0, le=2, description="weight of the student's answer; the paper raises it to 1.5")

    def forward(self, log_pi: Tensor, log_ref: Tensor) -> Tensor:
        """Return KL(T || alpha T + (1 - alpha) S) at each token, (n,)."""
        return skew_kl(log_ref, log_pi, self.alpha)

    def reverse(self, log_pi: Tensor, log_ref: Tensor) -> Tensor:
        """Return KL(S || alpha S + (1 - alpha) T) at each token, (n,)."""
        return skew_kl(log_pi, log_ref, self.alpha)

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen.tokens, pair.rejected.tokens
        first, second = chosen.mean(chosen.statistic("forward")), rejected.mean(rejected.statistic("reverse"))
        return (2 - self.beta) * first + self.beta * second


OBJECTIVES: list[Any] = [ForwardKL, ReverseKL, GKD, SkewForwardKL, SkewReverseKL, DistiLLM2]


@hookimpl
def register_objectives():
    return OBJECTIVES
