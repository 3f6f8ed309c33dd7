"""The papers' losses in plain float arithmetic, one example or one batch at a time: `math` and nothing else.

Written from the papers, not from the objectives they check. Notation: y_w was preferred to y_l; r(y) is the log-ratio
log pi(y|x) - log pi_ref(y|x), summed over tokens; h = r(y_w) - r(y_l). Defaults are the objectives' defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Completion:
    """What is known of one completion: a number a token, and some of its own."""

    tokens: tuple[float, ...]
    """log pi of each token."""
    ref_tokens: tuple[float, ...]
    collision: tuple[float, ...] = ()
    """log sum_v pi(v)^2 at each token."""
    kl: tuple[float, ...] = ()
    """KL(pi_ref || pi) at each token."""
    uniform: tuple[float, ...] = ()
    score: float = 0.0
    margin: float = 0.0
    scalar: float = 0.0
    """A reward model's output."""

    @property
    def n(self) -> int:
        return len(self.tokens)

    @property
    def logp(self) -> float:
        return math.fsum(self.tokens)

    @property
    def ref_logp(self) -> float:
        return math.fsum(self.ref_tokens)

    @property
    def r(self) -> float:
        return self.logp - self.ref_logp

    @property
    def mean(self) -> float:
        """log pi(y|x) / |y|."""
        return self.logp / self.n

    @property
    def ratios(self) -> list[float]:
        return [own - ref for own, ref in zip(self.tokens, self.ref_tokens, strict=True)]


@dataclass(frozen=True)
class Pair:
    chosen: Completion
    rejected: Completion


@dataclass(frozen=True)
class Single:
    """Unpaired data; `mismatched` is the same prompt with another row's completion."""

    completion: Completion
    desirable: bool
    mismatched: Completion


Ranked = tuple[Completion, ...]  # the best first
Formula = Callable[..., list[float]]

FORMULAS: dict[str, Formula] = {}
"""By the objective's name: (rows, state, **fields) to the loss of each example of the batch."""


def batch(function: Formula) -> Formula:
    """A loss of the whole batch: called with its rows."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: function(rows, **_state(function, state), **fields)
    return function


def pair(function: Callable[..., float]) -> Callable[..., float]:
    """A loss of one pair: called with y_w and y_l."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: [
        function(row.chosen, row.rejected, **fields) for row in rows
    ]
    return function


def ranked(function: Callable[..., float]) -> Callable[..., float]:
    """A loss of one list: called with its completions."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: [function(row, **fields) for row in rows]
    return function


def single(function: Callable[..., float]) -> Callable[..., float]:
    """A loss of one completion: called with it and whether it is desirable."""
    FORMULAS[function.__name__] = lambda rows, state, **fields: [
        function(row.completion, row.desirable, **fields) for row in rows
    ]
    return function


def _state(function: Callable, state: Mapping[str, Any]) -> dict[str, Any]:
    return {"state": state} if "state" in function.__code__.co_varnames else {}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def log_sum_exp(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))


def softmax(values: Sequence[float]) -> list[float]:
    return [math.exp(value - log_sum_exp(values)) for value in values]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


# Pairs: another link than the log-sigmoid, or noisy labels


@pair
def robust_dpo(yw, yl, beta=0.1, label_smoothing=0.1):
    """Chowdhury et al. 2403.00409: unbiased when a share e of the labels is flipped."""
    z, e = beta * (yw.r - yl.r), label_smoothing
    return (-(1 - e) * log_sigmoid(z) + e * log_sigmoid(-z)) / (1 - 2 * e)


@pair
def rso_hinge(yw, yl, beta=0.1):
    """Liu et al. 2309.06657, "hinge-norm"; their gamma is beta."""
    return max(0.0, 1 - beta * (yw.r - yl.r))


@pair
def exo_pair(yw, yl, beta=0.1, label_smoothing=1e-3):
    """Ji et al. 2402.00856, K = 2: KL(model || smoothed label), the reverse of DPO's direction."""
    z = beta * (yw.r - yl.r)
    model, label = (sigmoid(z), sigmoid(-z)), (1 - label_smoothing, label_smoothing)
    return math.fsum(q * (math.log(q) - math.log(p)) for q, p in zip(model, label, strict=True))


