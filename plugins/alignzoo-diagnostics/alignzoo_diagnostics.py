"""Metrics of the effect of preference training on rankings and likelihoods."""

import torch

from alignzoo import Field, Metric, Objective, Pair, hookimpl, ties


class Flipped(Metric):
    """Fraction of pairs that the reference ranks wrongly by likelihood and the policy rightly."""

    name = "flipped"
    source = "Chen et al. 2024, arXiv:2405.19534, section 4"
    equation = "[log ref_w <= log ref_l and log pi_w > log pi_l]"
    reference = "sequence"

    def values(self, example: Pair, objective: Objective):
        """Return 1 for a flip, 0.5 for a flip from or to a tie, else 0, shape (B,)."""
        chosen, rejected = example.chosen, example.rejected
        before = ties.wins(chosen.ref_log_prob, rejected.ref_log_prob, example.tolerance)
        return (ties.wins(chosen.log_prob, rejected.log_prob, example.tolerance) - before).clamp(min=0)


class Displaced(Metric):
    """Fraction of pairs whose chosen completion is less likely than under the reference."""

    name = "displaced"
    source = "Razin et al. 2024, arXiv:2410.08847"
    equation = "[log pi_w < log ref_w]"
    reference = "sequence"

    def values(self, example: Pair, objective: Objective):
        """Return 1 where the chosen completion is less likely, 0.5 for a tie, else 0, shape (B,)."""
        ratio = example.chosen.log_ratio
        return ties.wins(-ratio, 0 * ratio, example.chosen.tolerance)


class RewardLengthGap(Metric):
    """Reward margin times the sign of the length difference, positive for a length bias."""

    name = "reward_length_gap"
    source = "Park et al. 2024, arXiv:2403.19159"
    equation = "(r_w - r_l) sign(|y_w| - |y_l|)"
    reference = "sequence"

    def values(self, example: Pair, objective: Objective):
        """Return the signed margin, shape (B,); NaN for completions of equal length."""
        longer = (example.chosen.length - example.rejected.length).sign().double()
        gap = (objective.implicit_reward(example.chosen) - objective.implicit_reward(example.rejected)) * longer
        return gap.masked_fill(longer == 0, torch.nan)


class CHES(Metric):
    """Centered hidden embedding similarity of a pair: high where training lowers the chosen likelihood too.

    Before the first step it is that of the paper, whose filter drops the pairs with the highest scores. H is the sum of
    the last layer's states that predict the tokens of a completion.
    """

    name = "ches"
    source = "Razin et al. 2024, arXiv:2410.08847, definition 2"
    equation = "<H_w, H_l> - |H_w|^2; normalized: <H_w, H_l> / (|y_w| |y_l|) - |H_w|^2 / |y_w|^2"
    hidden_sum = True

    normalized: bool = Field(False, description="divide each H by the length of its completion")

    def values(self, example: Pair, objective: Objective):
        """Return the score of each pair, shape (B,)."""
        chosen, rejected = (
            (one.hidden_sum / one.length[:, None] if self.normalized else one.hidden_sum).double()
            for one in (example.chosen, example.rejected)
        )
        return (chosen * (rejected - chosen)).sum(1)


@hookimpl
def register_metrics():
    return [Flipped, Displaced, RewardLengthGap, CHES]
