"""Replies to held-out prompts, before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.data.tokenize import TokenizedRows
from alignzoo.interfaces.rows import Row, plain_text
from alignzoo.models.generation import Reply
from alignzoo.models.tokenizers import decode


def choose_reply_rows(held_out: TokenizedRows, wanted: int, among: NDArray[np.bool_] | None = None) -> list[int]:
    """Return evenly spaced held-out rows with different prompts.

    They are the same for every run on the same data. Of rows with one prompt, such as the pairs of a list, the first
    counts. Rows whose dialogues differ before the last turn are left out: their prompt does not end where a reply
    begins.

    Args:
        held_out: Held-out rows.
        wanted: Number of rows.
        among: Mask of the rows to choose from.
    """
    found = np.flatnonzero(~held_out.trees.parted if among is None else ~held_out.trees.parted & among)
    usable = sorted({held_out.trees[int(i)].prompt.tobytes(): int(i) for i in found[::-1]}.values())
    wanted = min(wanted, len(usable))
    return [usable[round((i + 0.5) * len(usable) / wanted - 0.5)] for i in range(wanted)]


def as_text(row: Row, branch: int) -> str:
    """Return a row's completion as plain text.

    Of several messages it is the first, which answers the prompt.
    """
    if branch >= len(row.completions):
        return ""
    completion = row.completions[branch]
    if isinstance(completion.text, str):
        return completion.text
    return plain_text((*completion.context, *completion.text)[0])


def reply_records(
    held_out: TokenizedRows,
    wanted: int,
    tokenizer: PreTrainedTokenizerBase,
    before: Sequence[Reply],
    after: Sequence[Reply],
) -> list[dict[str, Any]]:
    """Return the records of samples.jsonl: prompt, replies, best and worst completion."""
    indices = choose_reply_rows(held_out, wanted)
    prompts = decode(tokenizer, (held_out.trees[i].prompt for i in indices))
    rows = (held_out.rows[i] for i in indices)
    return [
        {"id": row.id, "prompt": prompt, "before": old.text, "after": new.text, **best_and_worst(row),
         "before_finished": old.finished, "after_finished": new.finished}
        for row, prompt, old, new in zip(rows, prompts, before, after, strict=True)
    ]  # fmt: skip


def best_and_worst(row: Row) -> dict[str, str]:
    """Return `chosen` and `rejected`; a single completion is one of them, by its label."""
    last = max(0, len(row.completions) - 1)
    if len(row.completions) == 1 and not row.completions[0].columns.get("desirable", 1.0):
        return {"chosen": "", "rejected": as_text(row, 0)}
    return {"chosen": as_text(row, 0), "rejected": as_text(row, last) if last else ""}
