"""Reading records out of files: JSON lines, JSON, CSV, TSV, Parquet, plain or gzipped; every error names its line."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from alignzoo.errors import UserError, nearest

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz")
Record = dict[str, Any]


def find_files(path: str | Sequence[str]) -> list[Path]:
    """The data files that a path, a folder, a glob pattern or a list of these names, sorted within each.

    A folder and a pattern give what can be read and is not hidden; a file that is named is taken as it is. Raises
    UserError when there is none, with the nearest name beside it.
    """
    if not isinstance(path, str):
        return [file for part in path for file in find_files(part)]
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        files = _data_files(place, place.rglob("*"))
        if not files:
            raise UserError("no data file in this folder", where=str(place), expected=", ".join(SUFFIXES))
        return files
    matches = [Path(match) for match in glob.glob(str(place), recursive=True)]
    if not matches:
        siblings = [other.name for other in place.parent.iterdir()] if place.parent.is_dir() else []
        raise UserError("no such file or folder", where=str(place), nearest=nearest(place.name, siblings))
    below = (file for match in matches if match.is_dir() for file in _data_files(match, match.rglob("*")))
    found = sorted({*below, *_data_files(None, matches)})
    if not found:
        raise UserError("no data file fits this pattern", where=str(place), expected=", ".join(SUFFIXES))
    return found


def _data_files(folder: Path | None, files: Iterable[Path]) -> list[Path]:
    """Those that are data by their names, sorted; in a folder hidden ones (caches, notebooks' copies) are left out."""
    return sorted(
        file for file in files
        if file.name.endswith(SUFFIXES) and file.is_file()
        and not any(part.startswith(".") for part in (file.relative_to(folder).parts if folder else ()))
    )  # fmt: skip


def own_split(name: str) -> str:
    """`train` or `test`, as a file's path below a folder says (train.jsonl, helpful-base/test.jsonl.gz), else ""."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if "train" in words:
        return "train"
    return "test" if words & {"test", "validation", "valid", "eval", "dev"} else ""


def read_records(file: Path) -> Iterator[tuple[int, Record]]:
    """(line, record) for each record of a file, counted from 1; for JSON and Parquet it is the record's number.

    Raises UserError with file and line for what can't be read: a malformed line, a truncated gzip, bytes that are not
    UTF-8, an unknown suffix.
    """
    name = file.name.removesuffix(".gz")
    if file.stat().st_size == 0:
        raise UserError("the file is empty", where=str(file))
    if name.endswith(".parquet"):
        yield from _parquet(file)
        return
    try:
        with _open(file) as raw:
            lines = _without_mark(raw)
            if name.endswith(".jsonl"):
                yield from _json_lines(file, lines)
            elif name.endswith(".json"):
                yield from _json(file, lines)
            elif name.endswith((".csv", ".tsv")):
                yield from _csv(file, lines, "\t" if name.endswith(".tsv") else ",")
            else:
                raise UserError("not a kind of file that can be read", where=str(file), expected=", ".join(SUFFIXES))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"the gzip data is broken: {error}", where=str(file)) from None
    except OSError as error:
        raise UserError(f"the file can't be read: {error.strerror or error}", where=str(file)) from None


def _open(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.suffix == ".gz" else open(file, "rb")  # type: ignore[return-value]


def _without_mark(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines without the byte order mark that spreadsheets put before the first."""
    for number, line in enumerate(lines):
        yield line.removeprefix(codecs.BOM_UTF8) if number == 0 else line


def _json_lines(file: Path, lines: Iterator[bytes]) -> Iterator[tuple[int, Record]]:
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        record = _parse(raw.rstrip(b"\r\n"), file, number)
        if not isinstance(record, dict):
            raise UserError(f"the line holds {kind_of(record)}", where=f"{file}:{number}", expected="a JSON object")
        yield number, record


def _json(file: Path, lines: Iterator[bytes]) -> Iterator[tuple[int, Record]]:
    records = _parse(b"".join(lines), file)
    if not isinstance(records, list):
        raise UserError(f"the file holds {kind_of(records)}", where=str(file), expected="a JSON list of objects")
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise UserError(f"item {number} is {kind_of(record)}", where=str(file), expected="a JSON object")
        yield number, record


def _csv(file: Path, lines: Iterator[bytes], delimiter: str) -> Iterator[tuple[int, Record]]:
    text = (_text(raw, f"{file}:{number}") for number, raw in enumerate(lines, 1))
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        for record in reader:
            where = f"{file}:{reader.line_num}"
            if None in record or None in record.values():
                raise UserError("the line has not as many fields as the header", where=where)
            yield reader.line_num, record
    except csv.Error as error:
        raise UserError(f"not CSV: {error}", where=f"{file}:{reader.reader.line_num}") from None


def _parquet(file: Path) -> Iterator[tuple[int, Record]]:
    pyarrow = need("pyarrow.parquet", "Parquet files")
    from pyarrow import ArrowException

    try:
        table = pyarrow.ParquetFile(file)
        number = 0
        for batch in table.iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"not a Parquet file: {error}", where=str(file)) from None


def need(module: str, what: str) -> Any:
    """Import an optional module, or say how to get it."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise UserError(f"{what} need the package {package}", hint="pip install 'alignzoo[data]'") from None


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start} is not UTF-8", where=where) from None


def _parse(raw: bytes, file: Path, line: int | None = None) -> Any:
    """The value that a line (or with no `line` the whole file) holds."""
    where = f"{file}:{line}" if line else str(file)
    try:
        return json.loads(_text(raw, where))
    except json.JSONDecodeError as error:
        where = f"{file}:{line or error.lineno}"
        raise UserError(f"not JSON: {error.msg} at column {error.colno}", where=where, expected="JSON") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise UserError(f"not JSON that can be read: {error}", where=where) from None


def kind_of(value: Any) -> str:
    """What JSON calls it, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return "a number" if type(value) in (int, float) else names.get(type(value), f"a {type(value).__name__}")
