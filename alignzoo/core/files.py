"""Atomic, durable writes, and operating system errors as NotWritten."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alignzoo.core.errors import NotWritten, RunFailed, UserError
from alignzoo.core.paths import ABOUT, FIRST_DAY
from alignzoo.core.redaction import printable, redact


@contextmanager
def atomic_write(path: Path, hint: str = "") -> Iterator[Path]:
    """Yield a temporary path, and rename it over `path` after the block.

    A crash leaves the old file or the new one.

    Args:
        path: The file to write.
        hint: Appended to the error: what else can be done.

    Raises:
        NotWritten: The disk is full, read-only or the like. The old file is unchanged.
    """
    temporary = temporary_path(path)
    with translate_os_errors(path, hint=hint):
        make_folder(path.parent)
        try:
            yield temporary
            share(temporary)
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40]
_TEMPORARY = re.compile(r"\..*\.(?P<host>[A-Za-z0-9-]*)\.(?P<process>\d+)-[0-9a-f]{8}\.tmp")
LEFT_OVER_SECONDS = 86_400
"""Age from which a temporary file of another host belongs to no process."""


def temporary_path(path: Path) -> Path:
    """Return a hidden name beside `path` that says which process writes it.

    Of such files, only those of `is_left_over` may be removed.
    """
    return path.with_name(f".{path.name[:100]}.{_HOST}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


def is_left_over(path: Path) -> bool:
    """Return True for a temporary file or folder that no process writes any more.

    Its process has ended, or is on another host and the file is a day old.
    """
    found = _TEMPORARY.fullmatch(path.name)
    try:
        old = time.time() - path.lstat().st_mtime > LEFT_OVER_SECONDS
        if found is None or found["host"] != _HOST:
            return old
        os.kill(int(found["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # gone, or the process of another user
        return False
    return False


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder.

    A folder is renamed first, so that no process reads half of it.

    Raises:
        NotWritten: It can't be removed.
    """
    with translate_os_errors(path):
        try:
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            else:
                gone = path.rename(temporary_path(path))
                shutil.rmtree(gone, ignore_errors=True)
        except FileNotFoundError:  # another process was faster
            pass


@contextmanager
def translate_os_errors(path: Path, needs: int = 0, hint: str = "") -> Iterator[None]:
    """Turn operating system errors in the block into NotWritten.

    The error names the path and, on a full disk, the space.

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
    """Remove what processes that have ended left in a folder of the file `of`, or of all."""
    for path in filter(is_left_over, list(folder.glob(f".{of}.*.tmp"))):
        with suppress(NotWritten):
            remove(path)


def check_output(path: Path, reads: Iterable[Path | str] = (), what: str = "data") -> None:
    """Check, before the work, that a command can write the file that it is asked for.

    A device or a link, such as /dev/stdout, would be replaced by the file.

    Args:
        path: The file.
        reads: Files that the command reads, and that it may not be.
        what: What they are, for errors.

    Raises:
        UserError: It is no regular file, one that is read or one of a run's own, or its folder can't be written to.
    """
    regular = True
    if not path.name:
        raise UserError("no file name is given", expected="a file that can be written")
    try:
        with translate_os_errors(path):
            make_folder(path.parent)
            temporary = temporary_path(path)
            temporary.touch()
            temporary.unlink()
            with suppress(FileNotFoundError):
                regular = stat.S_ISREG(path.lstat().st_mode)
    except NotWritten as error:
        raise UserError(str(error), where=str(path), expected="a file that can be written") from None
    if not regular:
        raise UserError("not a regular file, and it would be replaced", where=str(path), expected="the name of a file")
    if path.exists() and any(Path(one).exists() and path.samefile(one) for one in reads):
        raise UserError(f"the {what} would be replaced", where=str(path), expected="another file")
    if (path.parent / ABOUT).exists() or (path.exists() and (path.parent / FIRST_DAY).exists()):
        raise UserError("it would be a file of a run or of the cache", where=str(path), expected="another file")


@contextmanager
def as_output(path: Path) -> Iterator[None]:
    """Raise UserError where the file that a command is asked for can't be written."""
    try:
        yield
    except NotWritten as error:
        raise UserError(str(error), where=str(path), expected="a file that can be written") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically and durably, as it is: it may be read again."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # half a surrogate


def write_page(path: Path, text: str) -> None:
    """Write a text that only people read, atomically and durably.

    Secrets are redacted, and control characters are shown.
    """
    write_text(path, printable(redact(text)))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically and durably. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


_UMASK = os.umask(0o077)  # it can be read by setting it alone
os.umask(_UMASK)


def share(path: Path) -> None:
    """Give a file the rights of other new files.

    Some libraries, such as safetensors, make a file for its owner alone.
    """
    path.chmod(0o666 & ~_UMASK)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
