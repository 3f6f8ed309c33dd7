"""Token trees that go to disk as they are made, so that the memory of a million rows is that of a thousand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from alignzoo.core.arrays import ArrayWriter, StringArray, mmap_safetensors
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.trees import Trees
from alignzoo.interfaces.rows import Completion, Row, Skipped, Text

ARRAYS, COLUMN = ("tokens", "segments", "trees", "scored_from"), "column "
TYPES = {
    "tokens": np.int32, "segments": np.int64, "trees": np.int64, "scored_from": np.int32, "keys": np.uint8,
    "ids": np.uint8, "id_cuts": np.int64, "row_cuts": np.int64,
}  # fmt: skip


class TreeWriter:
    """Trees that come in parts. `folder` holds their arrays until `save` puts them into one file."""

    def __init__(self, folder: Path, rows: Path | None = None) -> None:
        folder.mkdir()
        self.folder, self.size, self.mismatched = folder, 0, False
        self._arrays = {name: ArrayWriter(folder / name, type) for name, type in TYPES.items()}
        self._columns: dict[str, ArrayWriter] = {}
        self._rows = open(rows, "wb") if rows else None
        self._refused: tuple[list[Skipped], list[Skipped]] = ([], [])
        self.truncated_prompts = self.truncated_completions = 0
        self.boundary: Counter[str] = Counter()
        for name in ("segments", "trees", "id_cuts", "row_cuts"):
            self._arrays[name].append(np.zeros(1))

    def add(self, part: TokenizedRows, refused: Sequence[Skipped] = ()) -> None:
        """Put a part beside what is there, and what came of it; `refused` are rows that were no candidates for it."""
        self._refused[0].extend(part.skipped)
        self._refused[1].extend(refused)
        self.truncated_prompts += part.truncated_prompts
        self.truncated_completions += part.truncated_completions
        self.boundary += part.boundary
        self.add_trees(part.trees)
        if self._rows:
            lines = StringArray.of(json.dumps(plain(row)) + "\n" for row in part.rows)
            self._append("row_cuts", lines.cuts[1:] + self._rows.tell())
            self._rows.write(lines.raw.tobytes())

    def add_trees(self, trees: Trees) -> None:
        """Put some trees beside those that are there. All must have the same columns."""
        ids, arrays = StringArray.of(trees.ids), self._arrays
        self._append("segments", trees.segments[1:] + arrays["tokens"].size)
        self._append("trees", trees.trees[1:] + arrays["scored_from"].size)
        self._append("id_cuts", ids.cuts[1:] + arrays["ids"].size)
        self._append("tokens", trees.tokens)
        self._append("scored_from", trees.scored_from)
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
        """In the order in which `prepare` lists them: those that were tokenized, then those that were refused."""
        return [*self._refused[0], *self._refused[1]]

    def trees(self, without: Sequence[str] = ()) -> Trees:
        """All of them, mapped, less some columns. Nothing can be added after that."""
        whole = {name: spool.whole() for name, spool in self._arrays.items()}
        columns = {name: spool.whole() for name, spool in self._columns.items() if name not in without}
        return trees_from(whole | {COLUMN + name: values for name, values in columns.items()}, self.mismatched)

    def save(self, trees: Trees, path: Path) -> None:
        """Write trees (these, or what was made of them) to one file that `stored_trees` reads."""
        assert isinstance(trees.ids, StringArray)
        arrays: dict[str, NDArray[Any]] = {name: getattr(trees, name) for name in (*ARRAYS, "keys")}
        arrays |= {"ids": trees.ids.raw, "id_cuts": trees.ids.cuts, "row_cuts": self._arrays["row_cuts"].whole()}
        save_file(arrays | {COLUMN + name: values for name, values in trees.columns.items()}, path)
        if self._rows:
            self._rows.close()


class StoredRows(Sequence[Row]):
    """Rows in a file of JSON lines: a row is read when it is asked for."""

    def __init__(self, path: Path, cuts: NDArray[np.int64]) -> None:
        size = path.stat().st_size
        self._lines = StringArray(np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8), cuts)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [row_from(json.loads(line)) for line in self._lines[index]]
        return row_from(json.loads(self._lines[index]))

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))


def trees_from(arrays: Mapping[str, NDArray[Any]], mismatched: bool) -> Trees:
    """Trees of arrays as `TreeWriter` names them."""
    columns = {name.removeprefix(COLUMN): values for name, values in arrays.items() if name.startswith(COLUMN)}
    tokens, segments, trees, scored_from = (arrays[name] for name in ARRAYS)
    ids, keys = StringArray(arrays["ids"], arrays["id_cuts"]), arrays["keys"].reshape(-1, 16)
    return Trees(ids, tokens, segments, trees, scored_from, columns, mismatched, keys)


def stored(path: Path, rows: Path | None, mismatched: bool) -> TokenizedRows:
    """What `Pile.save` wrote, mapped and not read; `rows` is the file of the rows where they were kept."""
    arrays = mmap_safetensors(path)
    kept = StoredRows(rows, arrays["row_cuts"]) if rows else ()
    return TokenizedRows(trees_from(arrays, mismatched), kept)


def plain(row: Row) -> dict[str, Any]:
    """A row as JSON has it."""
    return {
        "id": row.id, "prompt": _as_json(row.prompt), "group": row.group, "columns": _numbers(row.columns),
        "completions": [[_as_json(one.text), _as_json(one.context), _numbers(one.columns)] for one in row.completions],
        "tools": list(row.tools),
    }  # fmt: skip


def row_from(plain: Mapping[str, Any]) -> Row:
    """The row that `plain` wrote."""
    completions = tuple(
        Completion(_as_text(text), _as_text(context), columns) for text, context, columns in plain["completions"]
    )
    tools = tuple(plain["tools"])
    return Row(plain["id"], _as_text(plain["prompt"]), completions, plain["group"], plain["columns"], tools)


def _as_json(text: Text) -> str | list[dict[str, Any]]:
    return text if isinstance(text, str) else [dict(message) for message in text]


def _as_text(value: Any) -> Text:
    return value if isinstance(value, str) else tuple(value)


def _numbers(columns: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in columns.items()}  # a source may give numpy's
