"""From a source's rows to training and held-out rows: splits, limits and label noise, all independent of order."""

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
from alignzoo.interfaces.rows import Row, Skipped, strings

TRAIN, HELD_OUT, FLIPPED, NO_PAIR = 1, 2, 4, 8
Read = Callable[[Split], Iterable[Row | Skipped]]
"""Reads a split from its beginning."""


@dataclass
class Rows:
    """What was read: usable rows, the others with their reasons, and counts."""

    train: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    read: int = 0
    flipped: int = 0
    in_both: int = 0
    """Held-out rows with the prompt and the completions of a training row."""
    left_out: int = 0
    """Usable rows beyond `max_train_rows` and `held_out_rows`."""
    carved: bool = False
    """Whether the held-out rows were taken from the training split, for want of a test split."""


@dataclass
class SplitPlan:
    """What a first reading of a source tells, in a few bytes a row: what becomes of each, in the order of reading."""

    rows: Rows
    """The counts and the skipped rows; its lists are empty."""
    marks: dict[Split, NDArray[np.uint8]]
    """For each split, of each row read: TRAIN or HELD_OUT where it is used, FLIPPED and NO_PAIR beside it."""

    def count(self, *wanted: int) -> int:
        """How many rows carry these marks."""
        whole = sum(wanted)
        return sum(int((marks & whole == whole).sum()) for marks in self.marks.values())

    @property
    def pairs(self) -> bool:
        """Whether every row that is used has two completions."""
        return not self.count(TRAIN, NO_PAIR) + self.count(HELD_OUT, NO_PAIR)


def read_rows(source: DataSource) -> Rows:
    """Read a source, hold rows out, apply its limits, and flip the share of training labels that it asks for.

    Raises UserError when no row can be used, when two have one id, or when nothing can be held out.
    """
    every = {split: list(rows_of(source, split)) for split in source.splits()}
    found = survey(source, lambda split: every[split])
    for held_out, row in used_rows(found, lambda split: every[split]):
        (found.rows.held_out if held_out else found.rows.train).append(row)
    return found.rows


def rows_of(source: DataSource, split: Split) -> Iterator[Row | Skipped]:
    """A split's rows as they are read; what the source's code raises is told as a RunFailed that names it."""
    with attribute_errors(f"the data source {source.name}, reading its {split} split,", source):
        yield from source.read(split)


def survey(source: DataSource, read: Read) -> SplitPlan:
    """Look at every row once and keep none: what `read_rows` decides, for data that is not to be held in memory."""
    splits = source.splits()
    found = SplitPlan(Rows(carved=len(splits) == 1), {})
    ids, places = array("q"), array("d")
    contents: dict[Split, array[int]] = {split: array("q") for split in splits}
    for split in splits:
        marks = bytearray()
        for row in map(_checked, read(split)):
            if isinstance(row, Skipped):
                found.rows.skipped.append(row)
                marks.append(0)
                contents[split].append(0)
                continue
            contents[split].append(_content(row))
            ids.append(hash(row.id))
            if found.rows.carved:
                places.append(_unit(f"held out {row.group}"))
            mark = TRAIN if split == "train" else HELD_OUT
            mark |= FLIPPED if source.label_noise and _is_flipped(row, source) else 0
            marks.append(mark | (NO_PAIR if len(row.completions) != 2 else 0))
        found.rows.read += len(marks)
        found.marks[split] = np.frombuffer(marks, np.uint8).copy()
    if not found.count(TRAIN):
        reasons = ", ".join(sorted({skipped.reason for skipped in found.rows.skipped})) or "there are no rows"
        raise UserError(f"no row can be used: {reasons}", where="data")
    if len(np.unique(np.frombuffer(ids, np.int64))) < len(ids):
        _ids_are_unique(row for split in splits for row in map(_checked, read(split)))
    if found.rows.carved:
        usable = np.flatnonzero(found.marks["train"])
        held_out = usable[choose_held_out(np.frombuffer(places), source.held_out_fraction)]
        found.marks["train"][held_out] ^= TRAIN | HELD_OUT
    for side, most in ((TRAIN, source.max_train_rows), (HELD_OUT, source.held_out_rows)):
        for own in found.marks.values():
            beyond = np.flatnonzero(own & side)[len(own) if most is None else most :]
            own[beyond] &= ~np.uint8(side)
            found.rows.left_out += len(beyond)
    found.rows.flipped = found.count(TRAIN, FLIPPED)
    found.rows.in_both = _in_both(found.marks, contents)
    return found


