"""A run's metrics as SVG panels that are legible on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from alignzoo.evaluation.aggregate import Z
from alignzoo.report.svg import BLUE, GRAY, GREEN, INK, RED, STYLE, inline, new_figure, style_axes, svg_document
from alignzoo.training.headline import LOG_PROB
from alignzoo.training.records import set_names

Line = tuple[str, str, str, str]
"""(kind of metrics line, key, label, color)"""

GOLD = "#c98a1b"
PANELS: tuple[tuple[str, tuple[Line, ...]], ...] = (
    ("loss", (("train", "loss", "training", BLUE), ("eval", "loss", "held out", RED))),
    ("preference accuracy", (
        ("train", "accuracy", "training", BLUE), ("eval", "preference_accuracy", "held out", RED),
        ("eval", "likelihood_accuracy", "held out, plain likelihood", GRAY),
    )),
    ("margin", (("train", "margin", "training", BLUE), ("eval", "margin", "held out", RED))),
    ("rewards", (("train", "chosen_reward", "chosen", GREEN), ("train", "rejected_reward", "rejected", RED))),
    ("reward of draws", (
        ("rollout", "reward", "training", BLUE), ("eval", "reward", "held out", RED),
        ("replies", "reward", "held-out replies", GREEN),
    )),
    ("KL to the reference, in nats", (
        ("rollout", "kl", "training", BLUE), ("eval", "kl", "held out", RED),
        ("eval", "kl_sampled", "held out, sampled", GRAY), ("replies", "kl", "held-out replies", GREEN),
        ("replies", "kl_sampled", "held-out replies, sampled", GOLD),
    )),
    ("entropy of a token of draws, in nats", (
        ("rollout", "entropy", "training", BLUE), ("eval", "entropy", "held out", RED),
    )),
    ("length of draws", (
        ("rollout", "length", "training", BLUE), ("eval", "length", "held out", RED),
        ("replies", "length", "held-out replies", GREEN),
    )),
    ("share of held-out replies that are finished", (("replies", "finished", "", GREEN),)),
    ("log-ratio to the reference", (
        ("train", "chosen_log_ratio", "chosen", GREEN), ("train", "rejected_log_ratio", "rejected", RED),
    )),
    ("log-prob", (("train", "chosen_log_prob", "chosen", GREEN), ("train", "rejected_log_prob", "rejected", RED))),
    ("value loss, before clipping", (("train", "value_error", "training", RED),)),
    ("variance of returns that the critic explains", (("rollout", "explained_variance", "training", RED),)),
    ("share of tokens clipped", (("train", "clipped", "policy", BLUE), ("train", "value_clipped", "critic", RED))),
    ("KL from the policy that drew, in nats a token", (("train", "approx_kl", "training", BLUE),)),
    ("KL coefficient", (("rollout", "state_beta", "", GRAY),)),
    ("gradient norm", (
        ("train", "grad_norm", "before clipping", BLUE), ("train", "critic_grad_norm", "of the critic", RED),
    )),
    ("nats per token from the model's own forward", (("exactness", "difference", "", GRAY),)),
    ("learning rate", (("train", "learning_rate", "", GRAY),)),
)  # fmt: skip
SETS = (GREEN, "#8e6bbf", GOLD, "#3aa6a6")
"""Colors of evaluation sets, and of judges."""
OF_JUDGES = (("reward_", "reward of held-out replies, by judge"),
             ("win_rate_over_chosen_", "win rate of held-out replies over the chosen completion"))  # fmt: skip
"""Beginning of a judge's figure of sampled replies, and the title of its panel."""
EVALUATED = ("eval", "replies")
"""Kinds of lines whose points are few, and have standard errors."""
SIDES = {"labels": ("desirable", "undesirable"), "lists": ("best", "worst")}
"""Kind of rows -> words for `chosen` and `rejected`, which are means over the two sides."""
POINTS = 400
"""Most points of a curve that are drawn, which keeps the page of a long run small."""


