"""Objectives that weigh each token by the log-probs of further models, which a recipe names under `references`."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair, Scored


class TGDPO(Objective):
    """TGDPO: DPO with each token's log-ratio weighted by the reward that an earlier run gives to the token.

    `guide` is usually the policy of a DPO run: `references: {guide: dpo_hh}`.

    When: a DPO run is there, and a second one from the same start should learn more.

    Not when: there is no earlier policy: alpha = 0 is DPO.
    """

    name = "tgdpo"
    family = "token weights"
    source = "Zhu et al. 2025, arXiv:2506.14574"
    equation = (
        "-log sigmoid(beta (sum_t (1 + alpha beta g_t) r_t of y_w - sum_t (1 - alpha beta g_t) r_t of y_l)), with r_t "
        "the token's log-ratio and g_t = log pi_guide - log pi_ref"
    )
    reference = "token"
    tokens = True
    references = ("guide",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(0.5, ge=0, description="strength of the guidance; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * (self._guided(pair.chosen, 1) - self._guided(pair.rejected, -1)))

    def _guided(self, scored: Scored, sign: int) -> Tensor:
        tokens = scored.tokens
        reward = self.beta * (tokens.ref("guide") - tokens.ref_log_prob)
        return tokens.sum((1 + sign * self.alpha * reward) * tokens.log_ratio)


class TISDPO(Objective):
    """TIS-DPO: DPO with each token weighted by its estimated importance, from two contrasting models.

    The weights are those of the authors' code (exlaw/TIS-DPO): linear in the clamped difference of the two log-probs;
    the paper's are exponential. Its optional KL term, which needs a live reference, is left out.

    When: two models differ in what the preference is about, such as one trained on good and one on bad answers.

    Not when: no such models are there: weights from similar models are noise.
    """

    name = "tis_dpo"
    family = "token weights"
    source = "Liu et al. 2024, arXiv:2410.04350"
    equation = (
        "-log sigmoid(beta (sum_t w_t r_t of y_w - sum_t w_t r_t of y_l)), with r_t the token's log-ratio and w_t = 1 "
        "+- spread clamp((log pi_positive - log pi_negative) / limit, -1, 1), + for y_w"
    )
    reference = "token"
    tokens = True
    references = ("positive", "negative")

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    limit: float = Field(1.5, gt=0, description="difference of log-probs, in nats, from which weights are constant")
    spread: float = Field(0.3, ge=0, lt=1, description="weights lie in 1 +- spread; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * (self._weighted(pair.chosen, 1) - self._weighted(pair.rejected, -1)))

    def _weighted(self, scored: Scored, sign: int) -> Tensor:
        tokens = scored.tokens
        important = ((tokens.ref("positive") - tokens.ref("negative")) / self.limit).clamp(-1, 1)
        return tokens.sum((1 + sign * self.spread * important) * tokens.log_ratio)


GUIDED = [TGDPO, TISDPO]
