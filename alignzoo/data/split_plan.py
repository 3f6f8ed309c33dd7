"""The use of every row of a source: a mark and two hashes for each, and the counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alignzoo.data.content import Content
from alignzoo.interfaces.data_source import DataSource, Split
from alignzoo.interfaces.rows import Row, Skipped

TRAIN, HELD_OUT, FLIPPED, NO_PAIR, DROPPED, UNUSABLE, ALONE, OUTSIDE = 1, 2, 4, 8, 16, 32, 64, 128
Place = tuple[str, Split]
"""Name of a source in a mixture ("" for a source alone), and one of its splits."""


@dataclass
class SplitRows:
    """Usable rows by split, skipped rows with their reasons, and counts."""

    train: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    read: int = 0
    flipped: int = 0
    """Number of training rows with flipped labels."""
    overlap: dict[str, int] = field(default_factory=dict)
    """Number of held-out `rows` that equal a training row, and of those with a prompt (`prompts`) of one."""
    duplicates: dict[str, dict[str, int]] = field(default_factory=dict)
    """For `train` and `held_out`: number of rows, and of prompts, that equal an earlier one."""
    deduplicated: int = 0
    """Number of rows that `deduplicate` drops."""
    left_out: int = 0
    """Number of usable rows beyond `max_train_rows` and `held_out_rows`, or not drawn for a mixture."""
    from_training: tuple[str, ...] = ()
    """Names of the sources without a test split, whose held-out rows come from the training split."""
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each source of a mixture, the number of rows read, used, and not used for each reason."""
    held_out_wanted: bool = True
    """False if the recipe asks for no held-out row."""

    @property
    def held_out_from_train(self) -> bool:
        """True if a source has no test split, so that held-out rows come from the training split."""
        return bool(self.from_training)


@dataclass
class SplitPlan:
    """Use of every row of a source, in reading order.

    It takes one byte a row, and 16 for the hashes of its content.
    """

    source: DataSource
    rows: SplitRows
    """Counts and skipped rows; the lists of usable rows are empty."""
    marks: dict[Place, NDArray[np.uint8]] = field(default_factory=dict)
    """One bit mask for each row read: TRAIN or HELD_OUT if it is used, combined with FLIPPED, NO_PAIR (not two
    completions) and ALONE (none); OUTSIDE alone for a row outside of `group_range`."""
    hashes: dict[Place, Content] = field(default_factory=dict)
    """Of every row read; 0 for one that is skipped."""

    def count(self, *marks: int, part: str | None = None) -> int:
        """Return the number of rows that carry all of these marks, of all sources or of one."""
        mask = sum(marks)
        return sum(int((own & mask == mask).sum()) for (name, _), own in self.marks.items() if part in (None, name))

    @property
    def pairs(self) -> bool:
        """True if every row that is used has two completions."""
        return not self.count(TRAIN, NO_PAIR) + self.count(HELD_OUT, NO_PAIR)

    @property
    def holds_prompts_out(self) -> bool:
        """True if a held-out row has no completion."""
        return self.count(HELD_OUT, ALONE) > 0

    def content(self, side: int) -> Content:
        """Return the hashes of the rows that are used on one side, TRAIN or HELD_OUT."""
        return Content.joined([self.hashes[place].taken(own & side > 0) for place, own in self.marks.items()])

    def by_source(self) -> dict[str, dict[str, int]]:
        """Return the row counts of each source of a mixture: read, used, and unused by reason."""
        found = {}
        for name in self.source.parts:
            read = sum(len(own) for (part, _), own in self.marks.items() if part == name)
            train, held_out = self.count(TRAIN, part=name), self.count(HELD_OUT, part=name)
            dropped, skipped = self.count(DROPPED, part=name), self.count(UNUSABLE, part=name)
            beyond = read - train - held_out - dropped - skipped
            found[name] = {"read": read, "train": train, "held_out": held_out, "skipped": skipped,
                           "deduplicated": dropped, "left_out": beyond}  # fmt: skip
        return found
