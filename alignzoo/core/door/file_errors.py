"""Errors of files, and the translation of what a library raises into one of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignzoo.core.errors import RunFailed, UserError, first_line

LONGEST_MESSAGE = 300
"""Characters of a library's message that are shown."""
_NO_FILE = (errno.ENOENT, errno.ENOTDIR)
_NOT_A_FILE = (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO)
_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class BadFile(UserError):
    """A file that can't be used.

    It is damaged, too large, not what its name says, or a link out of its folder.
    """


class MissingFile(BadFile):
    """There is no such file."""


class UnreadableFile(BadFile):
    """The operating system doesn't let this user read the file, whose contents may be fine."""


@contextmanager
def translate(path: Path | str, what: str = "", hint: str = "") -> Iterator[None]:
    """Turn whatever the block raises into a BadFile with the file's name.

    A RunFailed or UserError passes, and so do a full disk and a GPU without memory, which are not the file's fault.

    Args:
        path: The file or folder that is read.
        what: What it should hold, such as "the tokenizer"; empty if the name says it.
        hint: How to fix it.

    Raises:
        MissingFile: There is no such file.
        UnreadableFile: This user can't read it.
        BadFile: Anything else.
    """
    try:
        yield
    except (RunFailed, UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except OSError as error:
        if error.errno in _NOT_WRITTEN:
            raise
        raise of_os_error(error, path, what, hint) from None
    except BaseException as error:
        name = type(error).__name__
        if name == "OutOfMemoryError" or not (isinstance(error, Exception) or name == "PanicException"):
            raise  # PanicException, of a library in Rust, is no Exception
        raise BadFile(_sentence(error, what), where=str(path), hint=hint) from error


def of_os_error(error: OSError, path: Path | str, what: str = "", hint: str = "") -> BadFile:
    """Return the BadFile for an error of the operating system."""
    if isinstance(error.filename, str) and os.path.basename(error.filename) != os.path.basename(path):
        path = error.filename
    where = str(path)
    if error.errno in _NO_FILE:
        return MissingFile("no such file", where=where, expected=what, hint=hint)
    if error.errno is None:  # of a library, such as "Can't load the configuration of ..."
        return BadFile(_sentence(error, what), where=where, hint=hint)
    kind = BadFile if error.errno in _NOT_A_FILE else UnreadableFile
    return kind(f"can't be read: {os.strerror(error.errno).lower()}", where=where, expected=what, hint=hint)


def _sentence(error: BaseException, what: str) -> str:
    subject = f"{what} can't be read" if what else "can't be read"
    if isinstance(error, RecursionError):
        return f"{subject}: nested too deeply"
    if isinstance(error, MemoryError):
        return f"{subject}: it takes more memory than there is"
    message = first_line(error)
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]}..."
    return f"{subject}: {type(error).__name__}: {message}" if message else f"{subject}: {type(error).__name__}"
