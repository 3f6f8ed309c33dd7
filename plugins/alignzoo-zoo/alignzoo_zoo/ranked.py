"""Objectives on ranked lists of K completions, best first; a pair is a list of two."""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Ranked, Scored, ties
from alignzoo_zoo.per_token import per_token

MOST_TIED = 12
"""Completions of equal scores in a list that Plackett-Luce takes: a mean over their orders has 2^n terms."""


def later(values: Tensor) -> Tensor:
    """Return log sum_{j >= k} exp(values_j) for each k, shape (B, K)."""
    return values.flip(1).logcumsumexp(1).flip(1)


def plackett_luce(reward: Tensor, places: Tensor) -> Tensor:
    """Return -log p of the order of each list, (B, K) to (B,): a mean over the orders of those that share a place."""
    loss = (later(reward) - reward).sum(1)
    tied = (places[:, 1:] == places[:, :-1]).any(1)
    if not tied.any():
        return loss
    means = [_over_orders(*row) for row in zip(reward[tied], places[tied].tolist(), strict=True)]
    return loss.masked_scatter(tied, torch.stack(means))


class PlackettLuceDPO(Objective):
    """DPO for rankings: the Plackett-Luce likelihood of the order of a list.

    When: the whole order of a list is known.

    Not when: only the best matters, or more than 12 completions of a list have equal scores.
    """

    name = "pl_dpo"
    family = "ranked"
    source = "Rafailov et al. 2023, arXiv:2305.18290, appendix A.3, equation 20"
    equation = "-sum_k (r_k - log sum_{j >= k} e^{r_j}), with r = beta log_ratio"
    data = "ranked"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,): a mean over all orders of completions with equal scores."""
        return plackett_luce(self.beta * ranked.completions.log_ratio, ranked.places)


def _over_orders(reward: Tensor, places: list[int]) -> Tensor:
    """Return the Plackett-Luce loss of one list, shape (), a mean over the orders of completions that share a place.

    In a group of g, each subset of m completions is equally often the remaining one, which gives 2^g terms.
    """
    loss = -reward.sum()
    for place in dict.fromkeys(places):
        group = [k for k, own in enumerate(places) if own == place]
        if len(group) > MOST_TIED:
            raise ValueError(f"{len(group)} completions have equal scores; at most {MOST_TIED} may, for 2^n terms")
        after = [k for k, own in enumerate(places) if own > place]
        for m in range(1, len(group) + 1):
            rest = [[*some, *after] for some in combinations(group, m)]
            loss = loss + reward[torch.tensor(rest, device=reward.device)].logsumexp(1).mean()
    return loss


class InfoNCA(Objective):
    """InfoNCA: cross-entropy between the softmax of the scores and that of the rewards.

    The authors' code (thu-ml/Noise-Contrastive-Alignment) divides UltraFeedback's scores by 1e-4, so that only the best
    completion counts, and adds 0.01 to the first score to break ties. Here equal scores have equal shares, and the
    temperature is 1, because the unit of a score depends on the data.

    When: scores of a list, as shares that add to one.

    Not when: likelihoods must not fall: `nca`.
    """

    name = "infonca"
    family = "ranked"
    source = "Chen et al. 2024, arXiv:2402.05369, section 3"
    equation = "-sum_k softmax(score / temperature)_k log softmax(beta log_ratio)_k"
    data = "ranked"
    columns = ("score",)

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    temperature: float = Field(
        1.0, gt=0, description="temperature of the scores (the paper's alpha); only the best counts in the limit of 0"
    )

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,)."""
        wanted = (ranked.completions.column("score") / self.temperature).softmax(1)
        return -(wanted * (self.beta * ranked.completions.log_ratio).log_softmax(1)).sum(1)


