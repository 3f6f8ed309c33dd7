"""Answers to held-out prompts, before and after training, and what judges say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.data import Tokenised
from alignzoo.data.rows import Row, plain_text
from alignzoo.judge import Judge
from alignzoo.progress import Screen


def sample_rows(held_out: Tokenised, wanted: int, among: NDArray[np.bool_] | None = None) -> list[int]:
    """Evenly spaced held-out rows (`among`: a mask of them), the same for every run on the same data.

    Left out are rows whose dialogues part before the last turn: their prompt does not end where a reply begins.
    """
    usable = np.flatnonzero(~held_out.trees.parted if among is None else ~held_out.trees.parted & among)
    wanted = min(wanted, len(usable))
    return [int(usable[round((i + 0.5) * len(usable) / wanted - 0.5)]) for i in range(wanted)]


def as_text(row: Row, branch: int) -> str:
    """A row's completion as plain text, for people."""
    return plain_text(row.completions[branch].text) if branch < len(row.completions) else ""


def sample_lines(
    held_out: Tokenised, wanted: int, tokenizer: PreTrainedTokenizerBase, before: Sequence[str], after: Sequence[str]
) -> list[dict[str, Any]]:
    """samples.jsonl: a prompt, the answers before and after, and the best and the worst completion of the data."""
    places = sample_rows(held_out, wanted)
    return [
        {"id": row.id, "prompt": tokenizer.decode(held_out.trees[place].prompt), "before": old, "after": new,
         **_best_and_worst(row)}
        for place, row, old, new in zip(places, (held_out.rows[i] for i in places), before, after, strict=True)
    ]  # fmt: skip


def _best_and_worst(row: Row) -> dict[str, str]:
    """A single completion is one of them, by its label."""
    last = len(row.completions) - 1
    if last == 0 and not row.completions[0].columns.get("desirable", 1.0):
        return {"chosen": "", "rejected": as_text(row, 0)}
    return {"chosen": as_text(row, 0), "rejected": as_text(row, last) if last else ""}


def judged(judge: Judge, rows: Sequence[Row], lines: Sequence[dict[str, Any]], screen: Screen) -> dict[str, Any]:
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
        what = (str(error).splitlines() or [""])[0]
        screen.say(f"judge {judge.name} failed ({type(error).__name__}: {what}); its figures are left out")
        return {"problem": f"{type(error).__name__}: {what}"}
    return figures


def _mean(name: str, values: Sequence[float]) -> dict[str, float | int | None]:
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return {name: None, f"{name}_se": None, f"{name}_n": 0}
    error = float(known.std() / math.sqrt(len(known)))
    return {name: float(known.mean()), f"{name}_se": error, f"{name}_n": len(known)}
