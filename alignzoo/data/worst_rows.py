"""Rows of a split that are longest, most truncated, or both trained on and evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from alignzoo.data.content import content_of
from alignzoo.data.row_reader import RowReader

if TYPE_CHECKING:
    from alignzoo.data.token_store import TokenizedDataset
    from alignzoo.recipe.resolved import Resolved

Worst = Literal["length", "overlap", "truncated"]
Found = list[tuple[int, str]]
"""(index of a tree, words on it) of each row, the worst first."""


def worst_rows(
    kind: Worst, resolved: Resolved, dataset: TokenizedDataset, split: str, count: int, reader: RowReader
) -> Found:
    """Return the worst rows of a split, at most `count`.

    Args:
        kind: `length`: the most tokens. `truncated`: the most tokens lost. `overlap`: training rows that equal a row
            that is evaluated, then those that share its prompt alone; of another split, its rows that are trained on.
        resolved: The recipe.
        dataset: Its rows.
        split: One of `dataset.splits`.
        count: Number of rows.
        reader: Reader of the recipe's data, which `overlap` reads again.
    """
    rows = dataset.part(split)
    if kind == "overlap":
        return _overlapping(resolved, dataset, split, count, reader)
    values = np.asarray(rows.trees.sizes if kind == "length" else rows.cut)
    order = [int(i) for i in np.argsort(-values, kind="stable")[:count] if values[i] > 0]
    return [(i, f"{int(values[i]):,} tokens" if kind == "length" else "") for i in order]


def _overlapping(resolved: Resolved, dataset: TokenizedDataset, split: str, count: int, reader: RowReader) -> Found:
    evaluated = _evaluated(resolved, split, reader)
    side = "evaluated" if split == "train" else "trained on"
    whole: dict[str, str] = {}
    prompts: dict[str, str] = {}
    for row in reader:
        for hash, found, what in zip(content_of(row), (prompts, whole), ("has the prompt of", "equals"), strict=True):
            for other in evaluated.get(hash, ()):
                own, mate = (row.id, other) if split == "train" else (other, row.id)
                if len(found) < count:
                    found.setdefault(own, f"{what} {mate}, which is {side}")
    ids = {**prompts, **whole}
    order = [*whole, *(id for id in prompts if id not in whole)][:count]
    places: dict[str, int] = {}
    for index, id in enumerate(dataset.part(split).trees.ids):
        for name in (id, id.rpartition("/")[0]):  # a pair of a ranked list has the list's id and its places
            if name in ids:
                places.setdefault(name, index)
    return [(places[id], ids[id]) for id in order if id in places]


def _evaluated(resolved: Resolved, split: str, reader: RowReader) -> dict[int, list[str]]:
    """Return hash of prompt or row -> ids, of the rows that are evaluated.

    With another split than `train`, these are the rows of that split alone.
    """
    found: dict[int, list[str]] = {}
    sources = resolved.recipe.eval.data
    rows = []
    if split in ("train", "held_out"):
        rows.append(row for held_out, row in reader.used() if held_out)
    for name, source in sources.items():
        if split in ("train", name):
            rows.append(row for _, row in RowReader(source, evaluation=True).used())
    for part in rows:
        for row in part:
            for hash in set(content_of(row)):
                found.setdefault(hash, []).append(row.id)
    return found
