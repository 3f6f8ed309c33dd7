"""Split a source's rows into training and held-out rows; apply limits and label noise."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.errors import UserError, attribute_errors
from alignzoo.interfaces.data_source import DataSource, Split
from alignzoo.interfaces.rows import TIE, Row, Skipped, strings

TRAIN, HELD_OUT, FLIPPED, NO_PAIR = 1, 2, 4, 8
MOST_CHARACTERS = 1_000_000
"""Limit of the texts of a row. A tokenizer takes a hundred bytes a character, and fails on a few hundred million."""
ReadSplit = Callable[[Split], Iterable[Row | Skipped]]
"""Function that reads a split from its beginning."""


@dataclass
class SplitRows:
    """Usable rows by split, skipped rows with their reasons, and counts."""

    train: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    read: int = 0
    flipped: int = 0
    """Number of training rows with flipped labels."""
    in_both: int = 0
    """Number of held-out rows that equal a training row in prompt and completions."""
    left_out: int = 0
    """Number of usable rows beyond `max_train_rows` and `held_out_rows`."""
    held_out_from_train: bool = False
    """True if the source has no test split, so that held-out rows come from the training split."""


@dataclass
class SplitPlan:
    """Use of every row of a source, in reading order, at one byte a row."""

    rows: SplitRows
    """Counts and skipped rows; the lists of usable rows are empty."""
    marks: dict[Split, NDArray[np.uint8]]
    """One bit mask for each row read: TRAIN or HELD_OUT if it is used, combined with FLIPPED and NO_PAIR."""

    def count(self, *marks: int) -> int:
        """Return the number of rows that carry all of these marks."""
        mask = sum(marks)
        return sum(int((own & mask == mask).sum()) for own in self.marks.values())

    @property
    def pairs(self) -> bool:
        """True if every row that is used has two completions."""
        return not self.count(TRAIN, NO_PAIR) + self.count(HELD_OUT, NO_PAIR)


def read_rows(source: DataSource) -> SplitRows:
    """Read a source, hold rows out, apply its limits, and flip its share of noisy training labels.

    The held-out rows and the flipped labels do not depend on the order of the rows.

    Raises:
        UserError: No row can be used, two rows have the same id, or no row can be held out.
    """
    rows = {split: list(rows_of(source, split)) for split in source.splits()}
    plan = plan_splits(source, lambda split: rows[split])
    for held_out, row in used_rows(plan, lambda split: rows[split]):
        (plan.rows.held_out if held_out else plan.rows.train).append(row)
    return plan.rows


def rows_of(source: DataSource, split: Split) -> Iterator[Row | Skipped]:
    """Yield a split's rows, those that can't be tokenized as skipped.

    Errors of the source's code become a RunFailed that names the source.
    """
    with attribute_errors(f"the data source {source.name}, reading its {split} split,", source):
        for row in source.read(split):
            yield _checked(row if source.takes_ties else without_tie(row))


def plan_splits(source: DataSource, read: ReadSplit) -> SplitPlan:
    """Decide the use of every row in one pass that keeps no row in memory. Raises UserError as `read_rows` does."""
    splits = source.splits()
    plan = SplitPlan(SplitRows(held_out_from_train=len(splits) == 1), {})
    ids, group_hashes = array("q"), array("d")
    contents: dict[Split, array[int]] = {split: array("q") for split in splits}
    for split in splits:
        marks = bytearray()
        for row in read(split):
            if isinstance(row, Skipped):
                plan.rows.skipped.append(row)
                marks.append(0)
                contents[split].append(0)
                continue
            contents[split].append(_content_hash(row))
            ids.append(hash(row.id))
            if plan.rows.held_out_from_train:
                group_hashes.append(_uniform_hash(f"held out {row.group}"))
            mark = TRAIN if split == "train" else HELD_OUT
            noisy = source.label_noise and row.has_preference and _is_flipped(row, source)
            mark |= FLIPPED if noisy else 0
            marks.append(mark | (NO_PAIR if len(row.completions) != 2 else 0))
        plan.rows.read += len(marks)
        plan.marks[split] = np.frombuffer(marks, np.uint8).copy()
    if not plan.count(TRAIN):
        reasons = ", ".join(sorted({skipped.reason for skipped in plan.rows.skipped})) or "there are no rows"
        raise UserError(f"no row can be used: {reasons}", where="data")
    if len(np.unique(np.frombuffer(ids, np.int64))) < len(ids):
        _check_unique_ids(row for split in splits for row in read(split))
    if plan.rows.held_out_from_train:
        usable = np.flatnonzero(plan.marks["train"])
        held_out = usable[choose_held_out(np.frombuffer(group_hashes), source.held_out_fraction)]
        plan.marks["train"][held_out] ^= TRAIN | HELD_OUT
    for side, limit in ((TRAIN, source.max_train_rows), (HELD_OUT, source.held_out_rows)):
        for own in plan.marks.values():
            beyond = np.flatnonzero(own & side)[len(own) if limit is None else limit :]
            own[beyond] &= ~np.uint8(side)
            plan.rows.left_out += len(beyond)
    plan.rows.flipped = plan.count(TRAIN, FLIPPED)
    plan.rows.in_both = _count_in_both(plan.marks, contents)
    return plan


def _content_hash(row: Row) -> int:
    """Return 64 bits of a row's prompt and completions, independent of the order of the completions."""
    text = repr((row.prompt, sorted(repr((one.context, one.text)) for one in row.completions)))
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big", signed=True)


