from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.core.errors import RunFailed, UserError
from alignzoo.data.hashing import uniform_hash
from alignzoo.data.row_reader import RowReader
from alignzoo.data.splits import _flipped, read_rows
from alignzoo.interfaces.data_source import DataSource, Split
from alignzoo.interfaces.rows import Completion, Row, Skipped


def a_row(i: int | str, group: str | None = None) -> Row:
    return Row(f"f:{i}", f"prompt {i}", (Completion(f"good {i}"), Completion(f"bad {i}")), group or f"group {i}")


class Given(DataSource):
    """Rows that a test gives."""

    name = "given"
    model_config = DataSource.model_config | {"arbitrary_types_allowed": True}
    train: tuple = ()
    test: tuple | None = None

    def splits(self) -> tuple[Split, ...]:
        return ("train",) if self.test is None else ("train", "test")

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        yield from self.train if split == "train" else self.test or ()


ROWS = tuple(a_row(i) for i in range(400))
TWINS = tuple(a_row(i, f"group {i // 2}") for i in range(400))


def ids(rows: list[Row]) -> set[str]:
    return {row.id for row in rows}


def test_an_own_test_split_is_used_as_it_is():
    rows = read_rows(Given(train=ROWS[:5], test=ROWS[5:8]))
    assert (rows.train, rows.held_out, rows.held_out_from_train) == (list(ROWS[:5]), list(ROWS[5:8]), False)


def test_rows_in_both_splits_are_counted():
    swapped = Row("other:1", "prompt 1", (Completion("bad 1"), Completion("good 1")), "x")
    other = Row("other:2", "prompt 2", (Completion("good 2"), Completion("worse 2")), "x")
    held_out = (replace(ROWS[0], id="other:0"), swapped, other, Skipped("other:3", "why"), replace(ROWS[4], id="o"))
    assert read_rows(Given(train=ROWS[:5], test=held_out)).overlap["rows"] == 3
    assert read_rows(Given(train=ROWS[:5], test=held_out, max_train_rows=4)).overlap["rows"] == 2, (
        "of the rows that are used"
    )
    assert read_rows(Given(train=ROWS[:5], test=held_out, label_noise=1)).overlap["rows"] == 3
    assert read_rows(Given(train=TWINS)).overlap["rows"] == 0


class Breaks(Given):
    """Its code fails at the third row."""

    name = "breaks"

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        yield from self.train[:2]
        raise LookupError("no third row")


@pytest.mark.parametrize("read", [read_rows, lambda source: RowReader(source).plan])
def test_a_source_that_raises_is_named_with_its_line(read):
    words = (
        r"^the data source breaks, reading its train split, raised LookupError: no third row \(.*test_splits\.py:\d+\)"
    )
    with pytest.raises(RunFailed, match=words):
        read(Breaks(train=ROWS))


def test_the_held_out_share_is_about_what_was_asked():
    rows = read_rows(Given(train=ROWS, held_out_fraction=0.25))
    assert rows.held_out_from_train
    assert len(rows.train) + len(rows.held_out) == 400
    assert 70 < len(rows.held_out) < 130


def test_the_split_of_a_row_depends_on_its_group_alone():
    held = ids(read_rows(Given(train=TWINS)).held_out)
    shuffled = list(TWINS)
    Random(1).shuffle(shuffled)
    assert ids(read_rows(Given(train=tuple(shuffled))).held_out) == held
    for part in (TWINS[:200], TWINS[::2], TWINS[1::2]):
        assert ids(read_rows(Given(train=part)).held_out) == held & ids(list(part))
    assert ids(read_rows(Given(train=TWINS, label_noise=0.5, label_noise_seed=3)).held_out) == held
    assert ids(read_rows(Given(train=TWINS, held_out_fraction=0.2)).held_out) > held
    renamed = read_rows(Given(train=tuple(replace(row, id=f"another {row.id}") for row in TWINS)))
    assert ids(renamed.held_out) == {f"another {id}" for id in held}


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.floats(0.01, 0.99))
def test_no_group_is_on_both_sides_and_neither_side_is_empty(groups, share):
    rows = [a_row(i, f"group {group}") for i, group in enumerate(groups)]
    if len(set(groups)) < 2:
        with pytest.raises(UserError, match="nothing can be held out: all rows have the same prompt group"):
            read_rows(Given(train=tuple(rows), held_out_fraction=share))
        return
    found = read_rows(Given(train=tuple(rows), held_out_fraction=share))
    train, held_out = found.train, found.held_out
    assert train
    assert held_out
    assert not {row.group for row in train} & {row.group for row in held_out}
    assert sorted(ids(train) | ids(held_out)) == sorted(ids(rows))
    assert [row for row in rows if row in train] == train, "the order is the source's"