def _content(row: Row) -> int:
    """64 bits of a row's prompt and completions, in whatever order these are."""
    text = repr((row.prompt, sorted(repr((one.context, one.text)) for one in row.completions)))
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big", signed=True)


def _in_both(marks: dict[Split, NDArray[np.uint8]], contents: dict[Split, array[int]]) -> int:
    trained, held_out = (
        np.concatenate([np.frombuffer(contents[split], np.int64)[own & side > 0] for split, own in marks.items()])
        for side in (TRAIN, HELD_OUT)
    )
    return int(np.isin(held_out, trained).sum())


def used_rows(found: SplitPlan, read: Read) -> Iterator[tuple[bool, Row]]:
    """Whether it is held out, and the row, of every row that is used, in the order of reading; labels flipped."""
    for split, marks in found.marks.items():
        rows = iter(read(split))
        for mark in marks.tolist():
            row = next(rows, None)
            if mark and not isinstance(row, Row):
                raise UserError("the data has changed while it was read", where="data", expected="the same rows twice")
            if mark & (TRAIN | HELD_OUT):
                assert isinstance(row, Row)
                yield bool(mark & HELD_OUT), _flipped(row) if mark & TRAIN and mark & FLIPPED else row


def choose_held_out(places: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Which rows are held out, by the places in [0, 1) of their groups: a group is held out by its own hash, so every
    subset and every seed splits alike.

    At least one group goes to either side, whatever chance says of a small file. Raises UserError for a single group.
    """
    groups = np.unique(places)
    if len(groups) < 2:
        raise UserError(
            "nothing can be held out: all rows have the same prompt group", where="data",
            expected="two different first turns at least, or a file of its own for the test split",
        )  # fmt: skip
    wanted = int((groups < share).sum())
    return places <= groups[min(max(wanted, 1), len(groups) - 1) - 1]


def _checked(row: Row | Skipped) -> Row | Skipped:
    if isinstance(row, Row) and not _is_unicode(row):
        return Skipped(row.id, "not valid Unicode", "half of a surrogate pair, as when an emoji is cut in two")
    return row


def _is_unicode(row: Row) -> bool:
    """Whether a tokenizer can read every text: JSON can hold half of a surrogate pair, which is no character."""
    try:
        for text in strings([row.prompt, row.tools, [[one.text, one.context] for one in row.completions]]):
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ids_are_unique(rows: Iterable[Row | Skipped]) -> None:
    """Label noise, samples and scores name rows by their ids."""
    (id, count), *_ = Counter(row.id for row in rows if isinstance(row, Row)).most_common(1)
    if count > 1:
        raise UserError(f"{count} rows have the id '{id}'", where="data", expected="an id of its own for every row")


def _is_flipped(row: Row, source: DataSource) -> bool:
    return _unit(f"noise {source.label_noise_seed} {row.id}") < source.label_noise


def _unit(text: str) -> float:
    """A number in [0, 1) that is a function of the text."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big") / 2**64


def _flipped(row: Row) -> Row:
    """The row as a mistaken annotator labels it: the texts change places, scores and labels stay where they are."""
    ones = row.completions
    if len(ones) == 1:
        label = {"desirable": 1 - ones[0].columns["desirable"]}
        return replace(row, completions=(replace(ones[0], columns={**ones[0].columns, **label}),))
    texts = zip(reversed(ones), ones, strict=True)
    return replace(row, completions=tuple(replace(text, columns=place.columns) for text, place in texts))
