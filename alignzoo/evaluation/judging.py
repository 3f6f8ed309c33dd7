"""What judges say of sampled replies: asked once, kept, and asked again only when they failed."""

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
    """A float for JSON: None where it is not a number."""
    number = float(value)
    return number if math.isfinite(number) else None


def run_judge(judge: Judge, rows: Sequence[Row], lines: Sequence[dict[str, Any]], screen: Screen) -> dict[str, Any]:
    """What one judge says: mean reward of the answers before and after, and how often the answer after beats the one
    before and the chosen completion (a tie is one half), each with its standard error and number of answers judged.

    A judge that fails costs its own figures: they are then `{"problem": ...}`, and the run goes on.
    """
    prompts = [row.prompt for row in rows]
    old, new, chosen = ([line[key].strip() for line in lines] for key in ("before", "after", "chosen"))
    figures: dict[str, Any] = {}
    try:
        if type(judge).scores is not Judge.scores:
            figures |= _mean("reward_before", judge.scores(prompts, old)) | _mean("reward", judge.scores(prompts, new))
        figures |= _mean("win_rate_over_start", judge.prefers(prompts, new, old))
        known = [i for i, text in enumerate(chosen) if text]  # an undesirable completion alone is nobody's chosen one
        prompts, new, chosen = ([texts[i] for i in known] for texts in (prompts, new, chosen))
        figures |= _mean("win_rate_over_chosen", judge.prefers(prompts, new, chosen))
    except Exception as error:
        what = first_line(error)
        screen.info(f"judge {judge.name} failed ({type(error).__name__}: {what}); its figures are left out")
        return {"problem": f"{type(error).__name__}: {what}"}
    return figures


def _mean(name: str, values: Sequence[float]) -> dict[str, float | int | None]:
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return {name: None, f"{name}_se": None, f"{name}_n": 0}
    error = float(known.std() / math.sqrt(len(known)))
    return {name: float(known.mean()), f"{name}_se": error, f"{name}_n": len(known)}


Verdict = dict[str, float | None]
"""`reward`, if the judge scores; `over_chosen`, and `over_start` where the start's reply is known: 1, 0, a tie 0.5."""


def judge_key(judge: Judge, registry: Registry) -> str:
    """32 hex digits of everything that its verdicts depend on: its fingerprint, its version and its code."""
    return digest([judge.fingerprint(), registry.code(type(judge))])


def ask(
    judge: Judge, prompts: Sequence[Prompt], replies: Sequence[str], chosen: Sequence[str],
    start: Sequence[str | None] | None,
) -> list[Verdict]:  # fmt: skip
    """A verdict for each reply. `start` are the start's replies to the same prompts, None where there is none.

    Raises whatever the judge raises, and ValueError for a judge that gives more or fewer numbers than asked for.
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
    """As `Judge.prefers` has it."""
    return math.nan if own != own or other != other else 0.5 + 0.5 * ((own > other) - (own < other))
