"""Objectives that correct for the length of completions."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Modifier, Objective, Pair, Scored


class RDPO(Objective):
    """R-DPO: DPO with the difference in length added to the margin.

    When: longer completions win in the data for their length.

    Not when: length is part of quality.
    """

    name = "r_dpo"
    family = "length"
    source = "Park et al. 2024, arXiv:2403.19159"
    equation = "-log sigmoid(beta h + alpha (|y_w| - |y_l|))"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(0.01, ge=0, description="weight of the length difference, per token; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). The gradient is smaller for a longer chosen completion."""
        return -logsigmoid(self.beta * pair.margin + self.alpha * (pair.chosen.length - pair.rejected.length))


class LNDPO(Objective):
    """Length-normalized DPO: DPO on log-ratios per token.

    When: completions differ in length and DPO's margins follow it.

    Not when: sums matter, as for probabilities of whole answers.
    """

    name = "ln_dpo"
    family = "length"
    source = "Ahrabian et al. 2024, arXiv:2407.15229; Lambert et al. 2024 (Tulu 3), arXiv:2411.15124, with beta = 5"
    equation = "-log sigmoid(beta (log_ratio_w / |y_w| - log_ratio_l / |y_l|))"
    already_applies = ("length_normalization",)

    beta: float = Field(2.0, gt=0, description="strength of the KL constraint, per token")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected))

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta times the log-ratio per token."""
        return self.beta * scored.log_ratio / scored.length


class RainbowPO(Objective):
    """RainbowPO: length-normalized DPO with a mixture of the reference and a constant margin.

    This is the paper's mixed reference policy with length normalization. Its rejection sampling is a matter of the
    data, and its contextual scaling needs the entropy of the reference.

    When: the reference is weak, and SimPO without one drifts.

    Not when: per-token rewards are not wanted.
    """

    name = "rainbow_po"
    family = "length"
    source = "Zhao et al. 2024, arXiv:2410.04203"
    equation = "-log sigmoid(r_w - r_l - beta (1 - alpha) gamma), with r = beta (log pi - alpha log ref) / |y|"
    already_applies = ("length_normalization",)

    beta: float = Field(10.0, gt=0, description="scale of the reward, per token")
    alpha: float = Field(0.25, ge=0, le=1, description="share of the reference; 0 is SimPO, 1 is length-normalized DPO")
    gamma: float = Field(0.1, ge=0, description="target margin per token, in place of the reference")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        margin = self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected)
        return -logsigmoid(margin - self.beta * (1 - self.alpha) * self.gamma)

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta (log pi - alpha log ref) / |y|."""
        return self.beta * (self.alpha * scored.log_ratio + (1 - self.alpha) * scored.log_prob) / scored.length


def length_desensitization(pair: Pair, tail: float) -> Pair:
    """Return the pair with a weight of `tail` on the tokens beyond the shorter completion's length."""
    shorter = pair.chosen.length.minimum(pair.rejected.length)

    def weighted(one: Scored) -> Scored:
        inside = one.tokens.position < one.tokens.spread(shorter)
        ratio = one.tokens.log_ratio  # a tensor of weights would have the default dtype and round to it
        return one.with_log_ratio(one.tokens.sum(ratio.where(inside, tail * ratio)))

    return pair.with_sides(chosen=weighted(pair.chosen), rejected=weighted(pair.rejected))


def length_downsampling(pair: Pair) -> Pair:
    """Return the pair with log-ratios over equally many tokens, drawn at random from the longer completion."""
    shorter = pair.chosen.length.minimum(pair.rejected.length)

    def sampled(one: Scored) -> Scored:
        kept = one.tokens.rank(one.tokens.uniform) < one.tokens.spread(shorter)
        return one.with_log_ratio(one.tokens.sum(kept * one.tokens.log_ratio))

    return pair.with_sides(chosen=sampled(pair.chosen), rejected=sampled(pair.rejected))


class LDDPO(Objective):
    """LD-DPO: DPO with a smaller weight for tokens beyond the shorter completion's length.

    When: the longer completion should win by what both say at equal length.

    Not when: the end of the longer completion carries the difference.
    """

    name = "ld_dpo"
    family = "length"
    source = "Liu et al. 2024, arXiv:2409.06411"
    equation = "DPO with log pi(y) = sum_{t <= m} log p_t + alpha sum_{t > m} log p_t, m = min(|y_w|, |y_l|)"
    already_applies = ("length_desensitization",)
    reference = "token"
    tokens = True

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the excess tokens; 1 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * length_desensitization(pair, self.alpha).margin)


class SamPO(Objective):
    """SamPO: DPO on random tokens of the longer completion, as many as the shorter one has.

    When: length bias, without a weight to tune.

    Not when: results must not depend on which tokens were drawn.
    """

    name = "sampo"
    family = "length"
    source = "Lu et al. 2024, arXiv:2406.10957, equation 10"
    equation = "DPO with log-ratios summed over a random subset of min(|y_w|, |y_l|) tokens of each completion"
    already_applies = ("length_downsampling",)
    reference = "token"
    tokens = True
    needs_uniform = True

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). Policy and reference use the same tokens, drawn anew in every step."""
        return -logsigmoid(self.beta * length_downsampling(pair).margin)


class LengthDesensitization(Modifier):
    """LD-DPO's change for any objective on pairs: a smaller weight for excess tokens."""

    name = "length_desensitization"
    family = LDDPO.family
    source = LDDPO.source
    equation = "log_ratio = sum_{t <= m} log_ratio_t + alpha sum_{t > m} log_ratio_t, m = min(|y_w|, |y_l|)"
    data = ("pair",)
    reference = "token"
    tokens = True

    alpha: float = Field(0.5, ge=0, le=1, description="weight of the excess tokens; 1 changes nothing")

    def transform(self, example: Pair, objective: Objective) -> Pair:
        """Return the pair with the weighted log-ratios."""
        return length_desensitization(example, self.alpha)


class LengthDownsampling(Modifier):
    """SamPO's change for any objective on pairs: random tokens of the longer completion."""

    name = "length_downsampling"
    family = SamPO.family
    source = SamPO.source
    equation = "log-ratios summed over a random subset of min(|y_w|, |y_l|) tokens of each completion"
    data = ("pair",)
    reference = "token"
    tokens = True
    needs_uniform = True

    def transform(self, example: Pair, objective: Objective) -> Pair:
        """Return the pair with log-ratios over the drawn tokens."""
        return length_downsampling(example)


LENGTH = [RDPO, LNDPO, RainbowPO, LDDPO, SamPO]
LENGTH_MODIFIERS = [LengthDesensitization, LengthDownsampling]
