"""Supervised fine-tuning on the chosen completions."""

from typing import Literal

from torch import Tensor

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Field, Objective


class SFT(Objective):
    """Supervised fine-tuning on the chosen completions (Preferred-FT in the DPO paper).

    When: before preference training, or as a term that holds the chosen likelihood up.

    Not when: the rejected completions should count.
    """

    name = "sft"
    family = "reference-free"
    source = "Rafailov et al. 2023, arXiv:2305.18290, section 6 (Preferred-FT)"
    equation = "-log pi(y_chosen | x), over the tokens of the whole global batch (or over its sequences)"
    data = "chosen"
    reference = "none"

    reduction: Literal["token", "sequence"] = Field(
        "token", description="mean over tokens, or over sequences of sums over tokens (as in the DPO authors' code)"
    )

    def loss(self, chosen: Scored) -> Tensor:
        """Return the negative log-likelihood of each completion, EOS included, shape (B,)."""
        return -chosen.log_prob

    def weight(self, chosen: Scored) -> Tensor:
        """Return token counts, or ones for a mean over sequences, shape (B,)."""
        return chosen.length if self.reduction == "token" else super().weight(chosen)
