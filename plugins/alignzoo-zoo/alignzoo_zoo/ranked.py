"""Lists of K completions, the best first. A pair is a list of two."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Ranked, Scored


def later(values: Tensor) -> Tensor:
    """log sum_{j >= k} exp(values_j) for each k, shape (B, K)."""
    return values.flip(1).logcumsumexp(1).flip(1)


class PlackettLuceDPO(Objective):
    """DPO for rankings: the Plackett-Luce likelihood of the whole order, of which Bradley-Terry is the case of two."""

    name = "pl_dpo"
    family = "ranked"
    source = "Rafailov et al. 2023, arXiv:2305.18290, appendix A.3, equation 20"
    equation = "-sum_k (r_k - log sum_{j >= k} e^{r_j}), with r = beta log_ratio"
    data = "ranked"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, ranked: Ranked) -> Tensor:
        """Shape (B,)."""
        reward = self.beta * ranked.completions.log_ratio
        return (later(reward) - reward).sum(1)


class InfoNCA(Objective):
    """InfoNCA: the policy's softmax over the list must match the softmax of the data's scores."""

    name = "infonca"
    family = "ranked"
    source = "Chen et al. 2024, arXiv:2402.05369, section 3"
    equation = "-sum_k softmax(score / temperature)_k log softmax(beta log_ratio)_k"
    data = "ranked"
    columns = ("score",)

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    temperature: float = Field(
        1.0, gt=0, description="of the scores (the paper's alpha); towards 0 only the best counts"
    )

    def loss(self, ranked: Ranked) -> Tensor:
        """Shape (B,)."""
        wanted = (ranked.completions.column("score") / self.temperature).softmax(1)
        return -(wanted * (self.beta * ranked.completions.log_ratio).log_softmax(1)).sum(1)


class NCA(Objective):
    """NCA: noise contrastive alignment on a scored list, which also keeps likelihoods from falling."""

    name = "nca"
    family = "ranked"
    source = "Chen et al. 2024, arXiv:2402.05369, section 4"
    equation = (
        "-sum_k (softmax(score / temperature)_k log sigmoid(r_k) + log sigmoid(-r_k) / K), with r = beta log_ratio"
    )
    data = "ranked"
    columns = ("score",)

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    temperature: float = Field(1.0, gt=0, description="of the scores (the paper's alpha)")

    def loss(self, ranked: Ranked) -> Tensor:
        """Shape (B,)."""
        wanted = (ranked.completions.column("score") / self.temperature).softmax(1)
        reward = self.beta * ranked.completions.log_ratio
        return -(wanted * logsigmoid(reward) + logsigmoid(-reward) / reward.shape[1]).sum(1)


class LiPOLambda(Objective):
    """LiPO-lambda: a logistic loss on every pair of the list, weighted by what swapping them would cost in DCG."""

    name = "lipo_lambda"
    family = "ranked"
    source = "Liu et al. 2024, arXiv:2402.01878, equation 8"
    equation = "-sum_{s_i > s_j} |2^s_i - 2^s_j| |1/D(i) - 1/D(j)| log sigmoid(r_i - r_j), D = log(1 + rank by r)"
    data = "ranked"
    columns = ("score",)
    detached = "the ranks by the current reward are constants of each step, as in LambdaRank"

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint")

    def loss(self, ranked: Ranked) -> Tensor:
        """Shape (B,)."""
        score, reward = ranked.completions.column("score"), self.beta * ranked.completions.log_ratio
        rank = reward.detach().argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
        discount, gain = 1 / (1 + rank.to(reward)).log(), torch.exp2(score)
        weight = _couples(gain).abs() * _couples(discount).abs() * (_couples(score) > 0)
        return -(weight * logsigmoid(_couples(reward))).sum((1, 2))


def _couples(values: Tensor) -> Tensor:
    """(B, K) to (B, K, K): [b, i, j] is values_i - values_j."""
    return values[:, :, None] - values[:, None, :]


def per_token(scored: Scored) -> Tensor:
    """Mean log-prob of each completion's tokens, shape (B, K)."""
    return scored.log_prob / scored.length


class PRO(Objective):
    """PRO: the best completion against all after it, then the next, more sharply where scores are further apart."""

    name = "pro"
    family = "ranked"
    source = "Song et al. 2023, arXiv:2306.17492"
    equation = (
        "sum_{k < K} (log(e^(a_k D_k) + sum_{i > k} e^(a_i (s_k - s_i))) - a_k D_k) - alpha (K - 1)^2 log pi_1, with "
        "a = log pi(y) / |y|, D_k the largest s_k - s_i, s the data's scores"
    )
    data = "ranked"
    reference = "none"
    columns = ("score",)

    alpha: float = Field(0.05, ge=0, description="weight of the best completion's likelihood (the paper's beta)")

    def loss(self, ranked: Ranked) -> Tensor:
        """Shape (B,). 1 / d is the paper's temperature: T_ki, and their minimum for the positive completion."""
        mean, score = self.reward(ranked.completions), ranked.completions.column("score")
        last = mean.shape[1] - 1
        loss = -self.alpha * last**2 * ranked.completions.log_prob[:, 0]
        for k in range(last):
            apart = score[:, k, None] - score[:, k + 1 :]
            own = mean[:, k] * apart.amax(1)
            others = mean[:, k + 1 :] * apart
            loss = loss + torch.cat([own[:, None], others], 1).logsumexp(1) - own
        return loss

    def reward(self, scored: Scored) -> Tensor:
        """The mean log-prob."""
        return per_token(scored)


class RRHF(Objective):
    """RRHF: no completion may be likelier per token than a better one, and the best one's likelihood is raised."""

    name = "rrhf"
    family = "ranked"
    source = "Yuan et al. 2023, arXiv:2304.05302, section 3"
    equation = "sum_{i < j} max(0, a_j - a_i) - alpha log pi_1, with a = log pi(y) / |y|, the best completion first"
    data = "ranked"
    reference = "none"

    alpha: float = Field(1.0, ge=0, description="weight of the likelihood; the paper has 1")

    def loss(self, ranked: Ranked) -> Tensor:
        """Shape (B,)."""
        worse_is_likelier = _couples(-self.reward(ranked.completions)).relu().triu(1)
        return worse_is_likelier.sum((1, 2)) - self.alpha * ranked.completions.log_prob[:, 0]

    def reward(self, scored: Scored) -> Tensor:
        """What it ranks by."""
        return per_token(scored)


RANKED = [PlackettLuceDPO, InfoNCA, NCA, LiPOLambda, PRO, RRHF]