@pair
def nca_pair(yw, yl, beta=0.1):
    """Chen et al. 2402.05369, the preference form: K = 2 and a one-hot label."""
    up = -log_sigmoid(beta * yw.r)
    return up - 0.5 * log_sigmoid(-beta * yw.r) - 0.5 * log_sigmoid(-beta * yl.r)


@pair
def bco_pair(yw, yl, beta=0.1):
    """Jung et al. 2404.04656, the bound on DPO's loss: without the paper's reward shift (see `bco`)."""
    return -log_sigmoid(beta * yw.r) - log_sigmoid(-beta * yl.r)


@pair
def sppo_hard(yw, yl, beta=1e-3):
    """Wu et al. 2405.00675: winning probabilities 1 and 0, eta = 1 / beta."""
    return (yw.r - 1 / (2 * beta)) ** 2 + (yl.r + 1 / (2 * beta)) ** 2


@pair
def apo_zero(yw, yl, beta=0.1):
    """D'Oosterlinck et al. 2408.06266; the paper has no constant 1, which changes no gradient."""
    return 1 - sigmoid(beta * yw.r) + sigmoid(beta * yl.r)


@pair
def apo_down(yw, yl, beta=0.1):
    """D'Oosterlinck et al. 2408.06266; the paper has no constant 1, which changes no gradient."""
    return sigmoid(beta * yw.r) + 1 - sigmoid(beta * (yw.r - yl.r))


@pair
def discopop(yw, yl, beta=0.05, temperature=0.05):
    """Lu et al. 2406.08414, "LRML": logistic and exponential loss, mixed by sigmoid(beta h / tau)."""
    z = beta * (yw.r - yl.r)
    mix = sigmoid(z / temperature)
    return (1 - mix) * -log_sigmoid(z) + mix * math.exp(-z)


@pair
def dpop(yw, yl, beta=0.3, penalty=50.0):
    """Pal et al. 2402.13228: the penalty is inside beta, and for y_w below its reference alone."""
    return -log_sigmoid(beta * (yw.r - yl.r - penalty * max(0.0, yw.ref_logp - yw.logp)))


@pair
def odpo(yw, yl, beta=0.1, alpha=1.0):
    """Amini et al. 2402.10571: an offset of alpha log(score(y_w) - score(y_l))."""
    return -log_sigmoid(beta * (yw.r - yl.r) - alpha * math.log(yw.score - yl.score))


@pair
def f_dpo(yw, yl, beta=0.1, divergence="js", alpha=0.5):
    """Wang et al. 2309.16240: f' of the probability ratio u in the place of log u."""
    derivative = {
        "reverse_kl": lambda u: math.log(u),
        "forward_kl": lambda u: -1 / u,
        "js": lambda u: math.log(2 * u / (1 + u)),
        "alpha": lambda u: (1 - u**-alpha) / alpha,
    }[divergence]
    return -log_sigmoid(beta * (derivative(math.exp(yw.r)) - derivative(math.exp(yl.r))))


@pair
def chi_po(yw, yl, beta=0.1, clip=1.0):
    """Huang et al. 2407.13399: phi(u) = u + log u, clipped at 2 R_max; `clip` is R_max."""

    def phi(r: float) -> float:
        return math.exp(r) + r

    return -log_sigmoid(min(max(beta * (phi(yw.r) - phi(yl.r)), -2 * clip), 2 * clip))


@pair
def cal_dpo(yw, yl, beta=1e-3):
    """Xiao et al. 2412.14516: no beta in the log-sigmoid; both log-ratios calibrated to +-1 / (2 beta)."""
    return -log_sigmoid(yw.r - yl.r) + (yw.r - 1 / (2 * beta)) ** 2 + (yl.r + 1 / (2 * beta)) ** 2


@pair
def dpo_shift(yw, yl, beta=0.1, shift=0.95):
    """Yang et al. 2502.07599: f(lambda) scales the rejected reward; here it is constant."""
    return -log_sigmoid(beta * yw.r - shift * beta * yl.r)


