"""The papers' losses of batches, single completions, lists and reward models in plain float arithmetic.

`formulas_pairs` has the losses of pairs, and `formulas_scores` those of pairs with scores or labels.
"""

from __future__ import annotations

import math

import formulas_declared  # noqa: F401
import formulas_pairs  # noqa: F401
import formulas_scores  # noqa: F401
from notation import FORMULAS, Completion, batch, log_sigmoid, log_sum_exp, mean, pair, ranked, sigmoid, single, softmax

__all__ = ["FORMULAS"]

# Pairs: the batch


@batch
def aot(rows, beta=0.1):
    """Melnyk et al. 2406.05882, paired: margins of policy and of reference, sorted each."""
    own = sorted(row.chosen.logp - row.rejected.logp for row in rows)
    ref = sorted(row.chosen.ref_logp - row.rejected.ref_logp for row in rows)
    return [-log_sigmoid(beta * (u - v)) for u, v in zip(own, ref, strict=True)]


@batch
def aot_unpaired(rows, beta=0.1):
    """Melnyk et al. 2406.05882, unpaired: log-ratios of chosen and of rejected completions, sorted each."""
    chosen, rejected = sorted(row.chosen.r for row in rows), sorted(row.rejected.r for row in rows)
    return [-log_sigmoid(beta * (u - v)) for u, v in zip(chosen, rejected, strict=True)]


@batch
def beta_dpo(rows, state, beta=0.1, alpha=6.0, keep=1.0, momentum=0.9):
    """Wu et al. 2407.08639: beta [1 + alpha (mean M - M_0)], M the discrepancy of the implicit rewards beta r.

    No pair is dropped: `keep` is 1.
    """
    assert keep == 1
    discrepancy = [beta * (row.chosen.r - row.rejected.r) for row in rows]
    beta_batch = max(1e-3, beta * (1 + alpha * (mean(discrepancy) - state["mean"])))
    return [-log_sigmoid(beta_batch * (row.chosen.r - row.rejected.r)) for row in rows]


@batch
def dr_dpo(rows, beta=0.1, beta_prime=1.0):
    """Wu et al. 2407.07880: -beta' log E exp(log sigmoid(beta h) / beta')."""
    powers = [log_sigmoid(beta * (row.chosen.r - row.rejected.r)) / beta_prime for row in rows]
    return [-beta_prime * math.log(mean([math.exp(power) for power in powers]))] * len(rows)


@batch
def alpha_dpo(rows, beta=10.0, gamma=4.0, alpha=2.0):
    """Wu et al. 2410.10148: SimPO with a margin that grows with the standardized length-normalized h."""
    margins = [beta * (row.chosen.r / row.chosen.n - row.rejected.r / row.rejected.n) for row in rows]
    middle = mean(margins)
    spread = math.sqrt(math.fsum((margin - middle) ** 2 for margin in margins) / (len(margins) - 1))
    return [
        -log_sigmoid(beta * (row.chosen.mean - row.rejected.mean) - gamma - alpha * (margin - middle) / spread)
        for row, margin in zip(rows, margins, strict=True)
    ]


# Unpaired


