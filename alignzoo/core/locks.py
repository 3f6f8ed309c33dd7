"""Locks between processes, which tell who holds one: process and host."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from pydantic import BaseModel

from alignzoo.core.door import BadFile, read_checked
from alignzoo.core.errors import NotWritten, UserError
from alignzoo.core.files import make_folder

LOOK_SECONDS = 60
"""Time after which a process that waits looks again who holds the lock."""
POLL_SECONDS = 0.2
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system without locks of the kernel, such as NFS without lockd."""


class Holder(BaseModel):
    """The process that holds a lock, as it has written beside it."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def locked(path: Path, waiting: Callable[[str], None] | None = None, what: str = "") -> Iterator[bool]:
    """Hold the lock file `path` for the block; yield True if another process was waited for.

    The kernel's lock ends with its process. Where a file system has none, the file itself is the lock, and that of a
    process of this host that has ended is taken over.

    Args:
        path: The lock file, in a folder that exists.
        waiting: Shows a line on whom this process waits for. None: do not wait.
        what: What the other process does: "sft_hh is trained".

    Raises:
        UserError: Another process holds it, and `waiting` is None.
        OSError: The file can't be created.
    """
    lock = _try(path)
    waited, told = not lock.is_locked, ""
    while not lock.is_locked:
        words = f"{what or 'this is in use'} by {holder_of(path)}"
        if waiting is None:
            raise UserError(words, where=str(path.parent))
        if words != told:
            waiting(f"{words}; waiting for it")
            told = words
        with suppress(Timeout):
            lock.acquire(timeout=LOOK_SECONDS, poll_interval=POLL_SECONDS)
    try:
        _name_holder(path)
        yield waited
    finally:
        with suppress(OSError):
            _beside(path).unlink()
        lock.release()


@contextmanager
def locked_if_possible(path: Path, waiting: Callable[[str], None], what: str) -> Iterator[bool]:
    """Hold a lock as `locked` does, or none where it can't be made.

    Work may then be done twice.
    """
    with ExitStack() as stack:
        waited = False
        with suppress(OSError, NotImplementedError, NotWritten):
            make_folder(path.parent)
            waited = stack.enter_context(locked(path, waiting, what))
        yield waited


def _try(path: Path) -> BaseFileLock:
    """Return a lock of `path`, held if it was free; by the kernel where the file system can."""
    lock: BaseFileLock = FileLock(path)
    with suppress(Timeout):
        try:
            lock.acquire(timeout=0)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            lock = SoftFileLock(path.with_name(f"{path.name}.soft"))
            lock.acquire(timeout=0)
    return lock


def _name_holder(path: Path) -> None:
    """Write beside a lock who holds it. The lock holds without it, too."""
    with suppress(OSError):
        _beside(path).unlink(missing_ok=True)  # it may be a link
        with open(_beside(path), "x", encoding="utf-8") as file:
            file.write(Holder(pid=os.getpid(), host=platform.node()).model_dump_json())


def holder_of(path: Path) -> str:
    """Return the holder of a lock in words."""
    try:
        return str(Holder(**read_checked(_beside(path), Holder)))
    except BadFile:  # of an older version, or between its two writes
        return "another process"


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")
