"""Rollouts of a run for its page: a browser of draws, and plots of their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.colors import to_rgba

from alignzoo.core.errors import UserError
from alignzoo.evaluation.aggregate import Z
from alignzoo.report.svg import BLUE, GREEN, INK, RED, STYLE, inline, new_figure, style_axes, svg_document
from alignzoo.rollouts.browse import replies_of

T = TypeVar("T")
SHOWN, PROMPTS, CHARACTERS = 8, 4, 2_000
"""Rollouts in the browser, prompts of each, and characters of a text: a page stays small whatever the run."""
DRAWN = (
    ("rollout", "training", BLUE, "o"),
    ("eval", "held out", RED, "s"),
    ("replies", "held-out replies", GREEN, "D"),
)
"""Kind of line, label, color and marker in the plot of reward against KL."""
PLOTTED = 32
"""Rollouts in the plot of rewards by prompt."""


def browser(folder: Path, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return evenly spaced rollouts of a run.

    Each has some of its prompts and all of their draws, best first. Rollouts that are not on disk, or damaged, are left
    out.

    Args:
        folder: The run folder.
        lines: The lines of metrics.jsonl.
    """
    views = []
    for line, prompts in _read(folder, lines, SHOWN):
        figures = [(name, line[name]) for name in ("reward", "kl", "length") if name in line]
        shown = [_prompt(draws) for draws in spaced(prompts, PROMPTS)]
        views.append({"step": line["step"], "figures": figures, "prompts": shown, "more": len(prompts) - len(shown)})
    return views


def _prompt(draws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rewards = [draw["reward"] for draw in draws if draw["reward"] is not None]
    order = sorted(draws, key=lambda draw: (draw["reward"] is None, -(draw["reward"] or 0.0), draw["number"]))
    return {
        "id": draws[0]["row"], "prompt": _short(draws[0].get("prompt") or ""),
        "mean": sum(rewards) / len(rewards) if rewards else None,
        "draws": [draw | {"reply": _short(draw["reply"])} for draw in order],
    }  # fmt: skip


def plots(folder: Path, lines: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return (title, SVG) of reward against KL over the run, and of reward by prompt.

    A plot without figures is left out.
    """
    found = []
    if any("kl" in line and "reward" in line for line in lines if line["kind"] in ("rollout", "eval", "replies")):
        found.append(
            _drawn("reward against KL, from light to dark over the run", lambda axes: _against_kl(axes, lines))
        )
    by_prompt = [
        (line["step"], means)
        for line, prompts in _read(folder, lines, PLOTTED)
        if (means := [mean for draws in prompts if (mean := _prompt(draws)["mean"]) is not None])
    ]
    if by_prompt:
        found.append(_drawn("reward by prompt: all, middle half, median", lambda axes: _by_prompt(axes, by_prompt)))
    return found


def _against_kl(axes: Any, lines: Sequence[dict[str, Any]]) -> None:
    last = max(line["step"] for line in lines) or 1
    for kind, label, color, mark in DRAWN:
        known = [line for line in lines if line["kind"] == kind and {"kl", "reward"} <= set(line)]
        kept = spaced(known, 200)
        if not kept:
            continue
        kl, reward = ([line[name] for line in kept] for name in ("kl", "reward"))
        if kind != "rollout":
            axes.plot(kl, reward, color=color, linewidth=1, alpha=0.5)
        if kind == "replies":
            errors = [[Z * line.get(f"{name}_se", 0.0) for line in kept] for name in ("kl", "reward")]
            axes.errorbar(kl, reward, xerr=errors[0], yerr=errors[1], fmt="none", ecolor=color, alpha=0.3, linewidth=1)
        shades = [to_rgba(color, 1 - 0.8 * (1 - line["step"] / last)) for line in kept]
        axes.scatter(kl, reward, color=shades, s=14, marker=mark, linewidths=0)
        axes.plot([], [], color=color, linestyle="none", marker=mark, markersize=4, label=label)  # for the legend
    axes.set_xlabel("KL(policy || reference) of a completion, nats", color=INK)
    axes.set_ylabel("reward", color=INK)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def _by_prompt(axes: Any, found: Sequence[tuple[int, Sequence[float]]]) -> None:
    steps = [step for step, _ in found]
    low, first, middle, third, high = np.array([np.quantile(means, (0, 0.25, 0.5, 0.75, 1)) for _, means in found]).T
    axes.fill_between(steps, low, high, color=BLUE, alpha=0.12, linewidth=0)
    axes.fill_between(steps, first, third, color=BLUE, alpha=0.3, linewidth=0)
    axes.plot(steps, middle, color=BLUE, linewidth=1.4, marker="o", markersize=3)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("mean of a prompt's draws", color=INK)


def _drawn(title: str, draw: Any) -> tuple[str, str]:
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.6, 2.9)
        draw(style_axes(figure.add_subplot()))
        return title, inline(svg_document(figure), title)


def _read(
    folder: Path, lines: Sequence[dict[str, Any]], most: int
) -> list[tuple[dict[str, Any], list[list[dict[str, Any]]]]]:
    """Return at most `most` rollouts: the line of each, and the draws of each prompt."""
    found = []
    for line in spaced([line for line in lines if line["kind"] == "rollout"], most):
        try:
            replies = replies_of(folder, line["rollout"])
        except UserError:
            continue
        prompts: list[list[dict[str, Any]]] = []
        for reply in replies:  # a prompt may be there twice, so that rows' ids do not tell prompts apart
            if reply["number"] == 0 or not prompts:
                prompts.append([])
            prompts[-1].append(reply)
        found.append((line, prompts))
    return found


def spaced(items: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of some items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} ..."