@pair
def tr_dpo(yw, yl, beta=0.1, alpha=0.6, every=1):
    """Gorbatovski et al. 2404.09656: DPO's loss, against a reference that moves."""
    return -log_sigmoid(beta * (yw.r - yl.r))


# Pairs: lengths


@pair
def r_dpo(yw, yl, beta=0.1, alpha=0.01):
    """Park et al. 2403.19159. Their reward is r - alpha |y|, so beta log-ratio = r - alpha |y| + const, and what the
    Bradley-Terry model compares is beta h + alpha (|y_w| - |y_l|): a longer chosen completion counts less."""
    return -log_sigmoid(beta * (yw.r - yl.r) + alpha * (yw.n - yl.n))


@pair
def ln_dpo(yw, yl, beta=2.0):
    """Length-normalised DPO: Ahrabian et al. 2407.15229, Tulu 3."""
    return -log_sigmoid(beta * (yw.r / yw.n - yl.r / yl.n))


@pair
def rpo(yw, yl, beta=0.1, alpha=1.0):
    """Pang et al. 2404.19733: DPO, plus alpha times y_w's NLL by its length."""
    return -log_sigmoid(beta * (yw.r - yl.r)) - alpha * yw.logp / yw.n


@pair
def ld_dpo(yw, yl, beta=0.1, alpha=0.5):
    """Liu et al. 2409.06411: tokens beyond the shorter length count alpha, under policy and reference."""
    public = min(yw.n, yl.n)

    def ratio(y: Completion) -> float:
        return math.fsum(y.ratios[:public]) + alpha * math.fsum(y.ratios[public:])

    return -log_sigmoid(beta * (ratio(yw) - ratio(yl)))


@pair
def sampo(yw, yl, beta=0.1):
    """Lu et al. 2406.10957: both log-ratios summed over min(|y_w|, |y_l|) tokens, the longer side's drawn at random."""
    kept = min(yw.n, yl.n)

    def ratio(y: Completion) -> float:
        drawn = sorted(range(y.n), key=lambda token: y.uniform[token])[:kept]
        return math.fsum(y.ratios[token] for token in drawn)

    return -log_sigmoid(beta * (ratio(yw) - ratio(yl)))


# Pairs: tokens


@pair
def wpo(yw, yl, beta=0.01, clamp=True):
    """Zhou et al. 2406.11827, "sampled alignment": weights exp(mean_t(log pi_t - log sum_v pi(v)^2)), held constant.
    The cap at 1 is the authors' code's; TRL has none."""

    def log_weight(y: Completion) -> float:
        return mean([own - collision for own, collision in zip(y.tokens, y.collision, strict=True)])

    weight = math.exp(log_weight(yw) + log_weight(yl))
    return (min(1.0, weight) if clamp else weight) * -log_sigmoid(beta * (yw.r - yl.r))


@pair
def tdpo1(yw, yl, beta=0.1):
    """Zeng et al. 2404.11999, TDPO1: minus the difference of the sequential KLs, rejected less chosen."""
    return -log_sigmoid(beta * (yw.r - yl.r) - beta * (math.fsum(yl.kl) - math.fsum(yw.kl)))


@pair
def tdpo2(yw, yl, beta=0.1, alpha=0.5):
    """Zeng et al. 2404.11999, TDPO2; the chosen KL is held constant."""
    return -log_sigmoid(beta * (yw.r - yl.r) - alpha * beta * (math.fsum(yl.kl) - math.fsum(yw.kl)))


# Pairs: without a reference


@pair
def simpo(yw, yl, beta=2.0, gamma=1.0):
    """Meng et al. 2405.14734, eq. 6: gamma is not scaled by beta."""
    return -log_sigmoid(beta * (yw.mean - yl.mean) - gamma)


@pair
def alpha_po(yw, yl, beta=2.0, gamma=1.0, alpha=0.25):
    """Gupta et al. 2501.03884: SimPO with the reward beta (1 - pi(y)^(-alpha / |y|)) / alpha."""

    def reward(y: Completion) -> float:
        return beta * (1 - math.exp(-alpha * y.mean)) / alpha

    return -log_sigmoid(reward(yw) - reward(yl) - gamma)


