"""Write token trees and rows to disk in parts, and read them back memory-mapped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.arrays import (
    ArrayWriter,
    StringArray,
    in_parts,
    mmap_bytes,
    mmap_safetensors,
    offsets_fit,
    write_safetensors,
)
from alignzoo.core.door import BadFile, parse_row, translate
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.trees import Trees
from alignzoo.interfaces.rows import Completion, Row, Skipped, Text

ARRAYS, COLUMN = ("tokens", "segments", "trees", "spans", "span_cuts"), "column "
TYPES = {
    "tokens": np.int32, "segments": np.int64, "trees": np.int64, "spans": np.int32, "span_cuts": np.int64,
    "keys": np.uint8, "ids": np.uint8, "id_cuts": np.int64, "row_cuts": np.int64, "cut": np.int32,
}  # fmt: skip


class TreeWriter:
    """Writer of trees that arrive in parts, in memory that does not grow with their number.

    Args:
        folder: New folder for arrays until `save` writes them to one file.
        rows: File for the rows as JSON lines. None discards the rows.
        most: Number of rows that are kept, the first ones; None for all.
    """

    def __init__(self, folder: Path, rows: Path | None = None, most: int | None = None) -> None:
        folder.mkdir()
        self._most = most
        self.folder, self.size, self.mismatched = folder, 0, False
        self._arrays = {name: ArrayWriter(folder / name, type) for name, type in TYPES.items()}
        self._columns: dict[str, ArrayWriter] = {}
        self._rows = open(rows, "wb") if rows else None
        self._skipped: tuple[list[Skipped], list[Skipped]] = ([], [])
        self.truncated_prompts = self.truncated_completions = 0
        self.boundary: Counter[str] = Counter()
        self.further_pairs: Counter[str] = Counter()
        for name in ("segments", "trees", "span_cuts", "id_cuts", "row_cuts"):
            self._arrays[name].append(np.zeros(1))

    def add(self, part: TokenizedRows, unconverted: Sequence[Skipped] = ()) -> None:
        """Append a part with its counts.

        `unconverted` are rows that were skipped before tokenization.
        """
        self._skipped[0].extend(part.skipped)
        self._skipped[1].extend(unconverted)
        self.truncated_prompts += part.truncated_prompts
        self.truncated_completions += part.truncated_completions
        self.boundary += part.boundary
        self.add_trees(part.trees)
        self._append("cut", np.asarray(part.cut))
        if self._rows:
            kept = self._arrays["row_cuts"].size - 1
            rows = part.rows if self._most is None else part.rows[: max(0, self._most - kept)]
            lines = StringArray.of(json.dumps(row_to_json(row)) + "\n" for row in rows)
            self._append("row_cuts", lines.cuts[1:] + self._rows.tell())
            self._rows.write(lines.raw.tobytes())

    def add_trees(self, trees: Trees) -> None:
        """Append trees. All parts must have the same columns."""
        ids, arrays = StringArray.of(trees.ids), self._arrays
        self._append("trees", trees.trees[1:] + (arrays["segments"].size - 1))
        self._append("segments", trees.segments[1:] + arrays["tokens"].size)
        self._append("span_cuts", trees.span_cuts[1:] + arrays["spans"].size // 2)
        self._append("id_cuts", ids.cuts[1:] + arrays["ids"].size)
        self._append("tokens", trees.tokens)
        self._append("spans", trees.spans.reshape(-1))
        self._append("ids", ids.raw)
        self._append("keys", trees.keys.reshape(-1))
        for name, values in trees.columns.items():
            if name not in self._columns:
                self._columns[name] = ArrayWriter(self.folder / f"column {len(self._columns)}", np.float32)
            self._columns[name].append(values)
        self.size += len(trees)
        self.mismatched |= trees.mismatched

    def _append(self, name: str, values: NDArray[Any]) -> None:
        self._arrays[name].append(values)

    @property
    def skipped(self) -> list[Skipped]:
        """All skipped rows, in the order of `prepare`: those skipped by tokenization first."""
        return [*self._skipped[0], *self._skipped[1]]

    def trees(self, without: Sequence[str] = ()) -> Trees:
        """Return all trees, memory-mapped, except the columns in `without`.

        This ends writing: no part can be added after it.
        """
        arrays = {name: writer.whole() for name, writer in self._arrays.items()}
        columns = {name: writer.whole() for name, writer in self._columns.items() if name not in without}
        return trees_from(arrays | {COLUMN + name: values for name, values in columns.items()}, self.mismatched)

    def save(self, trees: Trees, path: Path) -> None:
        """Write trees to one file that `read_stored` reads.

        The trees are `self.trees()`, or derived from them.
        """
        assert isinstance(trees.ids, StringArray)
        arrays: dict[str, NDArray[Any]] = {name: getattr(trees, name) for name in (*ARRAYS, "keys")}
        arrays |= {"ids": trees.ids.raw, "id_cuts": trees.ids.cuts, "row_cuts": self._arrays["row_cuts"].whole(),
                   "cut": self._arrays["cut"].whole()}  # fmt: skip
        write_safetensors(path, arrays | {COLUMN + name: values for name, values in trees.columns.items()})
        if self._rows:
            self._rows.close()


class StoredRows(Sequence[Row]):
    """Sequence of rows in a file of JSON lines. Indexing parses one row."""

    def __init__(self, path: Path, cuts: NDArray[np.int64]) -> None:
        self._path, raw = path, mmap_bytes(path)
        if not offsets_fit(cuts, len(raw)):
            raise BadFile("damaged: its lines are not where the trees have them", where=str(path))
        self._lines = StringArray(raw, cuts)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        lines = self._lines[index]
        return [self._row(line) for line in lines] if isinstance(index, slice) else self._row(lines)

    def _row(self, line: str) -> Row:
        with translate(self._path, "a row", "`alignzoo cache prune --all` removes the stored tokens"):
            return row_from_json(parse_row(line, self._path))

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))


def trees_from(arrays: Mapping[str, NDArray[Any]], mismatched: bool) -> Trees:
    """Build trees from the arrays of `TreeWriter`, by name."""
    columns = {name.removeprefix(COLUMN): values for name, values in arrays.items() if name.startswith(COLUMN)}
    tokens, segments, trees, spans, span_cuts = (arrays[name] for name in ARRAYS)
    ids, keys = StringArray(arrays["ids"], arrays["id_cuts"]), arrays["keys"].reshape(-1, 16)
    return Trees(ids, tokens, segments, trees, spans.reshape(-1, 2), span_cuts, columns, mismatched, keys)


def read_stored(path: Path, rows: Path | None, mismatched: bool) -> TokenizedRows:
    """Memory-map the file that `TreeWriter.save` wrote, and check its arrays.

    Args:
        path: The file.
        rows: The file of the rows, None if they were discarded.
        mismatched: As of `Trees`.

    Raises:
        BadFile: A file can't be read, or an index in it is out of range.
    """
    arrays = mmap_safetensors(path)
    if why := _misfit(arrays):
        raise BadFile(f"damaged: {why}", where=str(path))
    kept = StoredRows(rows, arrays["row_cuts"]) if rows else ()
    return TokenizedRows(trees_from(arrays, mismatched), kept, cut=arrays["cut"])


def _misfit(arrays: Mapping[str, NDArray[Any]]) -> str:
    """What is wrong with the arrays of a file, or ""."""
    columns = [name for name in arrays if name.startswith(COLUMN)]
    for name, dtype in (TYPES | dict.fromkeys(columns, np.float32)).items():
        if name not in arrays:
            return f"it lacks '{name}'"
        if arrays[name].dtype != dtype or arrays[name].ndim > 1 + (name in ("keys", "spans")):
            return f"'{name}' has another type or shape"
    if set(arrays) != set(TYPES) | set(columns):
        return "it has unknown arrays"
    tokens, segments, trees, spans, span_cuts = (arrays[name] for name in ARRAYS)
    count = len(segments) - 1
    if spans.size % 2 or len(span_cuts) != len(segments):
        return "its spans don't fit its completions"
    if not all(starmap(offsets_fit, ((segments, len(tokens)), (trees, count), (span_cuts, spans.size // 2)))):
        return "its offsets don't fit its arrays"
    cuts = arrays["id_cuts"]
    if len(cuts) != len(trees) or not offsets_fit(cuts, len(arrays["ids"])):
        return "its ids don't fit its trees"
    if len(arrays["cut"]) != len(trees) - 1:
        return "its truncated tokens don't fit its trees"
    lengths = np.diff(segments)
    if (np.diff(trees) < 1).any() or (lengths[trees[:-1]] < 1).any():
        return "a tree has no prompt"
    if any(part.min() < 0 for part in in_parts(tokens)):
        return "a token id is negative"
    if not trees_from(arrays, mismatched=False).spans_fit():
        return "a completion's spans are out of order or don't end with it"
    branches = count - (len(trees) - 1)
    if arrays["keys"].size != 16 * branches or any(len(arrays[name]) != branches for name in columns):
        return "its keys or columns don't fit its completions"
    return ""


def row_to_json(row: Row) -> dict[str, Any]:
    """Return a row as JSON values."""
    return {
        "id": row.id, "prompt": _as_json(row.prompt), "group": row.group, "columns": _numbers(row.columns),
        "completions": [[_as_json(one.text), _as_json(one.context), _numbers(one.columns)] for one in row.completions],
        "tools": None if row.tools is None else list(row.tools), "template_kwargs": dict(row.template_kwargs),
        "extra": dict(row.extra),
    }  # fmt: skip


def row_from_json(values: Mapping[str, Any]) -> Row:
    """Return the row that `row_to_json` converted."""
    completions = tuple(
        Completion(_as_text(text), _as_text(context), columns) for text, context, columns in values["completions"]
    )
    return Row(
        values["id"], _as_text(values["prompt"]), completions, values["group"], values["columns"],
        None if values["tools"] is None else tuple(values["tools"]), values["template_kwargs"], values["extra"],
    )  # fmt: skip


def _as_json(text: Text) -> str | list[dict[str, Any]]:
    return text if isinstance(text, str) else [dict(message) for message in text]


def _as_text(value: Any) -> Text:
    return value if isinstance(value, str) else tuple(value)


def _numbers(columns: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in columns.items()}  # a source may supply numpy numbers
