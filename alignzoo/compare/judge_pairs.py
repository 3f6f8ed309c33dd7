"""Labeled pairs that judges are measured on: texts, labels, prompts, and what is left out.

Every row gives the pairs of its completions of which one is labeled better: the pair itself, or each two completions of
a list with different scores. A judge sees the replies without the white space around them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.errors import UserError
from alignzoo.data.content import content_of
from alignzoo.data.row_reader import RowReader, of_set
from alignzoo.data.split_plan import FLIPPED
from alignzoo.evaluation.figures import for_testing
from alignzoo.evaluation.samples import as_text
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.rows import Row
from alignzoo.recipe.components import ComponentBuilder
from alignzoo.recipe.parse import COMMAND_LINE, Origin, from_value
from alignzoo.recipe.problems import Problems
from alignzoo.recipe.secrets import refuse_secrets
from alignzoo.registry.lookup import registry

Split = Literal["held_out", "validation", "test", "train", "all"]
"""Rows of data that divides into training and held-out ones. The held-out rows are the validation half, on which a
comparison chooses, and the test half, which it reports."""
MOST_COMPLETIONS = 64
"""Completions of a row; those of one with more make too many pairs."""


@dataclass(frozen=True)
class Pairs:
    """The labeled pairs of one set, P in number."""

    rows: list[Row]
    """The rows with a pair."""
    texts: list[list[str]]
    """The replies of each row, best first, without the white space around them."""
    row: NDArray[np.int64]
    """Index of each pair's row, shape (P,)."""
    chosen: NDArray[np.int64]
    """Index of the better completion in its row, shape (P,)."""
    rejected: NDArray[np.int64]
    """Index of the other one, shape (P,)."""
    skipped: dict[str, int]
    """Reason -> number of rows, and of pairs of lists, that are left out."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def groups(self) -> NDArray[np.str_]:
        """The prompt of each pair, shape (P,), for clustering."""
        return np.array([self.rows[n].group for n in self.row])

    @property
    def lists(self) -> bool:
        """True if a row has more than two completions."""
        return any(len(row.completions) > 2 for row in self.rows)

    @property
    def prompts(self) -> NDArray[np.int64]:
        """Hashes of the different prompts."""
        return np.unique(np.array([content_of(row)[0] for row in self.rows], np.int64))

    def text(self, pair: int, chosen: bool) -> str:
        """Return a reply of a pair."""
        return self.texts[self.row[pair]][(self.chosen if chosen else self.rejected)[pair]]

    def longer(self) -> NDArray[np.float64]:
        """Return 1 where the chosen reply has more characters, -1 where fewer, else 0; (P,)."""
        sizes = [len(self.text(n, True)) - len(self.text(n, False)) for n in range(len(self))]
        return np.sign(np.array(sizes, np.float64))


def open_source(name: str, plain: dict[str, Any]) -> DataSource:
    """Return the data source that a set's node names.

    Raises:
        UserError: It has a mistake, or needs a run of its own.
    """
    node = from_value({"data": plain}, Origin(COMMAND_LINE))
    refuse_secrets(node)
    problems = Problems(node)
    source = ComponentBuilder(registry(), problems).build(plain, ("data",), "data source")
    with of_set(name, above=""):
        problems.raise_if_any()
    assert isinstance(source, DataSource)
    if any(part.needs_runs for part in (source, *source.parts.values())):
        raise UserError(
            f"the data source {source.name} needs a run of its own", where=name, expected="the files of that run"
        )
    return source.serving({"pair"})


def read_pairs(name: str, source: DataSource, split: Split | None = None) -> Pairs:
    """Return the labeled pairs of a set.

    Labels are those of the data: `label_noise` flips none of them.

    Args:
        name: Name of the set, for errors.
        source: The data source.
        split: The rows that are read; None for those of the test split, or of a source without one all rows.

    Raises:
        UserError: No row has a labeled pair, or as of `RowReader.plan`.
    """
    with of_set(name, above=""):
        reader = RowReader(source, evaluation=split is None)
        for marks in reader.plan.marks.values():
            marks &= ~np.uint8(FLIPPED)
        rows = list(_rows_of(reader, split))
    skipped = Counter(one.reason for one in reader.plan.rows.skipped)
    kept: list[Row] = []
    texts: list[list[str]] = []
    found: list[tuple[int, int, int]] = []
    for row in rows:
        replies = [as_text(row, n).strip() for n in range(len(row.completions))]
        pairs = list(_pairs_of(row, replies, skipped))
        if pairs:
            found += [(len(kept), better, worse) for better, worse in pairs]
            kept.append(row)
            texts.append(replies)
    if not found:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in skipped.most_common())
        raise UserError(
            f"no labeled pair: {reasons or 'there are no rows'}", where=name,
            expected="rows with chosen and rejected, or with completions and scores",
        )  # fmt: skip
    row_of, chosen, rejected = np.array(found, np.int64).T
    return Pairs(kept, texts, row_of, chosen, rejected, dict(skipped.most_common()))


def _rows_of(reader: RowReader, split: Split | None) -> Iterator[Row]:
    if split in (None, "all"):
        yield from (row for _, row in reader.used())
        return
    rows = [row for held_out, row in reader.used() if held_out != (split == "train")]
    if not rows:
        raise UserError(f"no row is in the split {split}", where="data", expected="another --split, or none")
    test = for_testing([row.group for row in rows])
    for row, own in zip(rows, test, strict=True):
        if split in ("train", "held_out") or bool(own) == (split == "test"):
            yield row


def _pairs_of(row: Row, replies: list[str], skipped: Counter[str]) -> Iterator[tuple[int, int]]:
    """Yield the indices (better, worse) of a row's pairs; count why others are left out."""
    count = len(replies)
    if count < 2 or count > MOST_COMPLETIONS:
        skipped["no second completion" if count < 2 else f"over {MOST_COMPLETIONS} completions"] += 1
        return
    if any(one.context for one in row.completions):
        skipped["the dialogues differ before the last turn"] += 1
        return
    scores = [one.columns.get("score") for one in row.completions]
    for better, worse in combinations(range(count), 2):
        if scores[better] is not None and scores[better] == scores[worse]:
            continue  # no label orders them
        if not replies[better] or not replies[worse]:
            skipped["empty reply"] += 1
        elif replies[better] == replies[worse]:
            skipped["both replies are equal"] += 1
        else:
            yield better, worse
