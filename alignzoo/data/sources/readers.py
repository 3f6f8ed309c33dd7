"""Records of files: JSON, JSON lines, CSV, TSV, Parquet; plain or compressed. Every error names its line."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alignzoo.core.errors import UserError, kind_of, nearest
from alignzoo.data.sources.json_records import Record, as_text, json_records
from alignzoo.data.sources.optional import need
from alignzoo.data.sources.parquet import parquet_records

__all__ = ["Record", "find_files", "kind_of", "need", "read_records", "walk"]

TEXT, COMPRESSED = (".jsonl", ".json", ".csv", ".tsv"), (".gz", ".zst")
SUFFIXES = (*TEXT, ".parquet", *(text + end for text in TEXT for end in COMPRESSED))
LONGEST_FIELD = 2**31 - 1
"""Of CSV, in characters: as many as any platform lets the reader take."""
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
"""Byte order marks; the longer ones first, for the shorter ones begin like them."""


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
        files = _data_files(place, walk(place))
        if not files:
            raise UserError("no data file in this folder", where=str(place), expected=", ".join(SUFFIXES))
        return files
    matches = [Path(match) for match in glob.glob(str(place), recursive=True)]
    if not matches:
        siblings = [other.name for other in place.parent.iterdir()] if place.parent.is_dir() else []
        raise UserError("no such file or folder", where=str(place), nearest=nearest(place.name, siblings))
    below = (file for match in matches if match.is_dir() for file in _data_files(match, walk(match)))
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


def walk(folder: Path, around: tuple[str, ...] = ()) -> Iterator[Path]:
    """Every file below a folder, through linked folders too; not those of a link to a folder around it."""
    own = os.path.realpath(folder)
    try:
        inside = sorted(folder.iterdir()) if own not in around else []
    except OSError as error:
        raise UserError(f"the folder can't be read: {error.strerror or error}", where=str(folder)) from None
    for path in inside:
        if path.is_dir():
            yield from walk(path, (*around, own))
        else:
            yield path


def read_records(file: Path) -> Iterator[tuple[int, Record]]:
    """(line, record) for each record of a file, counted from 1; for Parquet and a JSON array it is the record's number.

    Raises UserError with file and line for what can't be read: a malformed line, truncated compressed data, bytes that
    are not UTF-8 (UTF-16 and UTF-32 need their byte order mark), an unknown suffix.
    """
    end = next((end for end in COMPRESSED if file.name.endswith(end)), "")
    name = file.name.removesuffix(end)
    if file.stat().st_size == 0:
        raise UserError("the file is empty", where=str(file))
    if name.endswith(".parquet") and not end:
        yield from parquet_records(file)
        return
    if not name.endswith(TEXT):
        raise UserError("not a kind of file that can be read", where=str(file), expected=", ".join(SUFFIXES))
    try:
        with _open(file) as raw:
            lines = _in_utf8(raw, file)
            if name.endswith((".csv", ".tsv")):
                yield from _csv(file, lines, "\t" if name.endswith(".tsv") else ",")
            else:
                yield from json_records(file, lines)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"the gzip data is broken: {error}", where=str(file)) from None
    except OSError as error:
        raise UserError(f"the file can't be read: {error.strerror or error}", where=str(file)) from None


def _open(file: Path) -> io.BufferedIOBase:
    if file.suffix == ".zst":
        opened: Any = need("pyarrow", "Zstandard files").input_stream(str(file), compression="zstd")
        return io.BufferedReader(opened)
    return gzip.open(file, "rb") if file.suffix == ".gz" else open(file, "rb")


def _in_utf8(raw: io.BufferedIOBase, file: Path) -> Iterator[bytes]:
    """The lines in UTF-8, without the byte order mark that spreadsheets put before the first."""
    first = raw.readline()
    wide = next((name for mark, name in WIDE.items() if first.startswith(mark)), None)
    if wide is None:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from raw
        return
    try:
        yield from io.BytesIO((first + raw.read()).decode(wide).encode())
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start} is not {wide.upper()}", where=str(file)) from None


def _csv(file: Path, lines: Iterator[bytes], delimiter: str) -> Iterator[tuple[int, Record]]:
    text = (as_text(raw, f"{file}:{number}") for number, raw in enumerate(lines, 1))
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        names = reader.fieldnames or ()
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"two columns are called '{twice}'", where=f"{file}:1", expected="a name for each column")
        for record in reader:
            where = f"{file}:{reader.line_num}"
            if None in record or None in record.values():
                raise UserError("the line has not as many fields as the header", where=where)
            yield reader.line_num, record
    except csv.Error as error:
        raise UserError(f"not CSV: {error}", where=f"{file}:{reader.reader.line_num}") from None
