"""Objectives whose reference runs beside the policy: token-level KL, its entropy, and a moving reference."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair


class TDPO1(Objective):
    """TDPO1: token-level DPO, with the difference of both KL sums subtracted from h.

    When: the KL divergence of both completions should be balanced at every token.

    Not when: memory is short: the reference runs beside the policy.
    """

    name = "tdpo1"
    family = "live reference"
    source = "Zeng et al. 2024, arXiv:2404.11999 (TDPO_1)"
    equation = "-log sigmoid(beta (h - (D_l - D_w))), with D(y) = sum_t KL(ref || pi) at each token"
    reference = "live"
    tokens = True
    statistics = ("forward_kl",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = (one.tokens.sum(one.tokens.forward_kl) for one in (pair.chosen, pair.rejected))
        return -logsigmoid(self.beta * (pair.margin - (rejected - chosen)))


class TDPO2(Objective):
    """TDPO2: TDPO1 with a weight on the KL term and no gradient through the chosen KL.

    When: as `tdpo1`, with a weight and without pulling on the chosen side.

    Not when: memory is short: the reference runs beside the policy.
    """

    name = "tdpo2"
    family = "live reference"
    source = "Zeng et al. 2024, arXiv:2404.11999 (TDPO_2)"
    equation = "-log sigmoid(beta (h - alpha (D_l - stop_gradient(D_w)))), with D(y) = sum_t KL(ref || pi)"
    reference = "live"
    tokens = True
    statistics = ("forward_kl",)
    stop_gradient = "no gradient goes through the KL of the chosen completion, as in the paper"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(0.5, ge=0, description="weight of the KL difference; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = (one.tokens.sum(one.tokens.forward_kl) for one in (pair.chosen, pair.rejected))
        return -logsigmoid(self.beta * (pair.margin - self.alpha * (rejected - chosen.detach())))


class MallowsPO(Objective):
    """MallowsPO: DPO or IPO with each pair's margin scaled by a dispersion, high where the reference is sure.

    The dispersion comes from the entropies of the reference, a mean over the tokens of each completion, as in the
    authors' code (haoxian-chen/MallowsPO), which this was compared with. The default c is the code's. How the paper
    chooses it was not read: presumably so that the dispersions' mean is 1.

    When: some prompts have one good answer and others many.

    Not when: memory is short: the reference runs beside the policy.
    """

    name = "mallows_po"
    family = "live reference"
    source = "Chen et al. 2024, arXiv:2405.14953 (MallowsPO-theta)"
    equation = (
        "f(phi h), phi = -c log((H_w + H_l) / 2), with f(z) = -log sigmoid(beta z) or (z - 1 / (2 beta))^2, and H the "
        "mean entropy of the reference's tokens over log V"
    )
    reference = "live"
    tokens = True
    statistics = ("ref_normalized_entropy",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    c: float = Field(0.29, gt=0, description="scale of the dispersion, such that its mean is near 1")
    link: Literal["logistic", "square"] = Field("logistic", description="f: DPO's or IPO's")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = (one.tokens.mean(one.tokens.ref_normalized_entropy) for one in (pair.chosen, pair.rejected))
        scaled = -self.c * ((chosen + rejected) / 2).log() * pair.margin
        return -logsigmoid(self.beta * scaled) if self.link == "logistic" else (scaled - 0.5 / self.beta) ** 2


class TRDPO(Objective):
    """TR-DPO: DPO with a reference that moves toward the policy during training.

    When: long runs, in which a fixed reference holds the policy back.

    Not when: the KL divergence from the start must stay bounded, or with LoRA.
    """

    name = "tr_dpo"
    family = "moving reference"
    source = "Gorbatovski et al. 2024, arXiv:2404.09656, section 3"
    equation = "-log sigmoid(beta h); every few steps: ref = alpha pi + (1 - alpha) ref, weight by weight"
    reference = "moving"

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint")
    alpha: float = Field(
        0.6, gt=0, le=1, description="share of the policy in the updated reference; 1 is the paper's hard update"
    )
    every: int = Field(512, ge=1, description="optimizer steps between updates; short runs need fewer")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * pair.margin)

    def reference_update(self, step: int) -> float:
        """Return alpha in every update step, else 0."""
        return self.alpha if step % self.every == 0 else 0.0


class BEMADPO(Objective):
    """BEMA: DPO against a bias-corrected moving average of the policy.

    The correction adds a share of the policy's distance from its start, which an average lags behind. The defaults are
    those of TRL. As in TRL, the average moves only in the steps in which the reference does.

    When: as `tr_dpo`, with an average that does not lag behind.

    Not when: memory is short: two more copies of the weights, or with LoRA.
    """

    name = "bema_dpo"
    family = "moving reference"
    source = "Block and Zhang 2025, arXiv:2508.00180"
    equation = (
        "-log sigmoid(beta h); every few steps t: A = A + b (pi - A), ref = A + a (pi - pi_0), weight by weight, "
        "a = (lag + gamma t)^-eta, b = (lag + gamma t)^-kappa"
    )
    reference = "moving"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    every: int = Field(400, ge=1, description="optimizer steps between updates; short runs need fewer")
    kappa: float = Field(0.5, ge=0, description="power of the average's share b")
    eta: float = Field(0.2, gt=0, description="power of the correction a")
    lag: float = Field(10.0, ge=1, description="offset of the steps (the paper's rho)")
    gamma: float = Field(1.0, gt=0, description="factor of the steps")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * pair.margin)

    def reference_update(self, step: int) -> float:
        """Return b in every update step, else 0."""
        return self._power(step, self.kappa) if step % self.every == 0 else 0.0

    def reference_correction(self, step: int) -> float:
        """Return a."""
        return self._power(step, self.eta)

    def _power(self, step: int, power: float) -> float:
        return float((self.lag + self.gamma * step) ** -power)


TOKENWISE = [TDPO1, TDPO2, MallowsPO, TRDPO, BEMADPO]