@batch
def kto(rows, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """Ethayarajh et al. 2402.01306: lambda_y - v, with z_0 from mismatched completions, held constant."""
    z0 = max(0.0, mean([row.mismatched.r for row in rows]))
    return [
        desirable_weight * (1 - sigmoid(beta * (row.completion.r - z0)))
        if row.desirable
        else undesirable_weight * (1 - sigmoid(beta * (z0 - row.completion.r)))
        for row in rows
    ]


@batch
def bco(rows, state, beta=0.01, momentum=0.9):
    """Jung et al. 2404.04656: the rewards of both kinds are moved by the middle of their means."""
    delta = 0.5 * state["desirable"] + 0.5 * state["undesirable"]
    rewards = [beta * row.completion.r - delta for row in rows]
    return [-log_sigmoid(r) if row.desirable else -log_sigmoid(-r) for row, r in zip(rows, rewards, strict=True)]


@single
def apo_zero_unpaired(y, desirable, beta=0.1):
    """D'Oosterlinck et al. 2408.06266: APO-zero's two terms, each on its own completions."""
    return 1 - sigmoid(beta * y.r) if desirable else sigmoid(beta * y.r)


@single
def reward_classifier(y, desirable):
    """Cobbe et al. 2110.14168: binary cross-entropy."""
    return -log_sigmoid(y.scalar) if desirable else -log_sigmoid(-y.scalar)


# Ranked


@ranked
def pl_dpo(ys, beta=0.1):
    """Rafailov et al. 2305.18290, appendix A.3: the Plackett-Luce model."""
    rewards = [beta * y.r for y in ys]
    return -math.fsum(reward - log_sum_exp(rewards[k:]) for k, reward in enumerate(rewards))


@ranked
def infonca(ys, beta=0.01, temperature=1.0):
    """Chen et al. 2402.05369: cross-entropy of the scores' softmax and the implicit rewards'."""
    rewards, target = [beta * y.r for y in ys], softmax([y.score / temperature for y in ys])
    return -math.fsum(p * (reward - log_sum_exp(rewards)) for p, reward in zip(target, rewards, strict=True))


@ranked
def nca(ys, beta=0.01, temperature=1.0):
    """Chen et al. 2402.05369: each completion against noise."""
    target = softmax([y.score / temperature for y in ys])
    return -math.fsum(
        p * log_sigmoid(beta * y.r) + log_sigmoid(-beta * y.r) / len(ys) for p, y in zip(target, ys, strict=True)
    )


@ranked
def lipo_lambda(ys, beta=0.05):
    """Liu et al. 2402.01878: LambdaRank's weights, held constant; ranks by the implicit reward, from 1."""
    by_reward = sorted(ys, key=lambda y: -y.r)

    def discount(y: Completion) -> float:
        return math.log(1 + 1 + by_reward.index(y))

    def gain(y: Completion) -> float:
        return 2**y.score - 1

    return -math.fsum(
        abs(gain(i) - gain(j)) * abs(1 / discount(i) - 1 / discount(j)) * log_sigmoid(beta * (i.r - j.r))
        for i in ys
        for j in ys
        if i.score > j.score
    )


@ranked
def pro(ys, alpha=0.05):
    """Song et al. 2306.17492: each completion against those below it, by mean log-prob over a temperature.

    The temperature is the inverse of the two scores' distance. The best completion's NLL, a sum over its tokens, has
    the weight alpha (K - 1)^2.
    """
    ranking = 0.0
    for k, best in enumerate(ys[:-1]):
        temperatures = [1 / (best.score - y.score) for y in ys[k + 1 :]]
        own = best.mean / min(temperatures)
        others = [y.mean / temperature for y, temperature in zip(ys[k + 1 :], temperatures, strict=True)]
        ranking -= math.log(math.exp(own) / math.fsum(math.exp(value) for value in [own, *others]))
    return ranking - alpha * (len(ys) - 1) ** 2 * ys[0].logp


@ranked
def rrhf(ys, alpha=1.0):
    """Yuan et al. 2304.05302: all pairs of mean log-probs; the SFT term is a sum over tokens."""
    ranking = math.fsum(max(0.0, worse.mean - better.mean) for k, better in enumerate(ys) for worse in ys[k + 1 :])
    return ranking - alpha * ys[0].logp


# Reward models


@pair
def bradley_terry(yw, yl, centering=0.01):
    """Christiano et al. 1706.03741; the centering is Eisenstein et al. 2312.09244's."""
    return -log_sigmoid(yw.scalar - yl.scalar) + centering * (yw.scalar + yl.scalar) ** 2


@pair
def bradley_terry_margin(yw, yl, centering=0.01):
    """Touvron et al. 2307.09288: the scores are to differ by the rating's margin."""
    return -log_sigmoid(yw.scalar - yl.scalar - yw.margin) + centering * (yw.scalar + yl.scalar) ** 2


@pair
def bradley_terry_scaled(yw, yl, centering=0.01):
    """Wang et al. 2410.01257: the strength of the preference times the loss."""
    return -yw.margin * log_sigmoid(yw.scalar - yl.scalar) + centering * (yw.scalar + yl.scalar) ** 2


@pair
def bradley_terry_absolute(yw, yl):
    """Yuan et al. 2404.02078: L_BT + L_DR."""
    return -log_sigmoid(yw.scalar - yl.scalar) - log_sigmoid(yw.scalar) - log_sigmoid(-yl.scalar)


@pair
def focal_bradley_terry(yw, yl, gamma=2.0, barrier=0.01, bound=5.0):
    """Cai et al. 2403.17297: focal ranking loss and log barrier; 0.001 is the authors' distance from the bounds."""
    p = sigmoid(yw.scalar - yl.scalar)
    focal = -((1 - 2 * max(0.0, p - 0.5)) ** gamma) * math.log(p)

    def penalty(score: float) -> float:
        held = min(bound - 1e-3, max(1e-3 - bound, score))
        return -math.log(bound - held) - math.log(held + bound)

    return focal + barrier * (penalty(yw.scalar) + penalty(yl.scalar))


@pair
def grm(yw, yl, lambda_=0.01, beta=0.1, regularization="sft"):
    """Yang et al. 2406.10216, as shipped: the SFT regularization with or without a sigmoid, or DPO's."""
    if regularization == "nll":
        text = -yw.logp
    else:
        text = -log_sigmoid(beta * (yw.logp - (yl.logp if regularization == "dpo" else 0)))
    return (1 - lambda_) * -log_sigmoid(yw.scalar - yl.scalar) + lambda_ * text


@ranked
def plackett_luce(ys):
    """The Plackett-Luce model of the scores."""
    scores = [y.scalar for y in ys]
    return -math.fsum(score - log_sum_exp(scores[k:]) for k, score in enumerate(scores))


@ranked
def bradley_terry_list(ys):
    """Ouyang et al. 2203.02155, eq. 1: over all pairs, by their number."""
    return mean([-log_sigmoid(i.scalar - j.scalar) for k, i in enumerate(ys) for j in ys[k + 1 :]])


@ranked
def score_regression(ys):
    """Wang et al. 2311.09528: mean squared error."""
    return mean([(y.scalar - y.score) ** 2 for y in ys])
