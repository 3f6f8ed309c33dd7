"""What length does to the margin."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Modifier, Objective, Pair, Scored


class RDPO(Objective):
    """R-DPO: regularizes DPO by the difference in length, so that longer is no longer better."""

    name = "r_dpo"
    family = "length"
    source = "Park et al. 2024, arXiv:2403.19159"
    equation = "-log sigmoid(beta h + alpha (|y_w| - |y_l|))"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(0.01, ge=0, description="weight of the length difference, per token; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,). A longer chosen completion counts as partly explained by its length: its gradient is smaller."""
        return -logsigmoid(self.beta * pair.margin + self.alpha * (pair.chosen.length - pair.rejected.length))


class LNDPO(Objective):
    """Length-normalized DPO: log-ratios per token, with a beta that is larger by about the length of a completion."""

    name = "ln_dpo"
    family = "length"
    source = "Ahrabian et al. 2024, arXiv:2407.15229; Lambert et al. 2024 (Tulu 3), arXiv:2411.15124, with beta = 5"
    equation = "-log sigmoid(beta (log_ratio_w / |y_w| - log_ratio_l / |y_l|))"
    already_applies = ("length_normalization",)

    beta: float = Field(2.0, gt=0, description="strength of the KL constraint, per token")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return -logsigmoid(self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected))

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Per token."""
        return self.beta * scored.log_ratio / scored.length


def length_desensitization(pair: Pair, tail: float) -> Pair:
    """The pair with log-ratios in which tokens beyond the shorter completion's length count `tail`."""
    shorter = pair.chosen.length.minimum(pair.rejected.length)

    def weighted(one: Scored) -> Scored:
        inside = one.tokens.position < one.tokens.spread(shorter)
        ratio = one.tokens.log_ratio  # a weight of its own would have the default dtype, and be rounded to it
        return one.with_log_ratio(one.tokens.sum(ratio.where(inside, tail * ratio)))

    return pair.with_sides(chosen=weighted(pair.chosen), rejected=weighted(pair.rejected))


def length_downsampling(pair: Pair) -> Pair:
    """The pair with log-ratios over as many tokens as the shorter completion has, drawn at random from the longer."""
    shorter = pair.chosen.length.minimum(pair.rejected.length)

    def sampled(one: Scored) -> Scored:
        kept = one.tokens.rank(one.tokens.uniform) < one.tokens.spread(shorter)
        return one.with_log_ratio(one.tokens.sum(kept * one.tokens.log_ratio))

    return pair.with_sides(chosen=sampled(pair.chosen), rejected=sampled(pair.rejected))


class LDDPO(Objective):
    """LD-DPO: tokens beyond the length of the shorter completion count less, in policy and reference alike."""

    name = "ld_dpo"
    family = "length"
    source = "Liu et al. 2024, arXiv:2409.06411"
    equation = "DPO with log pi(y) = sum_{t <= m} log p_t + alpha sum_{t > m} log p_t, m = min(|y_w|, |y_l|)"
    already_applies = ("length_desensitization",)
    reference = "token"
    tokens = True

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(0.5, ge=0, le=1, description="what the excess tokens count; 1 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return -logsigmoid(self.beta * length_desensitization(pair, self.alpha).margin)


class SamPO(Objective):
    """SamPO: DPO on as many tokens of the longer completion as the shorter one has, drawn anew at every step."""

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
        """Shape (B,). The same tokens are taken of policy and reference."""
        return -logsigmoid(self.beta * length_downsampling(pair).margin)


class LengthDesensitization(Modifier):
    """LD-DPO's length treatment for any pairwise objective: excess tokens of the longer completion count less."""

    name = "length_desensitization"
    family = LDDPO.family
    source = LDDPO.source
    equation = "log_ratio = sum_{t <= m} log_ratio_t + alpha sum_{t > m} log_ratio_t, m = min(|y_w|, |y_l|)"
    data = ("pair",)
    reference = "token"
    tokens = True

    alpha: float = Field(0.5, ge=0, le=1, description="what the excess tokens count; 1 changes nothing")

    def transform(self, example: Pair, objective: Objective) -> Pair:
        """The pair with its weighted log-ratios."""
        return length_desensitization(example, self.alpha)


class LengthDownsampling(Modifier):
    """SamPO's length treatment for any pairwise objective: a random subset of the longer completion's tokens."""

    name = "length_downsampling"
    family = SamPO.family
    source = SamPO.source
    equation = "log-ratios summed over a random subset of min(|y_w|, |y_l|) tokens of each completion"
    data = ("pair",)
    reference = "token"
    tokens = True
    needs_uniform = True

    def transform(self, example: Pair, objective: Objective) -> Pair:
        """The pair with log-ratios over the drawn tokens."""
        return length_downsampling(example)


LENGTH = [RDPO, LNDPO, LDDPO, SamPO]
LENGTH_MODIFIERS = [LengthDesensitization, LengthDownsampling]
