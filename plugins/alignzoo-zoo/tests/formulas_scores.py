"""The papers' losses of pairs with scores, win rates, quantiles or safety labels, in plain float arithmetic."""

from __future__ import annotations

import math

from notation import Completion, log_sigmoid, pair, sigmoid


def kl(p: float, q: float) -> float:
    """Of (p, 1 - p) from (q, 1 - q)."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pair
def reward_rpo(yw, yl, beta=0.1, eta=1.0, variant="bwd_kl"):
    """Adler et al. 2406.11704, Sun et al. 2502.00203: a distance of the implicit from the true reward's preference."""
    h, d = beta * (yw.r - yl.r), eta * (yw.score - yl.score)
    return {
        "bwd_kl": kl(sigmoid(d), sigmoid(h)),
        "fwd_kl": kl(sigmoid(h), sigmoid(d)),
        "sq": (h - d) ** 2,
    }[variant]


@pair
def rebel(yw, yl, eta=1.0):
    """Gao et al. 2404.16767: (1 / eta (log-ratios' difference) - rewards' difference)^2, times eta^2."""
    return eta**2 * ((yw.r - yl.r) / eta - (yw.score - yl.score)) ** 2


@pair
def sppo(yw, yl, beta=1e-3):
    """Wu et al. 2405.00675: each log-ratio against eta (P - 1/2), eta = 1 / beta; the authors' code halves the sum."""
    eta = 1 / beta
    return 0.5 * ((yw.r - eta * (yw.win_rate - 0.5)) ** 2 + (yl.r - eta * (yl.win_rate - 0.5)) ** 2)


@pair
def mappo(yw, yl, beta=0.1):
    """Lan et al. 2507.21183, eq. 8: Delta_r = r_w - r_l in [0, 1]."""
    delta = min(1.0, max(0.0, yw.score - yl.score))
    return -log_sigmoid(beta * yw.r - delta * beta * yl.r)


@pair
def modpo(yw, yl, beta=0.1, w=0.5):
    """Zhou et al. 2310.03708: w = (w, 1 - w), the margin reward is `other_score`."""

    def reward(y: Completion) -> float:
        return (beta * y.r - (1 - w) * y.other_score) / w

    return -log_sigmoid(reward(yw) - reward(yl))


@pair
def qrpo(yw, yl, beta=3e-3, transform="identity"):
    """Matrenok et al. 2507.08068: the partition function of a uniform quantile, integrated by hand."""
    if transform == "identity":  # of e^(u / beta)
        log_z = math.log(beta) + 1 / beta + math.log1p(-math.exp(-1 / beta))
    else:  # of u^(1 / beta)
        log_z = -math.log(1 / beta + 1)
    g = {"identity": lambda u: u, "log": math.log}[transform]
    return 0.5 * math.fsum((g(y.quantile) - beta * log_z - beta * y.r) ** 2 for y in (yw, yl))


@pair
def safe_dpo(yw, yl, beta=0.1, delta=10.0):
    """Kim et al. 2505.20065, eqs. 11 and 12: the transformation T, then DPO with a safety margin."""
    if not yw.safe and not yl.safe:
        return 0.0
    if not yw.safe:
        yw, yl = yl, yw
    unsafe = (1 - yl.safe) - (1 - yw.safe)
    return -log_sigmoid(beta * yw.r - beta * yl.r - unsafe * delta)


@pair
def bfpo(yw, yl, beta=0.1, b1=3.0, alpha=0.5):
    """Zhang et al. 2408.15313: IPO against a global ranking of helpfulness and safety; b3 = 1 / (b1 - 1)."""
    b3 = 1 / (b1 - 1)
    return (yw.r - yl.r - (b1 * b3 * yw.safe - b3 * yl.safe - alpha) / beta) ** 2
