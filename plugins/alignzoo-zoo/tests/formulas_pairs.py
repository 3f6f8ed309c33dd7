"""The papers' losses of one pair in plain float arithmetic, with `math` and nothing else.

Written from the papers, not from the objectives they check. Defaults are the objectives' defaults.
"""

from __future__ import annotations

import math

from notation import Completion, log_sigmoid, mean, pair, sigmoid

# Pairs: another link than the log-sigmoid, or noisy labels


@pair
def robust_dpo(yw, yl, beta=0.01, label_smoothing=0.1):
    """Chowdhury et al. 2403.00409: unbiased when a share e of the labels is flipped."""
    z, e = beta * (yw.r - yl.r), label_smoothing
    return (-(1 - e) * log_sigmoid(z) + e * log_sigmoid(-z)) / (1 - 2 * e)


@pair
def rso_hinge(yw, yl, beta=0.05):
    """Liu et al. 2309.06657, "hinge-norm"; their gamma is beta."""
    return max(0.0, 1 - beta * (yw.r - yl.r))


@pair
def exo_pair(yw, yl, beta=0.1, label_smoothing=1e-3):
    """Ji et al. 2402.00856, K = 2: KL(model || smoothed label), the reverse of DPO's direction."""
    z = beta * (yw.r - yl.r)
    model, label = (sigmoid(z), sigmoid(-z)), (1 - label_smoothing, label_smoothing)
    return math.fsum(q * (math.log(q) - math.log(p)) for q, p in zip(model, label, strict=True))


@pair
def nca_pair(yw, yl, beta=0.01):
    """Chen et al. 2402.05369, the preference form: K = 2 and a one-hot label."""
    up = -log_sigmoid(beta * yw.r)
    return up - 0.5 * log_sigmoid(-beta * yw.r) - 0.5 * log_sigmoid(-beta * yl.r)


@pair
def bco_pair(yw, yl, beta=0.01):
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
        "chi_squared": lambda u: 2 * (u - 1),
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
def tr_dpo(yw, yl, beta=0.05, alpha=0.6, every=512):
    """Gorbatovski et al. 2404.09656: DPO's loss, against a reference that moves."""
    return -log_sigmoid(beta * (yw.r - yl.r))


@pair
def bema_dpo(yw, yl, beta=0.1):
    """Block and Zhang 2508.00180: DPO's loss, against a reference that moves."""
    return -log_sigmoid(beta * (yw.r - yl.r))


LINKS = {
    "logistic": lambda z: -log_sigmoid(z),
    "hinge": lambda z: max(0.0, 1 - z),
    "square": lambda z: (z - 1) ** 2,
    "exponential": lambda z: math.exp(-z),
    "truncated_quadratic": lambda z: max(0.0, 1 - z) ** 2,
    "savage": lambda z: 1 / (1 + math.exp(z)) ** 2,
    "cauchy": lambda z: -math.log(math.atan(z) / math.pi + 0.5),
}


@pair
def gpo(yw, yl, beta=0.1, link="exponential"):
    """Tang et al. 2402.05749: f(beta h); Cauchy's f is Chen et al. 2405.14953's."""
    return LINKS[link](beta * (yw.r - yl.r))


@pair
def focal_po(yw, yl, beta=0.1, gamma=0.05):
    """Liu et al. 2501.06645: p^gamma times DPO's loss, p the model's preference."""
    p = sigmoid(beta * (yw.r - yl.r))
    return -(p**gamma) * math.log(p)


@pair
def bpo(yw, yl, beta=0.1, alpha=0.3, link="hinge"):
    """Sun et al. 2506.03557: the balanced margin, with the gap adaptor alpha."""
    return LINKS[link](beta * min(yw.r, -alpha * yl.r))


@pair
def minor_dpo(yw, yl, beta=0.1):
    """Xie et al. 2408.09834: the rejected log-ratio, where it is positive."""
    return -log_sigmoid(beta * yw.r - beta * max(0.0, yl.r))


@pair
def dil(yw, yl, estimator="lsif"):
    """Xiao et al. 2503.05079: least-squares importance fitting, or the unnormalized KL."""
    if estimator == "lsif":
        return -math.exp(yw.r) + 0.5 * math.exp(yl.r) ** 2
    return -yw.logp + math.exp(yl.r)


# Pairs: lengths


@pair
def rainbow_po(yw, yl, beta=10.0, alpha=0.25, gamma=0.1):
    """Zhao et al. 2410.04203: the reference mixed with a constant margin, all per token."""
    reference = alpha * (yw.ref_logp / yw.n - yl.ref_logp / yl.n) + (1 - alpha) * gamma
    return -log_sigmoid(beta * (yw.mean - yl.mean - reference))


