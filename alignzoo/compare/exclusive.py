"""A lock that keeps several processes from computing the same files."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alignzoo.core.console import Screen
from alignzoo.core.files import make_folder, remove_temporaries, translate_os_errors
from alignzoo.core.locks import locked


@contextmanager
def exclusive(path: Path, screen: Screen) -> Iterator[None]:
    """Hold the lock of `path` for the block; wait for a process that holds it, and say so.

    Raises:
        NotWritten: The disk is full or the like.
    """
    with ExitStack() as stack:
        with translate_os_errors(path, hint="set ALIGNZOO_RUNS to another folder"):
            make_folder(path.parent)
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), screen.info, f"{path} is computed"))
        remove_temporaries(path.parent, glob.escape(path.name))
        remove_temporaries(path)
        yield
