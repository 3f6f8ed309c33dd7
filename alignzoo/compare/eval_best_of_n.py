"""Best-of-N accuracy of a finished run's rewards, by subset, as RewardBench 2 reports it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.compare.columns import Column
from alignzoo.compare.completion_scores import score_completions
from alignzoo.compare.eval_run import Evaluation, as_figure, describe, figure_of, open_evaluation
from alignzoo.compare.scales import SHARE
from alignzoo.compare.statistics import Interval
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.data.convert import with_columns
from alignzoo.data.row_reader import RowReader, of_set
from alignzoo.data.tokenize import tokenize
from alignzoo.data.trees import Trees
from alignzoo.evaluation.aggregate import Z
from alignzoo.evaluation.best_of_n import TIES, Rated, ties_parts, ties_score
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.rows import Completion, Row
from alignzoo.training.open_finished import FinishedPolicy

ALL, OVERALL = "all", "overall"
"""The subset of rows that name none, and the mean over subsets."""
Figures = dict[str, dict[str, Any]]


def evaluate_best_of_n(folder: Path, asked: Evaluation, screen: Screen) -> dict[str, Any]:
    """Return the report of a run on best-of-N sets, as plain JSON values.

    A row has a prompt, one or more chosen and several rejected completions, and a column `subset` or none. The rewards
    are those of a reward model, or the implicit ones of the objective's first term.

    Args:
        folder: The run folder. Nothing in it is written.
        asked: What is evaluated; replies are not drawn.
        screen: Shows progress.

    Raises:
        UserError: No set is named, a row has no two kinds of completions, or as of `evaluate_run`.
    """
    if not asked.data:
        raise UserError("best-of-N needs rows with chosen and rejected lists", where="--best-of-n", expected="--data")
    resolved = open_evaluation(folder, replace(asked, metrics=(), judges=()))
    policy = FinishedPolicy(resolved, folder, screen)
    report = describe(policy, replace(asked, prompts=0))
    for name, source in resolved.recipe.eval.data.items():
        with of_set(name):
            rows, trees = _read(policy, source)
        rated = _rated(policy, rows, trees)
        report["sets"][name] = {"rows": len(rows), "best_of_n": by_subset(rows, rated)}
    return report


def _read(policy: FinishedPolicy, source: DataSource) -> tuple[list[Row], Trees]:
    """Return the usable rows and their trees, and report what was skipped and cut.

    A prompt that is a string is a user's message where the tokenizer has a chat template, as in RewardBench.
    """
    reader = RowReader(source, evaluation=True)
    given = [row for _, row in reader.used()]
    for row in given:
        if len(set(_scores(row))) < 2:
            raise UserError(
                f"row {row.id} has no chosen and rejected completions", where="data",
                expected='lists such as {"prompt": "...", "chosen": ["..."], "rejected": ["...", "...", "..."]}',
            )  # fmt: skip
    if policy.tokenizer.chat_template:
        given = list(map(as_chat, given))
    found = tokenize(given, policy.tokenizer, policy.recipe.tokens, policy.first_day)
    for reason, count in Counter(one.reason for one in (*reader.plan.rows.skipped, *found.skipped)).items():
        policy.screen.info(f"{count:,} rows skipped: {reason}")
    if cut := found.truncated_prompts + found.truncated_completions:
        policy.screen.info(f"{cut:,} prompts and rows of completions were cut (tokens.max_length)")
    if not len(found.trees):
        raise UserError("no row can be used", where="data", expected="rows of up to tokens.max_length tokens")
    rows = list(found.rows)
    return rows, with_columns(found.trees, rows, policy.recipe.objective)


def _scores(row: Row) -> list[float]:
    return [one.columns.get("score", float(n == 0)) for n, one in enumerate(row.completions)]


def as_chat(row: Row) -> Row:
    """Return a row of texts as chats of one turn; any other as it is."""
    if not isinstance(row.prompt, str) or any(one.context for one in row.completions):
        return row
    completions: list[Completion] = [
        replace(one, text=({"role": "assistant", "content": one.text},)) for one in row.completions
    ]
    return replace(row, prompt=({"role": "user", "content": row.prompt},), completions=tuple(completions))


def _rated(policy: FinishedPolicy, rows: Sequence[Row], trees: Trees) -> list[Rated]:
    """Return the rewards of each row's completions."""
    found = score_completions(policy, [len(row.completions) for row in rows], trees).rewards
    return [as_rated(row, rewards) for row, rewards in zip(rows, found, strict=True)]


def as_rated(row: Row, rewards: NDArray[np.float64]) -> Rated:
    """Return a row's rewards with its labels: the highest score is of correct ones."""
    scores = np.array(_scores(row))
    known = np.where(np.isnan(rewards), -math.inf, rewards)  # without a reward it is never best
    return Rated(str(row.extra.get("id", row.id)), known, scores == scores.max())


def subset_of(row: Row) -> str:
    """Return the subset that a row names, or `all`."""
    return str(row.extra.get("subset", ALL))


def by_subset(rows: Sequence[Row], rated: Sequence[Rated]) -> Figures:
    """Return the figure of each subset, and their mean."""
    subsets: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        subsets.setdefault(subset_of(row), []).append(i)
    figures: Figures = {}
    for name, own in sorted(subsets.items()):
        some = [rated[i] for i in own]
        if name.lower() == TIES:
            score, error = ties_score(some)
            figures[name] = _about(name, score, error, len(some)) | {"parts": ties_parts(some)}
        else:
            groups = np.array([rows[i].group for i in own])
            figure = figure_of(Column(name, name, "", scale=SHARE), np.array([one.credit for one in some]), groups)
            assert figure is not None
            figures[name] = figure
    return figures | ({OVERALL: _mean(figures)} if len(figures) > 1 else {})


def _mean(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean over subsets, each of which counts alike, with a normal interval."""
    errors = [math.nan if one["se"] is None else one["se"] for one in figures.values()]
    mean = float(np.mean([one["mean"] for one in figures.values()]))
    return _about(OVERALL, mean, math.hypot(*errors) / len(errors), sum(one["n"] for one in figures.values()))


def _about(title: str, mean: float, error: float, n: int) -> dict[str, Any]:
    half = Z * error
    return as_figure(title, Interval(mean, mean - half, mean + half, error, 1, n, 0, n))
