"""What judges say of sampled replies: asked once, kept, and asked again only when they failed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alignzoo.compare.replies import as_number
from alignzoo.data.sealed import digest
from alignzoo.judge import Judge, Prompt
from alignzoo.registry import Registry

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
