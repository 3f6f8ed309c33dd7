"""Bytes and text of regular files, up to a size, and names that stay inside their folder."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path, PurePath

from alignzoo.core.door.file_errors import BadFile, of_os_error

TEXT_BYTES = 64_000_000
"""Size of a text or JSON file that is read whole, unless its reader states another."""
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


def inside(folder: Path, name: object, links_to: Path | None = None) -> Path:
    """Return the path of a regular file in a folder, which no `..` and no link leaves.

    Args:
        folder: The folder.
        name: The name of a file in it or below it, as another file states it.
        links_to: Another folder that links may lead to, such as the blobs of the hub's cache.

    Raises:
        BadFile: The name is no text, leaves the folder, or is none of a regular file.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise BadFile(f"{name!r:.80} is not the name of a file", where=str(folder), expected="a file in this folder")
    parts = PurePath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise BadFile(f"'{name:.200}' is outside of this folder", where=str(folder), expected="a file in this folder")
    path = folder / name
    try:
        real = path.resolve()
        kind = os.stat(real).st_mode
    except OSError as error:
        raise of_os_error(error, path) from None
    except RuntimeError:
        raise BadFile("a link to itself", where=str(path), expected="a file") from None
    if not any(real.is_relative_to(root.resolve()) for root in (folder, links_to) if root is not None):
        raise BadFile(f"a link out of its folder, to {real}", where=str(path), expected="a file in this folder")
    _check_regular(path, kind)
    return path


def open_file(path: Path | str) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        MissingFile: There is no such file.
        UnreadableFile: This user can't read it.
        BadFile: It is a folder, a pipe or a device.
    """
    try:
        _check_regular(path, os.stat(path).st_mode)  # opening a device may have effects
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise of_os_error(error, path) from None
    except ValueError:
        raise BadFile("not the name of a file", where=repr(str(path))) from None
    try:
        _check_regular(path, os.fstat(handle).st_mode)  # it may have been replaced in between
    except BadFile:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check_regular(path: Path | str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise BadFile(_KINDS.get(stat.S_IFMT(mode), "not a file"), where=str(path), expected="a file")


def read_bytes(path: Path | str, limit: int = TEXT_BYTES) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        BadFile: As of `open_file`; or the file has more than `limit` bytes.
    """
    with open_file(path) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise of_os_error(error, path) from None
    if len(data) > limit:
        size = max(os.stat(path).st_size, len(data))
        raise BadFile(f"{size:,} bytes are too many", where=str(path), expected=f"at most {limit:,} bytes")
    return data


def read_text(path: Path | str, limit: int = TEXT_BYTES) -> str:
    """Return the text of a regular UTF-8 file.

    Raises:
        BadFile: As of `read_bytes`; or the bytes are not UTF-8.
    """
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(f"byte {error.start} is not UTF-8", where=str(path), expected="UTF-8 text") from None