def _count_in_both(marks: dict[Split, NDArray[np.uint8]], contents: dict[Split, array[int]]) -> int:
    trained, held_out = (
        np.concatenate([np.frombuffer(contents[split], np.int64)[own & side > 0] for split, own in marks.items()])
        for side in (TRAIN, HELD_OUT)
    )
    return int(np.isin(held_out, trained).sum())


def used_rows(plan: SplitPlan, read: ReadSplit) -> Iterator[tuple[bool, Row]]:
    """Yield (is held out, row) for every row that is used, in reading order, with labels flipped.

    Raises:
        UserError: The data changed since the plan was made.
    """
    for split, marks in plan.marks.items():
        rows = iter(read(split))
        for mark in marks.tolist():
            row = next(rows, None)
            if mark and not isinstance(row, Row):
                raise UserError("the data has changed while it was read", where="data", expected="the same rows twice")
            if mark & (TRAIN | HELD_OUT):
                assert isinstance(row, Row)
                yield bool(mark & HELD_OUT), _flipped(row) if mark & TRAIN and mark & FLIPPED else row


def choose_held_out(group_hashes: NDArray[np.float64], fraction: float) -> NDArray[np.bool_]:
    """Choose held-out rows by the hashes of their groups.

    A group is held out if its own hash is below `fraction`, so that every subset of the data and every seed is split
    the same way. At least one group is on each side.

    Args:
        group_hashes: (N,) one number in [0, 1) for each row, equal within a group.
        fraction: Expected fraction of groups to hold out.

    Returns:
        (N,) True for held-out rows.

    Raises:
        UserError: All rows belong to one group.
    """
    groups = np.unique(group_hashes)
    if len(groups) < 2:
        raise UserError(
            "nothing can be held out: all rows have the same prompt group", where="data",
            expected="at least two different first turns, or a separate file for the test split",
        )  # fmt: skip
    wanted = int((groups < fraction).sum())
    return group_hashes <= groups[min(max(wanted, 1), len(groups) - 1) - 1]


def without_tie(row: Row | Skipped) -> Row | Skipped:
    """Return a row that is marked as a tie as skipped, for objectives that take none."""
    if isinstance(row, Skipped) or row.columns.get(TIE) != 1:
        return row
    return Skipped(row.id, "all scores are equal" if row.scores_are_equal else "no completion is better")


def _checked(row: Row | Skipped) -> Row | Skipped:
    if not _is_unicode(row.id):
        row = replace(row, id=row.id.encode("utf-8", "backslashreplace").decode())
    size = 0
    if isinstance(row, Row):
        completions = [[one.text, one.context] for one in row.completions]
        for text in strings([row.prompt, row.tools, row.template_kwargs, completions]):
            size += len(text)
            if not _is_unicode(text):
                detail = "an unpaired surrogate, as in an emoji that was cut in half"
                return Skipped(row.id, "not valid Unicode", detail)
    return Skipped(row.id, f"over {MOST_CHARACTERS:,} characters") if size > MOST_CHARACTERS else row


def _is_unicode(text: str) -> bool:
    """Return True for valid Unicode. JSON can hold unpaired surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_unique_ids(rows: Iterable[Row | Skipped]) -> None:
    (id, count), *_ = Counter(row.id for row in rows if isinstance(row, Row)).most_common(1)
    if count > 1:
        raise UserError(f"{count} rows have the id '{id}'", where="data", expected="a unique id for every row")


def _is_flipped(row: Row, source: DataSource) -> bool:
    return _uniform_hash(f"noise {source.label_noise_seed} {row.id}") < source.label_noise


def _uniform_hash(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big") / 2**64


def _flipped(row: Row) -> Row:
    """Reverse the texts and keep scores and labels in place, as a mistaken annotator would."""
    completions = row.completions
    if len(completions) == 1:
        label = {"desirable": 1 - completions[0].columns["desirable"]}
        return replace(row, completions=(replace(completions[0], columns={**completions[0].columns, **label}),))
    swapped = zip(reversed(completions), completions, strict=True)
    return replace(row, completions=tuple(replace(text, columns=own.columns) for text, own in swapped))
