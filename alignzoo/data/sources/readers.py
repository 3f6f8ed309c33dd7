"""Find data files and read their records: JSON, JSON lines, CSV, TSV or Parquet.

Files are plain or compressed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.sources.arrow_tables import parquet_records
from alignzoo.data.sources.folders import expand_user, matching, walk
from alignzoo.data.sources.json_records import Record, as_text, json_records, text_lines
from alignzoo.data.sources.json_stream import LONGEST_VALUE, too_long
from alignzoo.data.sources.optional import need

TEXT, COMPRESSED = (".jsonl", ".json", ".csv", ".tsv"), (".gz", ".zst")
SUFFIXES = (*TEXT, ".parquet", *(text + end for text in TEXT for end in COMPRESSED))
LARGEST_WIDE = 256_000_000
"""Limit of a file in UTF-16 or UTF-32, which is converted as a whole."""
LEAST_OF_A_LINE = 16
"""Bytes that a line of a CSV record counts for: empty lines take time too."""
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
"""Byte order marks, longest first because the shorter ones are prefixes of the longer ones."""


def find_files(path: str | Sequence[str]) -> list[Path]:
    """Find the data files of a path, a folder, a glob pattern or a list of these.

    The files of each are sorted. Folders and patterns give files with a known suffix that are not hidden. A named file
    is returned in any case.

    Raises:
        UserError: No file was found; the error gives the nearest name.
    """
    if not isinstance(path, str):
        return [file for part in path for file in find_files(part)]
    root = expand_user(path)
    if root.is_file():
        return [root]
    if root.is_dir():
        files = _data_files(root, walk(root))
        if not files:
            raise UserError("no data file in this folder", where=str(root), expected=", ".join(SUFFIXES))
        return files
    matches = list(matching(root))
    if not matches:
        siblings = [other.name for other in root.parent.iterdir()] if root.parent.is_dir() else []
        raise UserError("no such file or folder", where=str(root), nearest=nearest(root.name, siblings))
    below = (file for match in matches if match.is_dir() for file in _data_files(match, walk(match)))
    found = sorted({*below, *_data_files(None, matches)})
    if not found:
        raise UserError("no data file matches this pattern", where=str(root), expected=", ".join(SUFFIXES))
    return found


def _data_files(folder: Path | None, files: Iterable[Path]) -> list[Path]:
    """Return files with a data suffix, sorted, without the hidden files of a folder.

    Hidden files are caches or checkpoints of notebooks, for example.
    """
    return sorted(
        file for file in files
        if file.name.endswith(SUFFIXES) and file.is_file()
        and not any(part.startswith(".") for part in (file.relative_to(folder).parts if folder else ()))
    )  # fmt: skip


def read_records(file: Path) -> Iterator[tuple[int, Record]]:
    """Yield (line, record) for each record of a file, counted from 1.

    For Parquet and JSON arrays the first item is the number of the record.

    Raises:
        UserError: A line is malformed, compressed data is truncated, bytes are not UTF-8 (UTF-16 and UTF-32 need their
            byte order mark), or the suffix is unknown. The error names file and line.
    """
    end = next((end for end in COMPRESSED if file.name.endswith(end)), "")
    name = file.name.removesuffix(end)
    if file.stat().st_size == 0:
        raise UserError("the file is empty", where=str(file))
    if name.endswith(".parquet") and not end:
        yield from parquet_records(file)
        return
    if not name.endswith(TEXT):
        raise UserError("unknown file type", where=str(file), expected=", ".join(SUFFIXES))
    try:
        with _open(file) as raw:
            text = _in_utf8(raw, file)
            if name.endswith((".csv", ".tsv")):
                yield from _csv(file, text, "\t" if name.endswith(".tsv") else ",")
            else:
                yield from json_records(file, text)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"the gzip data is broken: {error}", where=str(file)) from None
    except OSError as error:
        raise UserError(f"the file can't be read: {error.strerror or error}", where=str(file)) from None


def _open(file: Path) -> io.BufferedIOBase:
    if file.suffix == ".zst":
        opened: Any = need("pyarrow", "Zstandard files").input_stream(str(file), compression="zstd")
        return io.BufferedReader(opened)
    return gzip.open(file, "rb") if file.suffix == ".gz" else open(file, "rb")


def _in_utf8(raw: Any, file: Path) -> BinaryIO:
    """Return the file after its byte order mark, in UTF-8."""
    start = raw.peek(4)[:4]
    wide = next((name for mark, name in WIDE.items() if start.startswith(mark)), None)
    if wide is None:
        if start.startswith(codecs.BOM_UTF8):
            raw.read(len(codecs.BOM_UTF8))
        found: BinaryIO = raw
        return found
    whole = raw.read(LARGEST_WIDE + 1)
    if len(whole) > LARGEST_WIDE:
        raise UserError(f"more than {LARGEST_WIDE // 10**6} MB of {wide.upper()}", where=str(file), expected="UTF-8")
    try:
        return io.BytesIO(whole.decode(wide).encode())
    except UnicodeError as error:
        at = f"byte {error.start}" if isinstance(error, UnicodeDecodeError) else "the text"
        raise UserError(f"{at} is not {wide.upper()}", where=str(file)) from None


def _csv_lines(raw: BinaryIO, file: Path) -> Iterator[tuple[int, bytes]]:
    for number, line in text_lines(raw, file):
        if len(line) > LONGEST_VALUE:
            raise too_long(f"{file}:{number}")
        yield number, line


def _csv(file: Path, raw: BinaryIO, delimiter: str) -> Iterator[tuple[int, Record]]:
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for number, line in _csv_lines(raw, file):
            taken += max(len(line), LEAST_OF_A_LINE)
            if taken > LONGEST_VALUE:  # one record may have many lines
                raise too_long(f"{file}:{number}")
            yield as_text(line, f"{file}:{number}")

    text = lines()
    csv.field_size_limit(LONGEST_VALUE)
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        names = reader.fieldnames or ()
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"two columns are called '{twice}'", where=f"{file}:1", expected="a name for each column")
        for record in reader:
            taken, where = 0, f"{file}:{reader.line_num}"
            if None in record or None in record.values():
                raise UserError("the line and the header have different numbers of fields", where=where)
            yield reader.line_num, record
    except csv.Error as error:
        raise UserError(f"not CSV: {error}", where=f"{file}:{reader.reader.line_num}") from None