def panels(lines: Sequence[dict[str, Any]], of: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Return (title, SVG) of every panel that has data.

    Args:
        lines: Lines of metrics.jsonl.
        of: What an accuracy is of, as `accuracy_of` of summary.json.
    """
    drawn = []
    for title, wanted in [*with_sets(_named(of or {}), lines), *_of_judges(lines)]:
        curves = [(label, color, kind, _points(lines, kind, key)) for kind, key, label, color in wanted]
        curves = [curve for curve in curves if curve[3]]
        if curves:
            drawn.append((title, _draw(title, curves)))
    return drawn


def _of_judges(lines: Sequence[dict[str, Any]]) -> list[tuple[str, tuple[Line, ...]]]:
    """Return the panels of sampled replies by judge: rewards of several judges, and wins."""
    keys = dict.fromkeys(key for line in lines if line.get("kind") == "replies" for key in line)
    found = []
    for start, title in OF_JUDGES:
        names = [key.removeprefix(start) for key in keys if key.startswith(start) and not key.endswith("_se")]
        if len(names) > 1 or start != "reward_":  # a single judge's reward is that of the draws
            curves = ((f"{start}{name}", name, SETS[n % len(SETS)]) for n, name in enumerate(names))
            found.append((title, tuple(("replies", key, name, color) for key, name, color in curves)))
    return found


def _named(of: Mapping[str, str]) -> list[tuple[str, tuple[Line, ...]]]:
    """Return the panels in words that fit the rows of a run."""
    sides = dict(zip(("chosen", "rejected"), SIDES.get(of.get("rows", ""), ("chosen", "rejected")), strict=True))
    titles = {"preference accuracy": "area under the ROC curve"} if of.get("rows") == "labels" else {}
    same = {"likelihood_accuracy"} if of.get("by") == LOG_PROB else set()
    return [
        (titles.get(title, title), tuple((kind, key, sides.get(label, label), color)
                                         for kind, key, label, color in wanted if key not in same))
        for title, wanted in PANELS
    ]  # fmt: skip


def with_sets(
    panels: Sequence[tuple[str, tuple[Line, ...]]], lines: Sequence[dict[str, Any]]
) -> list[tuple[str, tuple[Line, ...]]]:
    """Return the panels with a curve of each evaluation set, beside that of the held-out rows."""
    names = dict.fromkeys(name for line in lines if line.get("kind") == "eval" for name in set_names(line))
    found = []
    for title, wanted in panels:
        key = next((key for kind, key, _, _ in wanted if kind == "eval"), None)
        sets = [("eval", f"{name}/{key}", name, SETS[n % len(SETS)]) for n, name in enumerate(names)] if key else []
        found.append((title, (*wanted, *sets)))
    return found


def _points(lines: Sequence[dict[str, Any]], kind: str, key: str) -> list[tuple[float, float, float]]:
    """Return (step, value, error) of a figure; errors of sampled replies alone, else 0."""
    error = f"{key}_se" if kind == "replies" else ""
    found = [
        (line["step"], line[key], line.get(error, 0)) for line in lines if line.get("kind") == kind and key in line
    ]
    return [point for point in found if all(isinstance(one, int | float) and math.isfinite(one) for one in point)]


def _draw(title: str, curves: list[tuple[str, str, str, list[tuple[float, float, float]]]]) -> str:
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.6, 2.7)
        axes = style_axes(figure.add_subplot())
        for label, color, kind, points in curves:
            _curve(axes, points, kind, label, color)
        axes.set_xlabel("step", color=INK)
        if any(label for label, *_ in curves):
            axes.legend(frameon=False, labelcolor=INK, fontsize=8)
        return inline(svg_document(figure), title)


def _curve(axes: Any, points: list[tuple[float, float, float]], kind: str, label: str, color: str) -> None:
    steps, values, errors = ([point[n] for point in points] for n in range(3))
    if kind in EVALUATED:
        axes.plot(steps, values, color=color, label=label, marker="o", markersize=3.5, linewidth=1.2)
        if any(errors):
            low, high = (
                [value + side * error for value, error in zip(values, errors, strict=True)] for side in (-Z, Z)
            )
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        return
    width = max(1, len(values) // 25) if label else 1  # curves without a label are settings, which need no smoothing
    smooth = [sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]
    keep = (
        sorted({round(i * (len(values) - 1) / (POINTS - 1)) for i in range(POINTS)})
        if len(values) > POINTS
        else range(len(values))
    )
    if width > 1:
        axes.plot([steps[i] for i in keep], [values[i] for i in keep], color=color, alpha=0.22, linewidth=0.8)
    axes.plot([steps[i] for i in keep], [smooth[i] for i in keep], color=color, label=label, linewidth=1.6)
