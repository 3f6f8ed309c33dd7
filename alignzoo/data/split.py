"""From a source's rows to training and held-out rows: splits, limits and label noise, all independent of order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from alignzoo.data.rows import Row, Skipped
from alignzoo.data.source import DataSource
from alignzoo.errors import UserError


@dataclass
class Rows:
    """What was read: usable rows, the others with their reasons, and counts."""

    train: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    read: int = 0
    flipped: int = 0
    left_out: int = 0
    """Usable rows beyond `train_rows` and `held_out_rows`."""
    carved: bool = False
    """Whether the held-out rows were taken from the training split, for want of a test split."""


def read_rows(source: DataSource) -> Rows:
    """Read a source, hold rows out, apply its limits, and flip the share of training labels that it asks for.

    Raises UserError when no row can be used, when two have one id, or when nothing can be held out.
    """
    rows = Rows(carved=len(source.splits()) == 1)
    usable: dict[str, list[Row]] = {}
    for split in source.splits():
        usable[split] = []
        for row in source.read(split):
            rows.read += 1
            if isinstance(row, Row) and not _is_unicode(row):
                row = Skipped(row.id, "not valid Unicode", "half of a surrogate pair, as when an emoji is cut in two")
            if isinstance(row, Row):
                usable[split].append(row)
            else:
                rows.skipped.append(row)
    train = usable["train"]
    if not train:
        reasons = ", ".join(sorted({skipped.reason for skipped in rows.skipped})) or "there are no rows"
        raise UserError(f"no row can be used: {reasons}", where="data")
    _ids_are_unique([row for part in usable.values() for row in part])
    train, held_out = carve(train, source.held_out) if rows.carved else (train, usable["test"])
    rows.held_out = held_out[: source.held_out_rows]
    for row in train[: source.train_rows]:
        flip = _unit(f"noise {source.label_noise_seed} {row.id}") < source.label_noise
        rows.flipped += flip
        rows.train.append(_flipped(row) if flip else row)
    rows.left_out = len(train) + len(held_out) - len(rows.train) - len(rows.held_out)
    return rows


def carve(rows: list[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows; a group is held out by its own hash, so every subset and every seed splits alike.

    At least one group goes to either side, whatever chance says of a small file. Raises UserError for a single group.
    """
    place = {row.group: _unit(f"held out {row.group}") for row in rows}
    if len(place) < 2:
        raise UserError(
            "nothing can be held out: all rows have the same prompt group", where="data",
            expected="two different first turns at least, or a file of its own for the test split",
        )  # fmt: skip
    by_place = sorted(place, key=lambda group: place[group])
    wanted = sum(place[group] < share for group in by_place)
    held = set(by_place[: min(max(wanted, 1), len(by_place) - 1)])
    return [row for row in rows if row.group not in held], [row for row in rows if row.group in held]


def _is_unicode(row: Row) -> bool:
    """Whether a tokenizer can read every text: JSON can hold half of a surrogate pair, which is no character."""
    texts = [row.prompt, *(part for completion in row.completions for part in (completion.text, completion.context))]
    try:
        for text in texts:
            for piece in (text,) if isinstance(text, str) else (message["content"] for message in text):
                piece.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ids_are_unique(rows: list[Row]) -> None:
    """Label noise, samples and scores name rows by their ids."""
    id, count = next(iter(Counter(row.id for row in rows).most_common(1)), ("", 0))
    if count > 1:
        raise UserError(f"{count} rows have the id '{id}'", where="data", expected="an id of its own for every row")


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
