"""Objectives without a reference."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair, Scored
from alignzoo_zoo.bounded import expm1
from alignzoo_zoo.per_token import per_token


class SimPO(Objective):
    """SimPO: a logistic loss on the difference of mean log-probs, with a target margin.

    When: memory or time for a reference is short; rewards per token fit generation.

    Not when: the policy must stay close to its start: only the learning rate holds it.
    """

    name = "simpo"
    family = "reference-free"
    source = "Meng et al. 2024, arXiv:2405.14734, equation 6"
    equation = "-log sigmoid(beta (a_w - a_l) - gamma), with a = log pi(y) / |y|"
    reference = "none"

    beta: float = Field(2.0, gt=0, description="scale of the reward; the paper uses 2 to 2.5, and 10 for Llama 3 v0.2")
    gamma: float = Field(1.0, ge=0, description="target margin, not scaled by beta; the paper uses 0.3 to 1.6, and 3")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected) - self.gamma)

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta times the mean log-prob."""
        return self.beta * per_token(scored)


class RePO(Objective):
    """RePO: a hinge on the difference of mean log-probs, the limit of SimPO for a large beta.

    When: SimPO with one hyper-parameter; pairs beyond the margin should not count.

    Not when: all pairs should keep counting.
    """

    name = "repo"
    family = "reference-free"
    source = "Wu et al. 2025, arXiv:2503.07426"
    equation = "max(0, gamma - (a_w - a_l)), with a = log pi(y) / |y|"
    reference = "none"

    gamma: float = Field(0.6, ge=0, description="target margin per token; 0.6 for Llama 3, 0.4 else")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return (self.gamma - self.implicit_reward(pair.chosen) + self.implicit_reward(pair.rejected)).relu()

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the mean log-prob."""
        return per_token(scored)


class SimPER(Objective):
    """SimPER: the difference of inverse perplexities, without a hyper-parameter.

    When: no hyper-parameter may be tuned.

    Not when: wrongly ranked pairs are unlikely: their gradient vanishes.
    """

    name = "simper"
    family = "reference-free"
    source = "Xiao et al. 2025, arXiv:2502.00883"
    equation = "-e^a_w + e^a_l, with a = log pi(y) / |y|"
    reference = "none"

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return self.implicit_reward(pair.rejected) - self.implicit_reward(pair.chosen)

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the inverse perplexity, which is at most 1."""
        return per_token(scored).exp()


class ConfPO(Objective):
    """ConfPO: SimPO on the tokens that are less likely than the mean of their completion.

    The mean is that of the probabilities, as in the authors' code (hee-suk-yoon/ConfPO), whose loss is 0 for a
    completion without such a token. Here a token as likely as the mean, up to one in a million, is kept too, so that
    every completion has one.

    When: few tokens of a completion decide, and most are sure anyway.

    Not when: completions are short: few tokens are left.
    """

    name = "confpo"
    family = "reference-free"
    source = "Yoon et al. 2025, arXiv:2506.08712"
    equation = "-log sigmoid(beta (c_w - c_l) - gamma), with c the mean log p_t over tokens with p_t <= mean_t p_t"
    reference = "none"
    tokens = True

    beta: float = Field(2.0, gt=0, description="scale of the reward, as in SimPO")
    gamma: float = Field(1.0, ge=0, description="target margin, not scaled by beta")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected) - self.gamma)

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta times the mean log-prob of the unlikely tokens."""
        one = scored.tokens
        likely = one.log_prob.detach().double().exp()
        kept = (likely <= (1 + 1e-6) * one.spread(one.mean(likely))).to(one.log_prob)
        return self.beta * one.sum(kept * one.log_prob) / one.sum(kept)


class AlphaPO(Objective):
    """AlphaPO: SimPO with a power of the mean likelihood as the reward.

    When: SimPO's reward should be bent toward unlikely or likely completions.

    Not when: one more hyper-parameter is too many.
    """

    name = "alpha_po"
    family = "reference-free"
    source = "Gupta et al. 2025, arXiv:2501.03884"
    equation = "-log sigmoid(r_w - r_l - gamma), with r = beta (1 - e^(-alpha a)) / alpha, a = log pi(y) / |y|"
    reference = "none"

    beta: float = Field(2.5, gt=0, description="scale of the reward")
    gamma: float = Field(0.1, ge=0, description="target margin, not scaled by beta")
    alpha: float = Field(0.25, ge=-2, le=2, description="shape of the reward; SimPO in the limit of 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected) - self.gamma)

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta (1 - p^-alpha) / alpha, with p the geometric mean of the tokens' probabilities."""
        a = per_token(scored)
        if self.alpha == 0:
            return self.beta * a
        return -self.beta * expm1(-self.alpha * a) / self.alpha


