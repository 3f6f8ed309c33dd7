"""Judge replies: figures of a run's samples, and verdicts for a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.errors import first_line
from alignzoo.interfaces.judge import Judge, Prompt
from alignzoo.interfaces.rows import Row
from alignzoo.registry.lookup import Registry


def as_number(value: Any) -> float | None:
    """Return a float, or None if it is not finite, which JSON cannot hold."""
    number = float(value)
    return number if math.isfinite(number) else None


def run_judge(judge: Judge, rows: Sequence[Row], lines: Sequence[dict[str, Any]], screen: Screen) -> dict[str, Any]:
    """Return one judge's mean rewards and win rates, with standard errors and counts.

    Rewards are of the replies before and after training. Win rates are of the reply after training over the one before
    and over the chosen completion; a tie counts one half. If the judge fails, the result is `{"problem": ...}`.
    """
    prompts = [row.prompt for row in rows]
    old, new, chosen = ([line[key].strip() for line in lines] for key in ("before", "after", "chosen"))
    figures: dict[str, Any] = {}
    try:
        if type(judge).scores is not Judge.scores:
            figures |= _mean("reward_before", judge.scores(prompts, old)) | _mean("reward", judge.scores(prompts, new))
        figures |= _mean("win_rate_over_start", judge.prefers(prompts, new, old))
        known = [i for i, text in enumerate(chosen) if text]  # rows with only an undesirable completion have none
        prompts, new, chosen = ([texts[i] for i in known] for texts in (prompts, new, chosen))
        figures |= _mean("win_rate_over_chosen", judge.prefers(prompts, new, chosen))
    except Exception as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
        screen.info(f"judge {judge.name} failed ({problem}); its figures are left out")
        return {"problem": problem}
    return figures


def _mean(name: str, values: Sequence[float]) -> dict[str, float | int | None]:
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return {name: None, f"{name}_se": None, f"{name}_n": 0}
    error = float(known.std() / math.sqrt(len(known)))
    return {name: float(known.mean()), f"{name}_se": error, f"{name}_n": len(known)}


Verdict = dict[str, float | None]
"""`reward`, `over_chosen` and `over_start`, as far as they are known.

The latter two are 1, 0, or 0.5 for a tie.
"""


def judge_key(judge: Judge, registry: Registry) -> str:
    """Return 32 hex digits of the judge's fingerprint, version and code."""
    return digest([judge.fingerprint(), registry.code(type(judge))])


def ask(
    judge: Judge, prompts: Sequence[Prompt], replies: Sequence[str], chosen: Sequence[str],
    start: Sequence[str | None] | None,
) -> list[Verdict]:  # fmt: skip
    """Return a verdict for each reply.

    Args:
        judge: The judge.
        prompts: Prompt of each reply.
        replies: The replies.
        chosen: Chosen completion of the dataset for each prompt.
        start: Replies of the run's start, None where there is none.

    Raises:
        ValueError: The judge returns another number of values than replies.
        Exception: Whatever the judge raises.
    """
    own = [text.strip() for text in replies]
    scores, compares = (getattr(type(judge), name) is not getattr(Judge, name) for name in ("scores", "prefers"))
    worth = [float(value) for value in judge.scores(prompts, own)] if scores else []
    verdicts: list[Verdict] = [{} for _ in own]
    for verdict, value in zip(verdicts, worth, strict=scores):
        verdict["reward"] = as_number(value)
    for name, others in (("over_chosen", chosen), ("over_start", start or [None] * len(own))):
        both = [i for i, text in enumerate(others) if text is not None]
        asked, against = [prompts[i] for i in both], [str(others[i]).strip() for i in both]
        if not both:
            continue
        if compares:
            won = judge.prefers(asked, [own[i] for i in both], against)
        else:  # by scores; those of the replies are known
            won = [_better(worth[i], other) for i, other in zip(both, judge.scores(asked, against), strict=True)]
        for i, value in zip(both, won, strict=True):
            verdicts[i][name] = as_number(value)
    return verdicts


def _better(own: float, other: float) -> float:
    """Return 1, 0 or 0.5 as `Judge.prefers` does."""
    return math.nan if own != own or other != other else 0.5 + 0.5 * ((own > other) - (own < other))
