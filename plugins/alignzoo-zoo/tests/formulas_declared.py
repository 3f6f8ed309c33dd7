"""The papers' losses that need ties, named references or a third completion, in plain float arithmetic."""

from __future__ import annotations

import math

from notation import log_sigmoid, pair, ranked, single, tied

# Ties


@tied
def dpo_rk(yw, yl, tie, beta=0.1, nu=3.0):
    """Chen et al. 2409.17431: strengths e^{beta r}; a win needs nu times the other's strength."""
    w, x = math.exp(beta * yw.r), math.exp(beta * yl.r)
    return -math.log((nu**2 - 1) * w * x / ((w + nu * x) * (x + nu * w)) if tie else w / (w + nu * x))


@tied
def dpo_d(yw, yl, tie, beta=0.1, nu=1.0):
    """Chen et al. 2409.17431: the geometric mean of the strengths, 2 nu times, is a tie's share."""
    w, x = math.exp(beta * yw.r), math.exp(beta * yl.r)
    both = 2 * nu * math.sqrt(w * x)
    return -math.log((both if tie else w) / (w + x + both))


@tied
def todo(yw, yl, tie, beta=0.01, alpha=0.5):
    """Guo et al. 2411.02442, with mu = beta h."""
    mu = beta * (yw.r - yl.r)
    if tie:
        return -math.log(math.expm1(2 * alpha) / ((1 + math.exp(mu + alpha)) * (1 + math.exp(alpha - mu))))
    return -log_sigmoid(mu - alpha)


@tied
def bradley_terry_ties(yw, yl, tie, model="rao_kupper", p=0.5, centering=0.01):
    """Liu et al. 2410.05328; the strength of a completion is e^s, and p the share of ties at equal strengths."""
    w, x = math.exp(yw.scalar), math.exp(yl.scalar)
    if model == "rao_kupper":
        nu = 2 / (1 - p) - 1
        found = (nu**2 - 1) * w * x / ((w + nu * x) * (nu * w + x)) if tie else w / (w + nu * x)
    else:
        nu = 1 / (1 / p - 1)
        found = (2 * nu * math.sqrt(w * x) if tie else w) / (w + x + 2 * nu * math.sqrt(w * x))
    return -math.log(found) + centering * (yw.scalar + yl.scalar) ** 2


# Named references


@pair
def tgdpo(yw, yl, beta=0.1, alpha=0.5):
    """Zhu et al. 2506.14574: token rewards beta log(pi_guide / pi_ref) raise the weights of y_w and lower y_l's."""

    def weighted(y, sign):
        rewards = [beta * (guide - ref) for guide, ref in zip(y.refs["guide"], y.ref_tokens, strict=True)]
        return math.fsum(beta * (1 + sign * alpha * g) * r for g, r in zip(rewards, y.ratios, strict=True))

    return -log_sigmoid(weighted(yw, 1) - weighted(yl, -1))


@pair
def tis_dpo(yw, yl, beta=0.1, limit=1.5, spread=0.3):
    """Liu et al. 2410.04350, weights of the authors' code: clamped, then scaled to 1 - spread..1 + spread."""

    def weighted(y, sign):
        gaps = [sign * (a - b) for a, b in zip(y.refs["positive"], y.refs["negative"], strict=True)]
        low, high = 1 - spread, 1 + spread
        weights = [low + (max(-limit, min(limit, gap)) + limit) * (high - low) / (2 * limit) for gap in gaps]
        return math.fsum(w * r for w, r in zip(weights, y.ratios, strict=True))

    return -log_sigmoid(beta * (weighted(yw, 1) - weighted(yl, -1)))


# Triples


@ranked
def tpo(ys, beta=0.01, alpha=1.0):
    """Saeidi et al. 2405.16681: gold, preferred, ..., rejected."""
    return -log_sigmoid(beta * (ys[1].logp - ys[-1].logp)) + alpha * -ys[0].mean


@ranked
def tpo_l(ys, beta=0.01, gamma=0.5, alpha=1.0):
    """Saeidi et al. 2405.16681, TPO-L."""
    return -log_sigmoid(beta * (ys[1].mean - ys[-1].mean) - gamma) + alpha * -ys[0].mean


# Reward models of labels and of several outputs


@single
def process_reward(y, desirable):
    """Uesato et al. 2211.14275: cross-entropy of two classes whose logits are s and 0."""
    right = math.exp(y.scalar) / (math.exp(y.scalar) + 1)
    return -math.log(right if desirable else 1 - right)


@ranked
def attribute_regression(ys, attributes=("helpfulness", "correctness", "coherence", "complexity", "verbosity")):
    """Wang et al. 2311.09528: squared errors of all ratings of a prompt's completions."""
    return math.fsum((y.outputs[a] - y.columns[a]) ** 2 for y in ys for a in attributes) / len(ys) / len(attributes)
