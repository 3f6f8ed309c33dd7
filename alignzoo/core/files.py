"""Writing so that a crash leaves either the old file or the new one, never a half; and what a disk refuses, said."""

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
    """Yield a temporary path beside `path`; when the block ends well, sync it to disk and rename it over `path`.

    Raises NotWritten when the disk is full, read-only or the like; what stood under `path` then still does. `hint`:
    what else can be done then.
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
    """What the disk refuses within the block becomes a NotWritten that names `path`, and on a full disk how many bytes
    were free and, where it is known, how many the writing `needs`. `hint`: what else can be done.
    """
    try:
        yield
    except (RunFailed, UserError):
        raise
    except Exception as error:
        number = _refusal(error)
        if number is None:
            raise
        room = _room(path, needs) if number in (errno.ENOSPC, errno.EDQUOT) else ""
        more = f"; {hint}" if hint else ""
        raise NotWritten(f"{path} could not be written: {os.strerror(number).lower()}{room}{more}") from error


def _refusal(error: Exception) -> int | None:
    """The operating system's number of an error, also where a library's own exception carries it in its words."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors and tokenizers
    return int(told[1]) if told else None


def _room(path: Path, needs: int) -> str:
    there = next(folder for folder in path.absolute().parents if folder.exists())
    asked = f"{needs / 1e6:,.1f} MB are needed and " if needs else ""
    return f" ({asked}{shutil.disk_usage(there).free / 1e6:,.1f} MB were free)"


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically and durably, and without secrets."""
    with atomic_write(path) as temporary:
        temporary.write_text(redact(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically and durably. NaN and infinity are refused: JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Ask the operating system to put a file or a folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
