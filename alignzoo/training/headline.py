"""The headline of a run: its figures before and after training, in words of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.interfaces.objective import Objective

BEFORE = ("loss", "preference_accuracy", "likelihood_accuracy", "reward")
"""Figures of the first evaluation that stand beside those of the last one."""
LOG_PROB, IMPLICIT_REWARD, SCORE = "log-prob", "implicit reward", "reward model's score"
"""What orders the completions for the accuracy."""
ACCURACY, AUC = "held-out accuracy", "held-out AUC"
ROWS = {
    "pairs": (ACCURACY, "{n} pairs"),
    "lists": (ACCURACY, "{n} ranked lists, all pairs of completions in a list"),
    "labels": (AUC, "{n} labeled completions, all pairs of a desirable and an undesirable one"),
}
"""Kind of rows -> name of the accuracy, and the rows in words."""


@dataclass(frozen=True, slots=True)
class HeadlineFigure:
    """A figure after training, and before it where that is known."""

    key: str
    label: str
    after: float | None
    before: float | None = None
    error: float | None = None
    """Standard error of `after`."""
    about: str = ""
    """The rows that it is of, and how it is defined."""

    @property
    def words(self) -> str:
        """The figure in a line: `0.500 before training, 0.562 after ± 0.088 (32 pairs, ...)`."""
        after = "none" if self.after is None else f"{self.after:.3f}"
        text = after if self.before is None else f"{self.before:.3f} before training, {after} after"
        text += "" if self.error is None else f" ± {self.error:.3f}"
        return f"{text} ({self.about})" if self.about else text


def accuracy_of(objective: Objective, lengths: Mapping[str, Any]) -> dict[str, str]:
    """Return what an accuracy is of: `rows`, and `by`, the number that orders them.

    Args:
        objective: The run's objective. Its first term has the implicit reward.
        lengths: Lengths of data.json, by the name of the completion.
    """
    term = objective.terms[0][1]
    without = term.data == "chosen" and term.reference == "none"
    return {
        "rows": kind_of_rows(lengths),
        "by": SCORE if term.head == "scalar" else LOG_PROB if without else IMPLICIT_REWARD,
    }


def kind_of_rows(lengths: Mapping[str, Any]) -> str:
    """Return the kind of rows, by the names of their completions.

    It is `pairs`, `lists`, `labels` or `completions`, and `rows` for several kinds.
    """
    names = set(lengths) - {"prompt"}
    kinds = {
        "pairs": "rejected" in names,
        "lists": any(name.startswith("rank_") for name in names),
        "labels": bool(names & {"desirable", "undesirable"}),
        "completions": "chosen" in names and "rejected" not in names,
    }
    found = [kind for kind, there in kinds.items() if there]
    return found[0] if len(found) == 1 else "rows"


def with_start(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of the last evaluation, and `KEY_before` of the first one.

    Without any evaluation there are none.
    """
    if not evaluations:
        return {}
    first, last = evaluations[0], evaluations[-1]
    found = {key: value for key, value in last.items() if key not in ("kind", "step")}
    return found | {f"{key}_before": first[key] for key in first if key.rpartition("/")[2] in BEFORE}


def headline(scores: Mapping[str, Any], of: Mapping[str, str]) -> list[HeadlineFigure]:
    """Return the figures of a run's headline, most important first.

    That is the reward of held-out draws for training on draws, the loss for supervised fine-tuning, and for rows with
    several completions or labels the accuracy, with the accuracy by likelihood beside it.

    Args:
        scores: Figures of an evaluation, as of `with_start`.
        of: What an accuracy is of: see `accuracy_of`. An unfinished run has no `by`.
    """
    by, n = of.get("by") or _by(scores), scores.get("n", 0)
    found: list[HeadlineFigure] = []

    def add(key: str, label: str, about: str = "") -> None:
        if key in scores:
            after, before, error = (scores.get(f"{key}{end}") for end in ("", "_before", "_se"))
            found.append(HeadlineFigure(key, label, after, before, error, about))

    if "drawn" in scores:
        add("reward", "reward of held-out draws", f"{scores['drawn']:,.0f} prompts")
    if by == LOG_PROB:
        add("loss", "held-out loss", f"{n:,} rows")
    label, rows = ROWS.get(of.get("rows", ""), (ACCURACY, "{n} rows"))
    add("preference_accuracy", label, f"{rows.format(n=f'{n:,}')}, by the {by}; a tie counts one half")
    if by == IMPLICIT_REWARD and "preference_accuracy" in scores:
        add("likelihood_accuracy", "by likelihood")
    return found


def _by(scores: Mapping[str, Any]) -> str:
    """Return what orders completions, from their figures.

    An implicit reward may be the log-prob itself.
    """
    reward, log_prob = (scores.get(f"chosen_{name}") for name in ("reward", "log_prob"))
    return LOG_PROB if reward is not None and reward == log_prob else IMPLICIT_REWARD
