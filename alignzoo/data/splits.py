"""Split a source's rows into training and held-out rows; apply limits and label noise."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.errors import UserError, attribute_errors
from alignzoo.data.content import Content, content_of, is_first
from alignzoo.data.hashing import uniform_hash
from alignzoo.data.mixing import drawn, draws, interleave, shares
from alignzoo.data.prefixes import as_prefix
from alignzoo.data.split_plan import (
    ALONE,
    DROPPED,
    FLIPPED,
    HELD_OUT,
    NO_PAIR,
    OUTSIDE,
    TRAIN,
    UNUSABLE,
    Place,
    SplitPlan,
    SplitRows,
)
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.rows import TIE, Row, Skipped, strings

MOST_CHARACTERS = 1_000_000
"""Limit of the texts of a row. A tokenizer takes a hundred bytes a character, and fails on a few hundred million."""
ReadSplit = Callable[[Place], Iterable[Row | Skipped]]
"""Function that reads a split from its beginning."""


def read_rows(source: DataSource) -> SplitRows:
    """Read a source, hold rows out, apply its limits, and flip some training labels.

    The share of flipped labels is `label_noise`. The held-out rows and the flipped labels do not depend on the order of
    the rows.

    Raises:
        UserError: No row can be used, two rows have the same id, or no row can be held out.
    """
    rows = {place: list(rows_of(source, place)) for place in places(source)}
    plan = plan_splits(source, lambda place: rows[place])
    for held_out, row in used_rows(plan, lambda place: rows[place]):
        (plan.rows.held_out if held_out else plan.rows.train).append(row)
    return plan.rows


def places(source: DataSource, evaluation: bool = False) -> list[Place]:
    """Return the splits that are read, of each source of a mixture.

    Args:
        source: The source.
        evaluation: Read the rows of an evaluation set: those of the test split, or of a source without one all rows.
    """
    found: list[Place] = []
    for name, part in source.parts.items():
        splits = part.splits()
        found += [(name, split) for split in splits if not evaluation or split == splits[-1]]
    return found


def rows_of(source: DataSource, place: Place) -> Iterator[Row | Skipped]:
    """Yield a split's rows, with those that can't be tokenized as skipped.

    In a mixture, ids begin with the source's name. Errors of the source's code become a RunFailed that names the
    source.
    """
    name, split = place
    part = source.parts[name]
    with attribute_errors(f"the data source {part.name}, reading its {split} split,", part):
        for found in part.read(split):
            row = _checked(found if source.takes_ties else without_tie(found))
            if part.prefix_tokens is not None and isinstance(row, Row):
                row = as_prefix(row, part.prefix_tokens)
            yield replace(row, id=f"{name}/{row.id}") if name else row


def plan_splits(source: DataSource, read: ReadSplit, evaluation: bool = False) -> SplitPlan:
    """Decide the use of every row in one pass that keeps no row in memory.

    Args:
        source: The source.
        read: Reads its splits.
        evaluation: All rows that are read are held out, as an evaluation set.

    Raises:
        UserError: As `read_rows` raises it.
    """
    plan = SplitPlan(source, SplitRows())
    ids = array("q")
    where = places(source, evaluation)
    for place in where:
        name, split = place
        part = source.parts[name]
        alone = not evaluation and (name, "test") not in where and part.held_out_fraction > 0
        groups = array("d")
        prompts, rows = array("q"), array("q")
        marks = bytearray()
        for row in read(place):
            if isinstance(row, Skipped):
                plan.rows.skipped.append(row)
                marks.append(UNUSABLE)
                prompts.append(0)
                rows.append(0)
                continue
            prompt, whole = content_of(row)
            prompts.append(prompt)
            rows.append(whole)
            if part.group_range is not None and not in_range(row.group, part.group_range):
                marks.append(OUTSIDE)
                continue
            ids.append(hash(row.id))
            if alone:
                groups.append(uniform_hash(f"held out {row.group}"))
            mark = TRAIN if split == "train" and not evaluation else HELD_OUT
            noisy = part.label_noise and row.has_preference and _is_flipped(row, part)
            mark |= FLIPPED if noisy else 0
            mark |= 0 if row.completions else ALONE
            marks.append(mark | (NO_PAIR if len(row.completions) != 2 else 0))
        plan.rows.read += len(marks)
        plan.marks[place] = own = np.frombuffer(marks, np.uint8).copy()
        plan.hashes[place] = Content(np.frombuffer(prompts, np.int64), np.frombuffer(rows, np.int64))
        if alone and len(groups):
            held_out = choose_held_out(np.frombuffer(groups), part.held_out_fraction, name)
            own[np.flatnonzero(own & TRAIN)[held_out]] ^= TRAIN | HELD_OUT
            plan.rows.from_training += (name,)
    if not plan.count(HELD_OUT if evaluation else TRAIN):
        reasons = ", ".join(sorted({skipped.reason for skipped in plan.rows.skipped})) or "there are no rows"
        raise UserError(f"no row can be used: {reasons}", where="data")
    if len(np.unique(np.frombuffer(ids, np.int64))) < len(ids):
        _check_unique_ids(row for place in where for row in read(place))
    if source.deduplicate:
        plan.rows.deduplicated = _drop_repeats(plan)
    used = plan.count(TRAIN) + plan.count(HELD_OUT)
    _limit(plan)
    plan.rows.left_out = used + plan.count(OUTSIDE) - plan.count(TRAIN) - plan.count(HELD_OUT)
    plan.rows.flipped = plan.count(TRAIN, FLIPPED)
    train, held = plan.content(TRAIN), plan.content(HELD_OUT)
    plan.rows.overlap = held.also_in(train)
    plan.rows.duplicates = {"train": train.repeats(), "held_out": held.repeats()}
    plan.rows.sources = {} if "" in source.parts else plan.by_source()
    plan.rows.held_out_wanted = evaluation or holds_out(source, where)
    return plan


def in_range(group: str, limits: tuple[float, float]) -> bool:
    """Return True if a prompt group is one of those of `data.group_range`."""
    return limits[0] <= uniform_hash(f"group {group}") < limits[1]


def holds_out(source: DataSource, where: Sequence[Place]) -> bool:
    """Return True unless the recipe asks for no held-out row.

    `where` are the source's `places`.
    """
    return source.held_out_rows != 0 and any(
        part.held_out_rows != 0 and (part.held_out_fraction > 0 or (name, "test") in where)
        for name, part in source.parts.items()
    )


def _drop_repeats(plan: SplitPlan) -> int:
    """Mark repeated rows of each side, and training rows that are held out too, as dropped.

    The first of equal rows on a side stays.
    """
    held_out = plan.content(HELD_OUT).rows
    for side in (HELD_OUT, TRAIN):
        content = plan.content(side).rows
        kept = is_first(content)
        if side == TRAIN:
            kept &= ~np.isin(content, held_out)
        at = 0
        for own in plan.marks.values():
            used = np.flatnonzero(own & side)
            own[used[~kept[at : at + len(used)]]] = DROPPED
            at += len(used)
    return plan.count(DROPPED)


def _limit(plan: SplitPlan) -> None:
    """Apply the limits of each source, then the weights and the limits of a mixture."""
    source = plan.source
    for side, key in ((TRAIN, "max_train_rows"), (HELD_OUT, "held_out_rows")):
        for place, own in plan.marks.items():
            _keep(own, side, getattr(source.parts[place[0]], key))
        if "" in source.parts:
            continue
        if side == TRAIN and plan.count(TRAIN) and (weights := getattr(source, "weights", None)):
            counts = [plan.count(TRAIN, part=name) for name in source.parts]
            if 0 in counts:
                empty = list(source.parts)[counts.index(0)]
                raise UserError(f"no row of {empty} is left to train on, and it has a weight", where="data.weights")
            wanted_of = draws(counts, weights)
            if 0 in wanted_of:
                raise _none_drawn(list(source.parts), counts, weights, wanted_of.index(0))
            for name, wanted in zip(source.parts, wanted_of, strict=True):
                own = plan.marks[name, "train"]
                used = np.flatnonzero(own & TRAIN)
                content = plan.hashes[name, "train"].rows[used]
                chosen = drawn(content, wanted, source.seed, name)  # type: ignore[attr-defined]
                own[used[~chosen]] &= ~np.uint8(TRAIN)
        limit = getattr(source, key)
        if limit is not None:
            counts = [plan.count(side, part=name) for name in source.parts]
            for name, most in zip(source.parts, shares(counts, limit), strict=True):
                for place in [place for place in plan.marks if place[0] == name]:
                    _keep(plan.marks[place], side, most)


def _none_drawn(names: Sequence[str], counts: Sequence[int], weights: Sequence[float], n: int) -> UserError:
    """Return the error for a source of which the weights draw no row."""
    ratios = [count / weight for count, weight in zip(counts, weights, strict=True)]
    least = ratios.index(min(ratios))
    first = f"the {counts[least]:,} of {names[least]} are used up first"
    return UserError(
        f"none of the {counts[n]:,} rows of {names[n]} are drawn: {first}",
        where=f"data.weights.{n}", expected=f"a weight above {0.5 / ratios[least]:.4g}, or no such source",
    )  # fmt: skip


def _keep(marks: NDArray[np.uint8], side: int, limit: int | None) -> None:
    """Use the first `limit` rows of a side alone. A source has each side in one split."""
    if limit is not None:
        marks[np.flatnonzero(marks & side)[limit:]] &= ~np.uint8(side)


def used_rows(plan: SplitPlan, read: ReadSplit) -> Iterator[tuple[bool, Row]]:
    """Yield (is held out, row) for every row that is used, with labels flipped.

    The order is that of reading. The training rows of a mixture's sources are interleaved.

    Raises:
        UserError: The data changed since the plan was made.
    """
    names = plan.source.parts
    counts = {name: plan.count(TRAIN, part=name) for name in names}
    streams = {name: _used_of(plan, name, read) for name in names}
    return interleave(streams, counts, getattr(plan.source, "seed", 0))


def _used_of(plan: SplitPlan, name: str, read: ReadSplit) -> Iterator[tuple[bool, Row]]:
    for place, marks in plan.marks.items():
        if place[0] != name:
            continue
        rows = iter(read(place))
        for mark in marks.tolist():
            row = next(rows, None)
            if mark & (TRAIN | HELD_OUT) and not isinstance(row, Row):
                raise UserError("the data has changed while it was read", where="data", expected="the same rows twice")
            if mark & (TRAIN | HELD_OUT):
                assert isinstance(row, Row)
                yield bool(mark & HELD_OUT), _flipped(row) if mark & TRAIN and mark & FLIPPED else row


def choose_held_out(group_hashes: NDArray[np.float64], fraction: float, name: str = "") -> NDArray[np.bool_]:
    """Choose held-out rows by the hashes of their groups.

    A group is held out if its own hash is below `fraction`, so that every subset of the data and every seed is split
    the same way. At least one group is on each side.

    Args:
        group_hashes: (N,) one number in [0, 1) for each row, equal within a group.
        fraction: Expected fraction of groups to hold out.
        name: The source in a mixture.

    Returns:
        (N,) True for held-out rows.

    Raises:
        UserError: All rows belong to one group.
    """
    groups = np.unique(group_hashes)
    if len(groups) < 2:
        raise UserError(
            "nothing can be held out: all rows have the same prompt group",
            where=f"data.of: {name}" if name else "data",
            expected="at least two different first turns, or a separate file for the test split",
            hint="held_out_fraction: 0 trains on every row, and eval.data names other rows to evaluate",
        )  # fmt: skip
    wanted = int((groups < fraction).sum())
    return group_hashes <= groups[min(max(wanted, 1), len(groups) - 1) - 1]


def without_tie(row: Row | Skipped) -> Row | Skipped:
    """Return a row that is marked as a tie as skipped, for objectives that take none."""
    if isinstance(row, Skipped) or row.columns.get(TIE) != 1:
        return row
    return Skipped(row.id, "all scores are equal") if row.scores_are_equal else Skipped(row.id, "no preference", TIE)


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
    return uniform_hash(f"noise {source.label_noise_seed} {row.id}") < source.label_noise


def _flipped(row: Row) -> Row:
    """Reverse the texts and keep scores and labels in place, as a mistaken annotator would."""
    completions = row.completions
    if len(completions) == 1:
        label = {"desirable": 1 - completions[0].columns["desirable"]}
        return replace(row, completions=(replace(completions[0], columns={**completions[0].columns, **label}),))
    swapped = zip(reversed(completions), completions, strict=True)
    return replace(row, completions=tuple(replace(text, columns=own.columns) for text, own in swapped))
