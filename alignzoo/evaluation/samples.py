"""Answers to held-out prompts, before and after training, and what judges say of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.data.tokenize import TokenizedRows
from alignzoo.interfaces.rows import Row, plain_text


def choose_reply_rows(held_out: TokenizedRows, wanted: int, among: NDArray[np.bool_] | None = None) -> list[int]:
    """Evenly spaced held-out rows (`among`: a mask of them), the same for every run on the same data.

    Left out are rows whose dialogues part before the last turn: their prompt does not end where a reply begins.
    """
    usable = np.flatnonzero(~held_out.trees.parted if among is None else ~held_out.trees.parted & among)
    wanted = min(wanted, len(usable))
    return [int(usable[round((i + 0.5) * len(usable) / wanted - 0.5)]) for i in range(wanted)]


def as_text(row: Row, branch: int) -> str:
    """A row's completion as plain text, for people."""
    return plain_text(row.completions[branch].text) if branch < len(row.completions) else ""


def reply_records(
    held_out: TokenizedRows,
    wanted: int,
    tokenizer: PreTrainedTokenizerBase,
    before: Sequence[str],
    after: Sequence[str],
) -> list[dict[str, Any]]:
    """samples.jsonl: a prompt, the answers before and after, and the best and the worst completion of the data."""
    places = choose_reply_rows(held_out, wanted)
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
