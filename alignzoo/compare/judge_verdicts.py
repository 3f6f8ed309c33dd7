"""Verdicts of judges and of finished runs on labeled pairs.

A judge that scores replies prefers the one with the higher score. A judge that compares two replies is asked in both
orders, and its verdict is their mean: 1 for the chosen reply, 0 for the rejected one, 0.5 for a tie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.compare.completion_scores import score_completions
from alignzoo.compare.eval_best_of_n import as_chat
from alignzoo.compare.judge_pairs import Pairs
from alignzoo.compare.kept_verdicts import KeptVerdicts
from alignzoo.compare.measure import reward_scale
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError, first_line
from alignzoo.data.content import Hashes
from alignzoo.data.convert import with_columns
from alignzoo.data.row_reader import RowReader
from alignzoo.data.split_plan import TRAIN
from alignzoo.data.tokenize import tokenize
from alignzoo.evaluation.judging import PREFERENCE, SCORE, failure, judge_key, verdict_values
from alignzoo.interfaces.judge import Asked, Judge
from alignzoo.recipe.resolved import Resolved
from alignzoo.registry.lookup import registry
from alignzoo.training.open_finished import FinishedPolicy
from alignzoo.training.runs import load_finished

SCORES, COMPARES = "scores", "compares two replies"
REWARD_MODEL, IMPLICIT_REWARD, LIKELIHOOD = "reward model", "implicit reward", "likelihood"
PORTION = 128
"""Replies, or pairs, that a judge is asked about at a time. What it has answered is then kept."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of one judge on P pairs."""

    kind: str
    first: Numbers
    """1 where the chosen reply is preferred, 0 where the other one is, 0.5 for a tie; nan without a verdict; (P,)."""
    second: Numbers | None = None
    """The same with the chosen reply shown second, (P,). None for a judge that gives scores."""
    scores: list[Numbers] = field(default_factory=list)
    """Scores of every row's completions; empty for a judge that compares."""
    cut: int = 0
    """Prompts, and rows of completions, that were cut to the run's `tokens.max_length`."""
    without: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of rows that the run can't score."""

    @property
    def values(self) -> Numbers:
        """The verdict on each pair: the mean of both orders, (P,)."""
        return self.first if self.second is None else (self.first + self.second) / 2

    @property
    def signs(self) -> Numbers:
        """1 where the chosen reply is preferred, -1 where the other is, 0 for a tie; (P,)."""
        return np.sign(self.values - 0.5)


def check_judge(judge: Judge) -> None:
    """Check that a judge can be measured here, before anything is asked.

    Raises:
        UserError: It can't, for example because an API key is missing.
    """
    if judge.needs_runs:
        raise UserError(
            f"the judge {judge.name} is trained by a recipe", where="--judge", expected="--run with that recipe"
        )
    judge.ready()


def ask_judge(judge: Judge, pairs: Pairs, label: str, screen: Screen) -> Verdicts:
    """Return a judge's verdicts. Those that are kept from before are not asked for again.

    Raises:
        Exception: Whatever the judge raises.
    """
    kept = KeptVerdicts(judge_key(judge, registry()))
    compares = (type(judge).prefers, type(judge).prefers_as_shown) != (Judge.prefers, Judge.prefers_as_shown)
    if compares:
        return _comparisons(judge, pairs, kept, label, screen)
    return _scores(judge, pairs, kept, label, screen)


def _comparisons(judge: Judge, pairs: Pairs, kept: KeptVerdicts, label: str, screen: Screen) -> Verdicts:
    straight = [(pairs.rows[pairs.row[n]].prompt, pairs.text(n, True), pairs.text(n, False)) for n in range(len(pairs))]
    asked = [*straight, *((prompt, second, first) for prompt, first, second in straight)]
    order = [n + k * len(pairs) for n in range(len(pairs)) for k in (0, 1)]  # both orders in a portion

    def ask(part: Sequence[int]) -> list[float | None]:
        some = [asked[n] for n in part]
        found = judge.prefers_as_shown(*([one[k] for one in some] for k in range(3)))
        return verdict_values(judge, PREFERENCE, found, len(some), screen.info)

    questions = [KeptVerdicts.question("shown", *one) for one in asked]
    values = _asked(questions, order, ask, kept, label, screen)
    return Verdicts(COMPARES, values[: len(pairs)], 1 - values[len(pairs) :])


def _scores(judge: Judge, pairs: Pairs, kept: KeptVerdicts, label: str, screen: Screen) -> Verdicts:
    used = sorted({*zip(pairs.row, pairs.chosen, strict=True), *zip(pairs.row, pairs.rejected, strict=True)})
    rows, texts = [pairs.rows[n] for n, _ in used], [pairs.texts[n][k] for n, k in used]
    columns = [row.all_columns for row in rows]

    def ask(part: Sequence[int]) -> list[float | None]:
        one = Asked([rows[n].prompt for n in part], [texts[n] for n in part], [columns[n] for n in part])
        return verdict_values(judge, SCORE, one.scores_of(judge), len(part), screen.info)

    questions = [
        KeptVerdicts.question("score", row.prompt, text, own)
        for row, text, own in zip(rows, texts, columns, strict=True)
    ]
    values = _asked(questions, range(len(used)), ask, kept, label, screen)
    scores = [np.full(len(row.completions), np.nan) for row in pairs.rows]
    for (n, k), value in zip(used, values.tolist(), strict=True):
        scores[n][k] = value
    return Verdicts(SCORES, _by_score(pairs, scores), scores=scores)