@pair
def orpo(yw, yl, lambda_=0.1):
    """Hong et al. 2403.07691, eq. 6: odds of the probability by length."""

    def log_odds(y: Completion) -> float:
        return y.mean - math.log(1 - math.exp(y.mean))

    return -yw.mean - lambda_ * log_sigmoid(log_odds(yw) - log_odds(yl))


@pair
def cpo(yw, yl, beta=0.1, alpha=1.0):
    """Xu et al. 2401.08417: the NLL is the sum over tokens."""
    return -log_sigmoid(beta * (yw.logp - yl.logp)) - alpha * yw.logp


@pair
def slic_hf(yw, yl, delta=1.0, regularisation=0.1):
    """Zhao et al. 2305.10425, with the chosen completion as the regulariser's target."""
    return max(0.0, delta - yw.logp + yl.logp) - regularisation * yw.logp


@pair
def rrhf(yw, yl, alpha=1.0):
    """Yuan et al. 2304.05302, K = 2: ranks mean log-probs; the SFT term is a sum over tokens."""
    return max(0.0, yl.mean - yw.mean) - alpha * yw.logp


@pair
def unlikelihood(yw, yl, alpha=0.5):
    """The DPO paper's baseline (2305.18290, section 6): it maximises log p(y_w) and minimises log p(y_l). Welleck et
    al. 1908.04319 have -log(1 - p) of each token there."""
    return -yw.logp + alpha * yl.logp


@pair
def preferred_ft(yw, yl):
    """The DPO paper's baseline (2305.18290, section 6): fine-tuning on y_w."""
    return -yw.logp


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
def beta_dpo(rows, state, beta=0.1, alpha=0.6, keep=1.0, momentum=0.9):
    """Wu et al. 2407.08639: beta [1 + alpha (mean M - M_0)], M the discrepancy of the implicit rewards beta r.
    Nothing is dropped here: `keep` is 1."""
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
def alpha_dpo(rows, beta=10.0, gamma=3.0, alpha=0.05):
    """Wu et al. 2410.10148: SimPO with a margin that grows with the standardised length-normalised h."""
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
def bco(rows, state, beta=0.1):
    """Jung et al. 2404.04656: the rewards of both kinds are moved by the shift delta."""
    return [-log_sigmoid((1 if row.desirable else -1) * (beta * row.completion.r - state["delta"])) for row in rows]


@single
def apo_zero_unpaired(y, desirable, beta=0.1):
    """D'Oosterlinck et al. 2408.06266: APO-zero's two terms, each on its own completions."""
    return 1 - sigmoid(beta * y.r) if desirable else sigmoid(beta * y.r)


# Ranked


@ranked
def pl_dpo(ys, beta=0.1):
    """Rafailov et al. 2305.18290, appendix A.3: the Plackett-Luce model."""
    rewards = [beta * y.r for y in ys]
    return -math.fsum(reward - log_sum_exp(rewards[k:]) for k, reward in enumerate(rewards))


@ranked
def infonca(ys, beta=0.1, temperature=1.0):
    """Chen et al. 2402.05369: cross-entropy of the scores' softmax and the implicit rewards'."""
    rewards, target = [beta * y.r for y in ys], softmax([y.score / temperature for y in ys])
    return -math.fsum(p * (reward - log_sum_exp(rewards)) for p, reward in zip(target, rewards, strict=True))


@ranked
def nca(ys, beta=0.1, temperature=1.0):
    """Chen et al. 2402.05369: each completion against noise."""
    target = softmax([y.score / temperature for y in ys])
    return -math.fsum(
        p * log_sigmoid(beta * y.r) + log_sigmoid(-beta * y.r) / len(ys) for p, y in zip(target, ys, strict=True)
    )


@ranked
def lipo_lambda(ys, beta=0.1):
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
    """Song et al. 2306.17492: each completion against those below it, by mean log-prob, and the NLL of
    the best, which is a sum over its tokens there (and in the authors' code)."""
    rewards = [y.mean for y in ys]
    ranking = -math.fsum(reward - log_sum_exp(rewards[k:]) for k, reward in enumerate(rewards[:-1]))
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