@pair
def r_dpo(yw, yl, beta=0.1, alpha=0.01):
    """Park et al. 2403.19159, whose reward is r - alpha |y|.

    Then beta log-ratio = r - alpha |y| + const, and the Bradley-Terry model compares beta h + alpha (|y_w| - |y_l|).
    """
    return -log_sigmoid(beta * (yw.r - yl.r) + alpha * (yw.n - yl.n))


@pair
def ln_dpo(yw, yl, beta=2.0):
    """Length-normalized DPO: Ahrabian et al. 2407.15229, Tulu 3."""
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

    The authors' code caps them at 1; TRL does not.
    """

    def log_weight(y: Completion) -> float:
        return mean([own - collision for own, collision in zip(y.tokens, y.log_collision_prob, strict=True)])

    weight = math.exp(log_weight(yw) + log_weight(yl))
    return (min(1.0, weight) if clamp else weight) * -log_sigmoid(beta * (yw.r - yl.r))


@pair
def d2po(yw, yl, beta=0.1, gamma=0.98):
    """Shao et al. 2502.14340: rewards of tokens discounted by gamma^t, t from 0."""

    def reward(y: Completion) -> float:
        return beta * math.fsum(gamma**t * ratio for t, ratio in enumerate(y.ratios))

    return -log_sigmoid(reward(yw) - reward(yl))


@pair
def tdpo1(yw, yl, beta=0.1):
    """Zeng et al. 2404.11999, TDPO1: minus the difference of the sequential KLs, rejected less chosen."""
    return -log_sigmoid(beta * (yw.r - yl.r) - beta * (math.fsum(yl.forward_kl) - math.fsum(yw.forward_kl)))


@pair
def tdpo2(yw, yl, beta=0.1, alpha=0.5):
    """Zeng et al. 2404.11999, TDPO2; the chosen KL is held constant."""
    return -log_sigmoid(beta * (yw.r - yl.r) - alpha * beta * (math.fsum(yl.forward_kl) - math.fsum(yw.forward_kl)))


@pair
def mallows_po(yw, yl, beta=0.1, c=0.29, link="logistic"):
    """Chen et al. 2405.14953, with the authors' estimate: -c log of the mean normalized entropy of both completions."""
    phi = -c * math.log((mean(yw.ref_normalized_entropy) + mean(yl.ref_normalized_entropy)) / 2)
    z = phi * (yw.r - yl.r)
    return -log_sigmoid(beta * z) if link == "logistic" else (z - 1 / (2 * beta)) ** 2


# Pairs: without a reference


@pair
def simpo(yw, yl, beta=2.0, gamma=1.0):
    """Meng et al. 2405.14734, eq. 6: gamma is not scaled by beta."""
    return -log_sigmoid(beta * (yw.mean - yl.mean) - gamma)


@pair
def repo(yw, yl, gamma=0.6):
    """Wu et al. 2503.07426: ReLU(gamma - (mean_w - mean_l))."""
    return max(0.0, gamma - (yw.mean - yl.mean))


@pair
def simper(yw, yl):
    """Xiao et al. 2502.00883: inverse perplexities."""
    return -math.exp(yw.logp / yw.n) + math.exp(yl.logp / yl.n)


@pair
def confpo(yw, yl, beta=2.0, gamma=1.0):
    """Yoon et al. 2506.08712: SimPO over tokens less likely than the arithmetic mean of their completion."""

    def reward(y: Completion) -> float:
        likely = [math.exp(token) for token in y.tokens]
        kept = [token for token, p in zip(y.tokens, likely, strict=True) if p < mean(likely)]
        return beta * mean(kept or y.tokens)

    return -log_sigmoid(reward(yw) - reward(yl) - gamma)


@pair
def alpha_po(yw, yl, beta=2.5, gamma=0.1, alpha=0.25):
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
def slic_hf(yw, yl, delta=1.0, regularization=0.1):
    """Zhao et al. 2305.10425, with the chosen completion as the regularizer's target."""
    return max(0.0, delta - yw.logp + yl.logp) - regularization * yw.logp


@pair
def unlikelihood(yw, yl, alpha=0.5):
    """The DPO paper's baseline (2305.18290, section 6): it maximizes log p(y_w) and minimizes log p(y_l).

    Welleck et al. 1908.04319 have -log(1 - p) of each token in place of log p(y_l).
    """
    return -yw.logp + alpha * yl.logp


@pair
def preferred_ft(yw, yl):
    """The DPO paper's baseline (2305.18290, section 6): fine-tuning on y_w."""
    return -yw.logp
