"""Atomic, durable writes, and operating system errors as NotWritten."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignzoo.core.errors import NotWritten, RunFailed, UserError
from alignzoo.core.redaction import redact


@contextmanager
def atomic_write(path: Path, hint: str = "") -> Iterator[Path]:
    """Yield a temporary path, and rename it over `path` after the block; a crash leaves the old file or the new one.

    Args:
        path: The file to write.
        hint: Appended to the error: what else can be done.

    Raises:
        NotWritten: The disk is full, read-only or the like. The old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with translate_os_errors(path, hint=hint):
        make_folder(path.parent)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def translate_os_errors(path: Path, needs: int = 0, hint: str = "") -> Iterator[None]:
    """Turn operating system errors in the block into NotWritten, which names the path and, on a full disk, the space.

    Args:
        path: The file or folder that is written.
        needs: Bytes that the write takes, 0 if unknown.
        hint: Appended to the error: what else can be done.
    """
    try:
        yield
    except (RunFailed, UserError):
        raise
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        space = _free_space(path, needs) if number in (errno.ENOSPC, errno.EDQUOT) else ""
        more = f"; {hint}" if hint else ""
        raise NotWritten(f"{path} could not be written: {os.strerror(number).lower()}{space}{more}") from error


def _error_number(error: Exception) -> int | None:
    """The errno of an error, also where a library's own exception has it only in its message."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))  # safetensors and tokenizers
    return int(found[1]) if found else None


def _free_space(path: Path, needs: int) -> str:
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    needed = f"{needs / 1e6:,.1f} MB are needed and " if needs else ""
    return f" ({needed}{shutil.disk_usage(existing).free / 1e6:,.1f} MB were free)"


def make_folder(path: Path) -> None:
    """Create a folder and its parents, durably."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def remove_temporaries(folder: Path, of: str = "*") -> None:
    """Remove what killed processes left in a folder of the file `of`, or of all. Call it only while holding a lock."""
    for path in folder.glob(f".{of}.*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically and durably, with secrets redacted."""
    with atomic_write(path) as temporary:
        temporary.write_text(redact(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically and durably. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
