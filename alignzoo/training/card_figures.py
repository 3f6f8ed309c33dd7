"""Figures of a run for its model card, with 95% intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from alignzoo.evaluation.aggregate import Z
from alignzoo.training.records import set_names

TITLES = {
    "preference_accuracy": "accuracy by implicit rewards",
    "likelihood_accuracy": "accuracy by likelihood",
    "margin": "mean margin of implicit rewards",
    "loss": "loss",
}
SHARES = ("preference_accuracy", "likelihood_accuracy")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the last evaluation."""

    name: str
    title: str
    kind: str
    """Its type in the hub's terms: accuracy, loss, win_rate, or its own name."""
    after: float
    count: int | None
    """Rows that it is a mean over."""
    before: float | None = None
    interval: tuple[float, float] | None = None
    dataset: str = ""
    """Name of the evaluation set, or "" for the held-out rows."""

    @property
    def cells(self) -> list[str]:
        """The row of a table: title, rows, before training, after it, interval."""
        before = "" if self.before is None else f"{self.before:.4g}"
        interval = f"{self.interval[0]:.4g} to {self.interval[1]:.4g}" if self.interval else ""
        return [self.title, "" if self.count is None else f"{self.count:,}", before, f"{self.after:.4g}", interval]


def card_figures(summary: dict[str, Any]) -> list[Figure]:
    """Return the figures in a finished run's summary.json.

    They are of the held-out rows, of evaluation sets, and of judges.
    """
    found = []
    scores = summary.get("eval", {})
    for name in ("", *set_names(scores)):
        own = {key.removeprefix(f"{name}/"): value for key, value in scores.items() if name in ("", key.split("/")[0])}
        found += _of_set({key: value for key, value in own.items() if "/" not in key}, name)
    for judge, figures in summary.get("judges", {}).items():
        found += _of_judge(judge, figures)
    return found


def _of_set(scores: dict[str, Any], dataset: str) -> list[Figure]:
    count = scores.get("n")
    metrics = [key.removesuffix("_se") for key in scores if key.endswith("_se")]
    names = dict.fromkeys([*TITLES, *metrics])
    return [
        Figure(
            name, f"{TITLES.get(name, name.replace('_', ' '))}{f', on {dataset}' if dataset else ''}",
            "accuracy" if name in SHARES else name, scores[name], count, scores.get(f"{name}_before"),
            _interval(scores[name], scores.get(f"{name}_se"), count, share=name in SHARES), dataset,
        )
        for name in names if _known(scores.get(name))
    ]  # fmt: skip


def _of_judge(judge: str, figures: dict[str, Any]) -> list[Figure]:
    found = []
    for name in ("reward", "win_rate_over_start", "win_rate_over_chosen"):
        if _known(figures.get(name)):
            count, error, rate = figures.get(f"{name}_n"), figures.get(f"{name}_se"), name != "reward"
            found.append(Figure(
                f"{judge}/{name}", f"{name.replace('_', ' ')}, by the judge {judge}", "win_rate" if rate else name,
                figures[name], count, None if rate else figures.get("reward_before"),
                _interval(figures[name], error, count, share=rate),
            ))  # fmt: skip
    return found


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _interval(mean: float, error: Any, count: Any, share: bool) -> tuple[float, float] | None:
    """Return the 95% interval of a mean from its standard error; None where that is unknown.

    That of a share is Wilson's (1927) at the effective sample size p (1 - p) / error^2 (Korn and Graubard 1998).
    """
    if not _known(error) or not _known(count) or not count:
        return None
    if not share:
        return mean - Z * error, mean + Z * error
    n = mean * (1 - mean) / error**2 if error and 0 < mean < 1 else count
    center = (mean + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(mean * (1 - mean) / n + Z**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)