class ORPO(Objective):
    """ORPO: the chosen completion's NLL per token plus a logistic loss on the log odds ratio.

    The likelihood is the mean over each chosen completion's tokens, as in the paper. The authors' code (xfactlab/orpo)
    and TRL take one mean over all tokens of the batch, including those of the prompts. The weight 0.1 is TRL's default
    and the authors' Mistral setting; the default of their parser is 1.

    When: one run in the place of SFT and preference training.

    Not when: the policy is already fine-tuned: the likelihood term goes on.
    """

    name = "orpo"
    family = "reference-free"
    source = "Hong et al. 2024, arXiv:2403.07691, equation 6"
    equation = "-a_w - lambda log sigmoid(log odds(a_w) - log odds(a_l)), with log odds(a) = a - log(1 - e^a)"
    reference = "none"

    lambda_: float = Field(0.1, ge=0, description="weight of the odds ratio")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        odds = self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected)
        return -per_token(pair.chosen) - self.lambda_ * logsigmoid(odds)

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the log odds of the mean likelihood, linear for a mean log-prob above -1e-6."""
        a = per_token(scored)
        below = a.clamp(max=-1e-6)
        return below - (-below.expm1()).log() + 1e6 * (a - below)


class CPO(Objective):
    """CPO: DPO with a uniform reference, plus the chosen completion's NLL.

    The likelihood is a sum over tokens, as in the paper. The authors' code (fe1ixxu/ALMA) and TRL take its mean over
    all chosen tokens of the batch, which is `[{name: cpo, alpha: 0}, {name: sft}]`.

    When: chosen completions are good enough to imitate, as translations.

    Not when: the sum over tokens would outweigh the preference: use a mean, alpha 0 and `sft`.
    """

    name = "cpo"
    family = "reference-free"
    source = "Xu et al. 2024, arXiv:2401.08417, equations 3 and 5"
    equation = "-log sigmoid(beta (log pi_w - log pi_l)) - alpha log pi_w"
    reference = "none"

    beta: float = Field(0.1, gt=0, description="scale of the preference term")
    alpha: float = Field(1.0, ge=0, description="weight of the likelihood; the paper uses 1")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        preference = -logsigmoid(self.beta * (pair.chosen.log_prob - pair.rejected.log_prob))
        return preference - self.alpha * pair.chosen.log_prob


class SLiCHF(Objective):
    """SLiC-HF: a hinge loss on the difference of log-probs, plus the chosen one's NLL.

    When: pairs should stop counting once they are apart by delta nats.

    Not when: completions are long: delta is in nats of whole completions.
    """

    name = "slic_hf"
    family = "reference-free"
    source = "Zhao et al. 2023, arXiv:2305.10425, equation 1"
    equation = "max(0, delta - log pi_w + log pi_l) - lambda log pi_w"
    reference = "none"

    delta: float = Field(1.0, gt=0, description="margin of the hinge, in nats")
    regularization: float = Field(0.1, ge=0, description="weight of the likelihood (the paper's lambda)")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). The regularization target is the chosen completion."""
        hinge = (self.delta - pair.chosen.log_prob + pair.rejected.log_prob).relu()
        return hinge - self.regularization * pair.chosen.log_prob


class Unlikelihood(Objective):
    """Unlikelihood: the chosen completion's NLL plus a fraction of the rejected log-prob.

    When: as the DPO paper's failing baseline.

    Not when: text is to be generated: it degenerates.
    """

    name = "unlikelihood"
    family = "reference-free"
    source = "Rafailov et al. 2023, arXiv:2305.18290, section 6; after Welleck et al. 2019, arXiv:1908.04319"
    equation = "-log pi_w + alpha log pi_l"
    reference = "none"

    alpha: float = Field(0.5, ge=0, le=1, description="weight of the rejected completion")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). It has no minimum, and the DPO paper shows degenerate results."""
        return -pair.chosen.log_prob + self.alpha * pair.rejected.log_prob


class PreferredFT(Objective):
    """Preferred-FT: supervised fine-tuning on chosen completions, a mean over sequences.

    When: as the baseline that ignores rejected completions.

    Not when: a mean over tokens is wanted: `sft`.
    """

    name = "preferred_ft"
    family = "reference-free"
    source = "Rafailov et al. 2023, arXiv:2305.18290, section 6"
    equation = "-log pi_w"
    data = "chosen"
    reference = "none"

    def loss(self, chosen: Scored) -> Tensor:
        """Return the loss, shape (B,)."""
        return -chosen.log_prob


REFERENCE_FREE = [SimPO, RePO, SimPER, ConfPO, AlphaPO, ORPO, CPO, SLiCHF, Unlikelihood, PreferredFT]
