"""Judge replies: figures of a run's samples, and verdicts for a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.errors import first_line
from alignzoo.interfaces.judge import Asked, Judge, Prompt
from alignzoo.registry.lookup import Registry

SCORE, PREFERENCE = "score", "preference"
_RANGE = {SCORE: (-math.inf, math.inf), PREFERENCE: (0.0, 1.0)}


def verdict_values(
    judge: Judge, kind: str, values: Iterable[Any], count: int, info: Callable[[str], None]
) -> list[float | None]:
    """Return a judge's values as numbers, with None where there is no verdict.

    None and NaN mean that there is no verdict. An infinite score and a preference outside [0, 1] are left out too, and
    `info` is told.

    Args:
        judge: The judge.
        kind: SCORE or PREFERENCE.
        values: What the judge returned.
        count: Number of replies.
        info: Prints a line.

    Raises:
        ValueError: There are more or fewer values than replies.
        TypeError: A value is no number.
    """
    found = [math.nan if value is None else value for value in values]
    if len(found) != count:
        raise ValueError(f"{len(found)} values for {count} replies")
    if bad := next((value for value in found if isinstance(value, str | bytes)), None):
        raise TypeError(f"{bad[:40]!r} is no number")
    numbers = [float(value) for value in found]
    low, high = _RANGE[kind]
    strange = [value for value in numbers if not (math.isnan(value) or (low <= value <= high and math.isfinite(value)))]
    if strange:
        info(f"judge {judge.name}: {len(strange)} of {count} {kind}s left out, such as {strange[0]:g}")
    return [None if math.isnan(value) or value in strange else value for value in numbers]


def failure(error: BaseException) -> str:
    """Return the class and the first line of an exception."""
    return f"{type(error).__name__}: {first_line(error)}"


def run_judge(
    judge: Judge, prompts: Sequence[Prompt], lines: Sequence[dict[str, Any]], screen: Screen,
    columns: Sequence[Mapping[str, Any]] = (),
) -> Figures:  # fmt: skip
    """Return one judge's mean rewards and win rates, with standard errors and counts.

    Rewards are of the replies before and after training. Win rates are of the reply after training over the one before
    and over the chosen completion; a tie counts one half. If the judge fails, the result is `{"problem": ...}`.

    Args:
        judge: The judge.
        prompts: Prompt of each line.
        lines: Records of samples.jsonl.
        screen: Shows messages.
        columns: The other columns of each line's row.
    """
    old, new, chosen = ([line[key].strip() for line in lines] for key in ("before", "after", "chosen"))
    figures: Figures = {}
    try:
        if not judge.only_compares:
            asked = Asked(prompts, old, columns, _finished(lines, "before"))
            before = verdict_values(judge, SCORE, asked.scores_of(judge), len(old), screen.info)
            figures |= _mean("reward_before", before)
        # rows with only an undesirable completion have no chosen one
        known = Asked(prompts, new, columns, _finished(lines, "after"))
        verdicts = ask(judge, known, [text or None for text in chosen], old, screen.info)
        names = {"reward": "reward"} if figures else {}
        for key, name in (names | {f"over_{text}": f"win_rate_over_{text}" for text in ("start", "chosen")}).items():
            figures |= _mean(name, [verdict.get(key) for verdict in verdicts])
    except (Exception, SystemExit) as error:  # a judge may fail in any way
        problem = failure(error)
        screen.info(f"judge {judge.name} failed ({problem}); its figures are left out")
        return {"problem": problem}
    return figures


def _finished(lines: Sequence[dict[str, Any]], when: str) -> list[bool]:
    """Return which replies are finished; none where lines of an older run do not say so."""
    key = f"{when}_finished"
    return [bool(line[key]) for line in lines] if all(key in line for line in lines) else []


def _mean(name: str, values: Sequence[float | None]) -> Figures:
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return {name: None, f"{name}_se": None, f"{name}_n": 0}
    figures = float(known.mean()), float(known.std() / math.sqrt(len(known)))
    mean, error = (value if math.isfinite(value) else None for value in figures)  # a sum may overflow
    return {name: mean, f"{name}_se": error, f"{name}_n": len(known)}


Figures = dict[str, Any]
"""A judge's figures of one run by name, or its `problem`."""
Verdict = dict[str, float | None]
"""`reward`, `over_chosen` and `over_start`, as far as they are known.

The latter two are 1, 0, or 0.5 for a tie.
"""


def judge_key(judge: Judge, registry: Registry) -> str:
    """Return 32 hex digits of the judge's fingerprint, address, version and code."""
    return digest([judge.fingerprint(), judge.address(), registry.code(type(judge))])


def ask(
    judge: Judge, asked: Asked, chosen: Sequence[str | None], start: Sequence[str | None] | None,
    info: Callable[[str], None],
) -> list[Verdict]:  # fmt: skip
    """Return a verdict for each reply.

    Args:
        judge: The judge.
        asked: The replies.
        chosen: Chosen completion of the dataset for each prompt, None where there is none.
        start: Replies of the run's start, None where there is none.
        info: Prints a line.

    Raises:
        Exception: Whatever the judge raises.
    """
    own = [text.strip() for text in asked.replies]
    scores, compares = not judge.only_compares, type(judge).prefers is not Judge.prefers
    worth = verdict_values(judge, SCORE, replace(asked, replies=own).scores_of(judge), len(own), info) if scores else []
    verdicts: list[Verdict] = [{} for _ in own]
    for verdict, value in zip(verdicts, worth, strict=scores):
        verdict["reward"] = value
    for name, others in (("over_chosen", chosen), ("over_start", start or [None] * len(own))):
        both = [i for i, text in enumerate(others) if text is not None]
        prompts, against = [asked.prompts[i] for i in both], [str(others[i]).strip() for i in both]
        if not both:
            continue
        won: list[float | None]
        if compares:
            answers = judge.prefers(prompts, [own[i] for i in both], against)
            won = verdict_values(judge, PREFERENCE, answers, len(both), info)
        else:  # by scores; those of the replies are known
            beside = Asked(prompts, against, [asked.columns[i] for i in both] if asked.columns else ())
            theirs = verdict_values(judge, SCORE, beside.scores_of(judge), len(both), info)
            won = [_better(worth[i], other) for i, other in zip(both, theirs, strict=True)]
        for i, value in zip(both, won, strict=True):
            verdicts[i][name] = value
    return verdicts


def _better(own: float | None, other: float | None) -> float | None:
    """Return 1, 0 or 0.5 as `Judge.prefers` does."""
    return None if own is None or other is None else 0.5 + 0.5 * ((own > other) - (own < other))
