"""A lock that keeps several processes from computing the same files."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignzoo.core.console import Screen
from alignzoo.core.files import make_folder, remove_temporaries, translate_os_errors


@contextmanager
def exclusive(path: Path, screen: Screen) -> Iterator[None]:
    """Hold the lock of `path` for the block; wait for a process that holds it, and say so.

    Raises:
        NotWritten: The disk is full or the like.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with translate_os_errors(path, hint="set ALIGNZOO_RUNS to another folder"):
        make_folder(path.parent)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            screen.info(f"another process computes {path}; waiting for it")
            lock.acquire()
    try:
        remove_temporaries(path.parent, glob.escape(path.name))
        remove_temporaries(path)
        yield
    finally:
        lock.release()