def _asked(
    questions: Sequence[str], order: Sequence[int], ask: Callable[[Sequence[int]], Sequence[float | None]],
    kept: KeptVerdicts, label: str, screen: Screen,
) -> Numbers:  # fmt: skip
    """Return the value of each question: one that is kept, or the judge's, asked in portions."""
    unknown, seen = [], set[str]()
    for n in order:
        if kept.get(questions[n]) is None and questions[n] not in seen:
            seen.add(questions[n])
            unknown.append(n)
    new: dict[str, float | None] = {}
    with screen.bar(label[:30], len(questions), len(questions) - len(unknown)) as advance:
        for start in range(0, len(unknown), 2 * PORTION):
            part = unknown[start : start + 2 * PORTION]
            found = {questions[n]: value for n, value in zip(part, ask(part), strict=True)}
            kept.add(found)
            new |= found
            advance(len(part), "")
    values = (kept.get(question) if new.get(question) is None else new[question] for question in questions)
    return np.array([np.nan if value is None else value for value in values])


def _by_score(pairs: Pairs, scores: Sequence[Numbers]) -> Numbers:
    """Return 1, 0 or 0.5 for each pair as `Judge.prefers` does."""
    better, worse = (
        np.array([scores[n][k] for n, k in zip(pairs.row, side, strict=True)])
        for side in (pairs.chosen, pairs.rejected)
    )
    with np.errstate(invalid="ignore"):
        return 0.5 + 0.5 * np.sign(better - worse)


class RunJudge:
    """A finished run as a judge: its rewards, and the likelihood of its policy.

    Args:
        folder: The run folder. Nothing in it is written.
        screen: Shows progress.

    Raises:
        UserError: The run is not finished.
    """

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.folder, self.screen = folder, screen
        self.resolved = load_finished(folder)
        self.objective = self.resolved.recipe.objective
        self._policy: FinishedPolicy | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The judges that the run is: a reward model, or an implicit reward and a likelihood.

        An implicit reward that is the log-prob times a number is no second judge.
        """
        if self.objective.head == "scalar":
            return (REWARD_MODEL,)
        own = reward_scale(self.objective)
        plain = len(own) == 1 and isinstance(own[0], list) and own[0][0] == "log_prob"
        return (LIKELIHOOD,) if plain else (IMPLICIT_REWARD, LIKELIHOOD)

    def verdicts(self, pairs: Pairs) -> dict[str, Verdicts]:
        """Return the verdicts of each of `kinds`.

        Rewards and log-probs that differ by rounding alone tie.

        Raises:
            UserError: Weights that are needed are gone, or no row can be tokenized.
        """
        if self._policy is None:
            self._policy = FinishedPolicy(self.resolved, self.folder, self.screen)
        policy, rows = self._policy, pairs.rows
        if pairs.lists and policy.tokenizer.chat_template:  # as RewardBench reads its rows
            rows = list(map(as_chat, rows))
        found = tokenize(rows, policy.tokenizer, policy.recipe.tokens, policy.first_day)
        place = {row.id: n for n, row in enumerate(rows)}
        kept = [place[row.id] for row in found.rows]
        if not kept:
            raise UserError("no row can be used", where="data", expected="rows of up to tokens.max_length tokens")
        trees = with_columns(found.trees, list(found.rows), self.objective)
        scored = score_completions(policy, [len(rows[n].completions) for n in kept], trees)
        cut = found.truncated_prompts + found.truncated_completions
        without = dict(Counter(one.reason for one in found.skipped))
        out = {}
        for kind in self.kinds:
            scores = [np.full(len(row.completions), np.nan) for row in rows]
            for n, own in zip(kept, scored.log_probs if kind == LIKELIHOOD else scored.rewards, strict=True):
                scores[n] = own
            out[kind] = Verdicts(kind, _by_score(pairs, scores), scores=scores, cut=cut, without=without)
        return out

    def close(self) -> None:
        """Let go of the models."""
        self._policy = None

    def trained_on(self) -> Hashes | None:
        """Return the hashes of the prompts that the run, or a run that it needs, was trained on.

        None where the data of one can't be read any more.
        """
        try:
            return np.concatenate([
                RowReader(one.recipe.data).plan.content(TRAIN).prompts for one in _lineage(self.resolved)
            ])  # fmt: skip
        except UserError as error:
            self.screen.info(f"{self.folder.name}: its training rows can't be read ({first_line(error)})")
            return None


def _lineage(resolved: Resolved) -> Iterator[Resolved]:
    yield resolved
    for need in resolved.needs.values():
        yield from _lineage(need)


def problem_of(label: str, error: BaseException, screen: Screen) -> str:
    """Return the reason of a judge's failure, and tell it."""
    screen.info(f"judge {label} failed ({failure(error)}); its figures are left out")
    return failure(error)


def settings_of(judge: Judge) -> dict[str, Any]:
    """Return a judge's name and fields, as plain values."""
    return {"name": judge.name, **judge.model_dump(mode="json", by_alias=True)}
