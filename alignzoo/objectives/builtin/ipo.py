"""Identity Preference Optimization."""

from typing import Literal

from torch import Tensor

from alignzoo.interfaces.loss_inputs import Pair, Scored
from alignzoo.interfaces.objective import Field, Objective


class IPO(Objective):
    """Identity Preference Optimization: a squared loss that drives h to 1 / (2 beta).

    Two losses share this name. The paper sums log-ratios over tokens (`log_ratio: sum`, the default). TRL, HALOs and
    LLaMA-Factory divide each log-ratio by its completion's length (`log_ratio: mean`). The two need different betas.

    When: pairs that are labeled without doubt, where DPO drives margins without end.

    Not when: margins differ in truth: every pair is driven to the same one.
    """

    name = "ipo"
    family = "link functions"
    source = "Azar et al. 2023, arXiv:2310.12036, equation 17"
    equation = "(h - 1 / (2 beta))^2"

    beta: float = Field(0.1, gt=0, description="the paper's tau: the margin is driven to 1 / (2 beta)")
    log_ratio: Literal["sum", "mean"] = Field("sum", description="sum: the paper's h; mean: log-ratios per token")

    @property
    def already_applies(self) -> tuple[str, ...]:  # type: ignore[override]
        """Length normalization, with `log_ratio: mean`."""
        return ("length_normalization",) if self.log_ratio == "mean" else ()

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        h = self._log_ratio(pair.chosen) - self._log_ratio(pair.rejected)
        return (h - 1 / (2 * self.beta)) ** 2

    def _log_ratio(self, scored: Scored) -> Tensor:
        return scored.log_ratio if self.log_ratio == "sum" else scored.log_ratio / scored.length
