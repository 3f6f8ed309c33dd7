"""Log-ratios per token."""

from __future__ import annotations

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.modifier import Modifier


class LengthNormalization(Modifier):
    """Length normalization: each log-ratio divided by its completion's length."""

    name = "length_normalization"
    source = "Ahrabian et al. 2024 (LN-DPO), arXiv:2407.15229"
    equation = "log_ratio(y) / |y| in place of log_ratio(y)"
    reference = "sequence"

    def scored(self, scored: Scored) -> Scored:
        """Return the completions with log-ratios per token."""
        return scored.with_log_ratio(scored.log_ratio / scored.length)
