"""Lines on the progress of a run: its steps, in a log file, and its evaluations."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.training.records import set_names

EVERY = "ALIGNZOO_LOG_EVERY"
"""Variable with the number of steps between two lines."""
MOST_DIGITS = 18
"""Digits of that number. Python converts no text of thousands."""
MOST_LINES = 100
"""Lines of a run without that variable."""
FIRST = ("drawn", "reward", "preference_accuracy", "likelihood_accuracy", "loss", "margin")
"""Figures that an evaluation's line begins with, in this order."""
FIGURES = ("loss", "accuracy", "margin", "reward")
"""Figures of a step that a line has, as means over its steps."""


def log_interval(steps: int) -> int:
    """Return the number of steps between two lines of a run with this many.

    Raises:
        UserError: The variable ALIGNZOO_LOG_EVERY is no whole number above 0.
    """
    given = os.environ.get(EVERY, "")
    if not given:
        return max(1, -(-steps // MOST_LINES))
    if not given.isdecimal() or len(given) > MOST_DIGITS or int(given) < 1:
        raise UserError(f"{EVERY}: '{given:.40}' is no number of steps", where="environment", expected="at least 1")
    return int(given)


class StepLog:
    """Print a line for every few steps of a log file, and one for every evaluation.

    Args:
        screen: Where the lines are printed. On a terminal a bar shows the steps.
        label: First word of a step's line.
        steps: Steps of the run.
        rows: Rows of a step.
    """

    def __init__(self, screen: Screen, label: str, steps: int, rows: int) -> None:
        self._screen, self._label, self._steps, self._rows = screen, label, steps, rows
        self._every = log_interval(steps)
        self._first: int | None = None
        """Steps taken before the first one here, which began at `_began`."""
        self._reset()

    def _reset(self) -> None:
        self._count, self._seconds, self._slots = 0, 0.0, 0
        self._sums: dict[str, tuple[float, int]] = {}

    def step(self, done: int, metrics: Mapping[str, float], seconds: float, slots: int) -> None:
        """Add a step, the last of `done`, and print a line if one is due.

        Args:
            done: Steps taken.
            metrics: Figures of the step.
            seconds: Its time, without what was drawn for it.
            slots: Its token slots.
        """
        if not self._screen.logs:
            return
        if self._first is None:
            self._first, self._began = done - 1, time.monotonic() - seconds
        self._count, self._seconds, self._slots = self._count + 1, self._seconds + seconds, self._slots + slots
        for key in FIGURES:
            if key in metrics:
                total, count = self._sums.get(key, (0.0, 0))
                self._sums[key] = total + metrics[key], count + 1
        if done % self._every and done < self._steps:
            return
        words = [f"{key} {total / count:.4f}" for key, (total, count) in self._sums.items()]
        words.append(f"lr {metrics['learning_rate']:.3g}" if "learning_rate" in metrics else "")
        words.append(f"{self._count * self._rows / self._seconds:,.0f} rows/s")
        words.append(f"{self._slots / self._seconds:,.0f} tokens/s")
        left = (time.monotonic() - self._began) / (done - self._first) * (self._steps - done)
        words.append(f"eta {short_time(left)}")
        self._screen.event(f"{self._label} {done:,}/{self._steps:,}: {'  '.join(filter(None, words))}")
        self._reset()

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """Print the figures of an evaluation, on a terminal above the bar."""
        self._screen.event(evaluation_words(line))


def short_time(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def evaluation_words(line: Mapping[str, Any]) -> str:
    """Return an evaluation's line of metrics.jsonl in words, held-out rows first."""
    figures = {key: value for key, value in line.items() if key not in ("kind", "step")}
    parts = []
    for name in ("", *set_names(figures)):
        prefix = f"{name}/" if name else ""
        others = () if name else tuple(f"{one}/" for one in set_names(figures))
        own = {key.removeprefix(prefix): value for key, value in figures.items()
               if key.startswith(prefix) and not (others and key.startswith(others))}  # fmt: skip
        if words := _figures(own):
            parts.append(f"on {name}: {words}" if name else words)
    what = line["kind"] if line.get("kind") == "replies" else "evaluation"
    return f"{what} after step {line['step']:,}: {'; '.join(parts)}"


def _figures(own: Mapping[str, Any]) -> str:
    words = []
    for key in sorted(own, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST)):
        value = own[key]
        if key == "n" or (key.endswith("_se") and key.removesuffix("_se") in own) or not isinstance(value, int | float):
            continue
        error = own.get(f"{key}_se")
        name = key.removeprefix("preference_").replace("_", " ")
        words.append(f"{name} {value:.4g}" + (f" ± {error:.2g}" if isinstance(error, int | float) else ""))
    return ", ".join(words) + (f" (n {own['n']:,})" if "n" in own else "")