def plainly_read(source: Given) -> tuple[list[Row], list[Row], int, int]:
    """The oracle, with all rows in lists: training rows, held-out rows, how many are flipped, how many left out."""
    train, held_out = list(source.train), list(source.test or ())
    if source.test is None:
        place = {row.group: uniform_hash(f"held out {row.group}") for row in train}
        by_place = sorted(place, key=lambda group: place[group])
        wanted = sum(place[group] < source.held_out_fraction for group in by_place)
        held = set(by_place[: min(max(wanted, 1), len(by_place) - 1)])
        train, held_out = [row for row in train if row.group not in held], [row for row in train if row.group in held]
    whole = len(train) + len(held_out)
    train, held_out = train[: source.max_train_rows], held_out[: source.held_out_rows]
    flips = [uniform_hash(f"noise {source.label_noise_seed} {row.id}") < source.label_noise for row in train]
    noisy = [_flipped(row) if flip else row for row, flip in zip(train, flips, strict=True)]
    return noisy, held_out, sum(flips), whole - len(train) - len(held_out)


@given(
    groups=st.lists(st.integers(0, 6), min_size=2, max_size=25).filter(lambda groups: len(set(groups)) > 1),
    test=st.none() | st.integers(0, 3), share=st.floats(0.01, 0.99), noise=st.sampled_from([0.0, 0.4, 1.0]),
    limits=st.tuples(st.none() | st.integers(1, 20), st.none() | st.integers(1, 5)),
)  # fmt: skip
def test_a_survey_decides_as_the_plain_way_does(groups, test, share, noise, limits):
    rows = tuple(a_row(i, f"group {group}") for i, group in enumerate(groups))
    source = Given(
        train=rows, test=None if test is None else tuple(a_row(f"t{i}") for i in range(test)), held_out_fraction=share,
        label_noise=noise, max_train_rows=limits[0], held_out_rows=limits[1],
    )  # fmt: skip
    found = read_rows(source)
    assert (found.train, found.held_out, found.flipped, found.left_out) == plainly_read(source)


def test_limits_take_the_first_rows_and_count_the_rest():
    rows = read_rows(Given(train=ROWS[:10], test=ROWS[10:16], max_train_rows=4, held_out_rows=2))
    assert rows.train == list(ROWS[:4])
    assert rows.held_out == list(ROWS[10:12])
    assert (rows.read, rows.left_out) == (16, 10)


def test_label_noise_swaps_chosen_and_rejected_of_training_pairs_alone():
    rows = read_rows(Given(train=ROWS[:300], test=ROWS[300:], label_noise=0.3))
    flipped = [row for row in rows.train if row.completions[0].text.startswith("bad")]
    assert len(flipped) == rows.flipped
    assert 60 < rows.flipped < 120
    assert all(row.completions[0].text.startswith("good") for row in rows.held_out)
    assert [row.id for row in rows.train] == [row.id for row in ROWS[:300]]


def test_more_label_noise_flips_the_same_pairs_and_more():
    def flipped(**fields) -> set[str]:
        rows = read_rows(Given(train=ROWS[:300], test=ROWS[300:], **fields))
        return {row.id for row in rows.train if row.completions[0].text.startswith("bad")}

    assert flipped(label_noise=0) == set()
    assert flipped(label_noise=0.1) < flipped(label_noise=0.4) < flipped(label_noise=1) == ids(list(ROWS[:300]))
    assert flipped(label_noise=0.4, label_noise_seed=1) != flipped(label_noise=0.4)


def test_skipped_rows_are_kept_with_their_reasons():
    bad = Skipped("f:x", "empty completion", "chosen")
    rows = read_rows(Given(train=(*ROWS[:9], bad), test=ROWS[10:12]))
    assert (rows.read, rows.skipped, len(rows.train)) == (12, [bad], 9)


@pytest.mark.parametrize("place", ["prompt", "completion", "message"])
def test_half_a_surrogate_pair_is_skipped_and_never_reaches_the_tokenizer(place):
    half = "cut \ud83d"
    texts = {"prompt": (half, "x"), "completion": ("p", half), "message": (({"role": "user", "content": half},), "x")}
    prompt, answer = texts[place]
    bad = Row("f:bad", prompt, (Completion(answer), Completion("y")), "half")
    rows = read_rows(Given(train=(*ROWS[:9], bad), test=ROWS[10:12]))
    assert [(skipped.id, skipped.reason) for skipped in rows.skipped] == [("f:bad", "not valid Unicode")]


def test_no_usable_row_says_why():
    with pytest.raises(UserError, match="no row can be used: chosen equals rejected, empty completion"):
        read_rows(Given(train=(Skipped("1", "empty completion"), Skipped("2", "chosen equals rejected"))))
    with pytest.raises(UserError, match="no row can be used: there are no rows"):
        read_rows(Given())
