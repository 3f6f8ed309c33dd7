"""Read records from Parquet files and from folders that `datasets` saved.

Arrow trusts offsets and lengths in a file, and an altered file can end the process. A file is therefore read once in a
child, with every value validated, before its records are read here. Columns of JSON text are parsed as in `datasets`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alignzoo.core.door import BadFile, in_child, inside, read_json
from alignzoo.core.errors import UserError, first_line
from alignzoo.data.sources.optional import need

Decode = Callable[[Any], Any]
Batches = Callable[[Path], Iterator[Any]]
DICT, STATE = "dataset_dict.json", "state.json"
ROWS_AT_ONCE = 1_000
FREE_ROWS, ROWS_A_BYTE = 1_000_000, 8
"""Limit of the rows of a stream: other columns than nulls take at least a bit for each."""
SECONDS, BYTES_A_SECOND = 8.0, 50_000_000
"""Processor time of the child: so much, and more for larger files."""
_validated: set[tuple[str, int, int, int]] = set()
"""Files that a child has read, by path, inode, size and time of change."""


def parquet_records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, record) of a Parquet file, counted from 1.

    Raises:
        UserError: The file is not Parquet or is damaged, or a value can't be converted to Python.
    """
    need("pyarrow.parquet", "Parquet files")
    yield from _records(file, _of_parquet, "a Parquet file", f"{file}: row ")


def saved_splits(folder: Path) -> list[str]:
    """Return the names of the splits in a folder that `datasets` saved.

    A dataset without splits has [""].

    Raises:
        BadFile: dataset_dict.json is damaged, or names a split outside of the folder.
    """
    if not (folder / DICT).is_file():
        return [""]
    found = read_json(folder / DICT)
    names = found.get("splits") if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadFile("no list of splits", where=str(folder / DICT), expected='{"splits": [name, ...]}')
    for name in names:
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise BadFile(f"'{name:.80}' is not the name of a split", where=str(folder / DICT))
    return names


def saved_records(folder: Path, label: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, record) of a dataset or a split that `datasets` saved, counted from 1.

    Args:
        folder: The folder with its state.json.
        label: The start of a row's place in errors, such as "saved: train row ".

    Raises:
        BadFile: state.json is damaged, or names a file that does not exist or lies outside of the folder.
        UserError: A table is damaged, or a value can't be converted to Python.
    """
    need("pyarrow", "saved datasets")
    state = read_json(folder / STATE)
    files = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(files, list) or not all(isinstance(one, dict) for one in files):
        raise BadFile("no list of tables", where=str(folder / STATE), expected='{"_data_files": [{"filename": name}]}')
    if state.get("_indices_data_files"):
        raise BadFile("rows chosen by an index", where=str(folder), expected="a dataset saved after flatten_indices()")
    tables = [inside(folder, one.get("filename")) for one in files]  # all of them, before the first row
    before = number = 0
    for table in tables:
        for number, record in _records(table, _of_stream, "a table of a saved dataset", label, before):
            yield number, record
        before = number


def _records(
    file: Path, batches: Batches, what: str, label: str, number: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    _validate(file, batches, what)
    decoders: dict[str, Decode] | None = None
    try:
        for batch in batches(file):
            if decoders is None:
                decoders = {field.name: decode for field in batch.schema if (decode := _decoder(field)) is not None}
            for record in _rows(batch, label, number + 1):
                number += 1
                yield number, _decoded(record, decoders, f"{label}{number}") if decoders else record
    except UserError:
        raise
    except Exception as error:  # Arrow raises types of its own and Python's
        raise UserError(f"not {what}: {first_line(error)[:300]}", where=str(file)) from None


def _rows(batch: Any, label: str, number: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch.

    An error names the row. Python's dates, for one, end with the year 9999.
    """
    try:
        yield from batch.to_pylist()
    except Exception:
        for row in range(batch.num_rows):
            try:
                batch.slice(row, 1).to_pylist()
            except Exception as error:
                what = f"{type(error).__name__}: {first_line(error)[:200]}"
                raise UserError(f"a value can't be read: {what}", where=f"{label}{number + row}") from None
        raise


def _validate(file: Path, batches: Batches, what: str) -> None:
    status = file.stat()
    known = (str(file.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)
    if known not in _validated:
        in_child(file, _check, file, batches, what, seconds=SECONDS + status.st_size / BYTES_A_SECOND)
        _validated.add(known)


def _check(file: Path, batches: Batches, what: str) -> None:
    import pyarrow

    pyarrow.set_cpu_count(1)  # the threads of the parent are not in its child
    try:
        for batch in batches(file):
            batch.validate(full=True)
    except MemoryError:
        raise
    except Exception as error:
        raise UserError(f"not {what}: {first_line(error)[:300]}", where=str(file)) from None


def _of_parquet(file: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table:
        yield from table.iter_batches(ROWS_AT_ONCE, use_threads=False)


def _of_stream(file: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.OSFile(str(file)) as source, pyarrow.ipc.open_stream(source) as reader:
        for batch in reader:
            if batch.num_rows > FREE_ROWS + ROWS_A_BYTE * file.stat().st_size:
                raise UserError(f"{batch.num_rows:,} rows are more than its bytes can hold", where=str(file))
            yield from (batch.slice(start, ROWS_AT_ONCE) for start in range(0, batch.num_rows, ROWS_AT_ONCE))


def _decoded(record: dict[str, Any], decoders: dict[str, Decode], where: str) -> dict[str, Any]:
    for name, decode in decoders.items():
        try:
            record[name] = decode(record[name])
        except (ValueError, RecursionError, TypeError) as error:
            raise UserError(f"{name}: invalid JSON: {error}", where=where, expected="JSON text") from None
    return record


def _decoder(field: Any) -> Decode | None:
    """Return a function that decodes values of an Arrow field, or None if it is not needed.

    It parses JSON, and omits the keys of structs that are null: Arrow has no missing keys, so that `datasets` gives
    every message and every call all keys that any of them has. JSON has Arrow's canonical extension type arrow.json.
    Versions of pyarrow without it leave its name in the field's metadata.
    """
    import pyarrow

    kind = field.type
    named = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
    if getattr(kind, "extension_name", named) == "arrow.json":
        return lambda value: None if value is None else json.loads(value)
    if pyarrow.types.is_struct(kind):
        inside = {part.name: decode for part in kind if (decode := _decoder(part)) is not None}
        return lambda value: (
            value and {k: inside[k](v) if k in inside else v for k, v in value.items() if v is not None}
        )
    elif pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        item = _decoder(kind.value_field)
        if item is not None:
            return lambda value: value and [item(one) for one in value]
    return None