class NCA(Objective):
    """NCA: noise contrastive alignment on a list with scores.

    It also keeps likelihoods from falling. The second term is a mean over the K completions, as in the authors' code
    (thu-ml/Noise-Contrastive-Alignment), whose temperature is 1e-4; see `infonca`.

    When: scores of a list, and likelihoods should not fall.

    Not when: only differences count.
    """

    name = "nca"
    family = "ranked"
    source = "Chen et al. 2024, arXiv:2402.05369, section 4"
    equation = (
        "-sum_k (softmax(score / temperature)_k log sigmoid(r_k) + log sigmoid(-r_k) / K), with r = beta log_ratio"
    )
    data = "ranked"
    columns = ("score",)

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    temperature: float = Field(1.0, gt=0, description="temperature of the scores (the paper's alpha)")

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,)."""
        wanted = (ranked.completions.column("score") / self.temperature).softmax(1)
        reward = self.beta * ranked.completions.log_ratio
        return -(wanted * logsigmoid(reward) + logsigmoid(-reward) / reward.shape[1]).sum(1)


class LiPOLambda(Objective):
    """LiPO-lambda: a logistic loss on all pairs of a list, weighted by the change in DCG.

    When: the top of the list counts most, and scores are from 0 to about 4.

    Not when: scores are large: gains are 2^score.
    """

    name = "lipo_lambda"
    family = "ranked"
    source = "Liu et al. 2024, arXiv:2402.01878, equation 8"
    equation = "-sum_{s_i > s_j} |2^s_i - 2^s_j| |1/D(i) - 1/D(j)| log sigmoid(r_i - r_j), D = log(1 + rank by r)"
    data = "ranked"
    columns = ("score",)
    stop_gradient = "the ranks by the current reward are constants of each step, as in LambdaRank"

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint")

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,)."""
        score, reward = ranked.completions.column("score"), self.beta * ranked.completions.log_ratio
        groups = ties.tie_groups(-reward, self.beta * ranked.completions.tolerance.amax(1, keepdim=True))
        weight = couples(torch.exp2(score)).abs() * _swap_costs(groups, reward) * (couples(score) > 0)
        return -(weight * logsigmoid(couples(reward))).sum((1, 2))


def couples(values: Tensor) -> Tensor:
    """Return all differences, (B, K) to (B, K, K): [b, i, j] is values_i - values_j."""
    return values[:, :, None] - values[:, None, :]


def _swap_costs(groups: Tensor, like: Tensor) -> Tensor:
    """Return |1/D(i) - 1/D(j)|, (B, K, K), with D = log(1 + rank), a mean over the orders of tied completions.

    `groups` are ranks that ties share. With the discount of the mean rank the weight of a tie would be 0, and a policy
    that starts at the reference would never move.
    """
    discount = 1 / torch.arange(2, groups.shape[1] + 2, device=like.device).to(like).log()
    own = discount[groups.argsort(stable=True).argsort()]  # in one of the orders
    tied = groups[:, :, None] == groups[:, None, :]
    size = tied.sum(2, keepdim=True).to(like)
    within = tied.to(like) @ (couples(own).abs() * tied) @ tied.to(like) / (size * (size - 1)).clamp(min=1)
    return within.where(tied, couples(ties.by_rank(groups, discount)).abs())


class PRO(Objective):
    """PRO: softmax losses of each completion against all worse ones, scaled by score gaps.

    When: long lists, imitation of the best, no reference.

    Not when: score gaps are on an arbitrary scale: they are temperatures.
    """

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
        """Return the loss, shape (B,). A score gap is 1 / T in the paper; the best completion has the smallest T."""
        mean, score = self.implicit_reward(ranked.completions), ranked.completions.column("score")
        last = mean.shape[1] - 1
        loss = -self.alpha * last**2 * ranked.completions.log_prob[:, 0]
        for k in range(last):
            apart = score[:, k, None] - score[:, k + 1 :]
            own = mean[:, k] * apart.amax(1)
            others = mean[:, k + 1 :] * apart
            loss = loss + torch.cat([own[:, None], others], 1).logsumexp(1) - own
        return loss

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the mean log-prob, by which completions are ranked."""
        return per_token(scored)


class RRHF(Objective):
    """RRHF: hinge losses on the ranking by log-prob per token, plus the best one's NLL.

    The likelihood term is a sum over tokens, as in the paper. The authors' code (GanjinZero/RRHF) takes its mean over
    the padded length and omits pairs of equal scores.

    When: ranking without a reference, beside imitation of the best.

    Not when: scores should count by more than their order.
    """

    name = "rrhf"
    family = "ranked"
    source = "Yuan et al. 2023, arXiv:2304.05302, section 3"
    equation = "sum_{i < j} max(0, a_j - a_i) - alpha log pi_1, with a = log pi(y) / |y|, the best completion first"
    data = "ranked"
    reference = "none"

    alpha: float = Field(1.0, ge=0, description="weight of the likelihood; the paper uses 1")

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,). Completions with equal scores have half of the loss of either order."""
        apart, places = couples(self.implicit_reward(ranked.completions)), ranked.places
        better = (places[:, :, None] < places[:, None, :]).to(apart)
        tied = (places[:, :, None] == places[:, None, :]).to(apart)
        return ((-apart).relu() * (better + tied / 2)).sum((1, 2)) - self.alpha * ranked.completions.log_prob[:, 0]

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the mean log-prob, by which completions are ranked."""
        return per_token(scored)


RANKED = [PlackettLuceDPO, InfoNCA, NCA, LiPOLambda, PRO, RRHF]
