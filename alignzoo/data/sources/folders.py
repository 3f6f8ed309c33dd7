"""Find files by a path, in a folder and its subfolders, or by a glob pattern.

Links can't make the search endless.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path

from alignzoo.core.console import warn_once
from alignzoo.core.errors import UserError

MOST_FOLDERS = 20_000
"""Limit of the folders below one. Links to folders of links multiply them without end."""


def expand_user(path: str) -> Path:
    """Return the path with a `~` expanded. Raises UserError for a user that does not exist."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError("no such user", where=path, expected="a file or folder") from None


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, following links.

    A link to an enclosing folder is not followed but reported.

    Raises:
        UserError: A folder can't be read, or links multiply the folders.
    """
    for one in _folders(folder):
        yield from (path for path in _inside(one) if not path.is_dir())


def matching(pattern: Path) -> Iterator[Path]:
    """Yield the files and folders that a glob pattern matches, in the order of their paths.

    As in a shell, `*` and `**` leave out hidden files and folders.

    Raises:
        UserError: As `walk`.
    """
    parts = pattern.parts
    first = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    yield from sorted(set(_expand(Path(*parts[:first]), parts[first:])))


def _expand(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    if not parts:
        own = os.path.realpath(folder)
        if folder.is_symlink() and f"{os.path.realpath(folder.parent)}/".startswith(f"{own}/"):
            _leave_out(folder)
        elif os.path.lexists(folder):
            yield folder
        return
    head, tail = parts[0], parts[1:]
    if head == "**":
        for one in _folders(folder, hidden=False) if folder.is_dir() else ():
            yield from _expand(one, tail or ("*",))
        return
    if not glob.has_magic(head):
        yield from _expand(folder / head, tail)
        return
    fits = re.compile(translate(head)).match
    for path in _inside(folder) if folder.is_dir() else ():
        if fits(path.name) and (head.startswith(".") or not path.name.startswith(".")) and (not tail or path.is_dir()):
            yield from _expand(path, tail)


def _folders(folder: Path, hidden: bool = True) -> Iterator[Path]:
    """Yield a folder and all folders below it.

    Links to an enclosing folder are left out.
    """
    left: list[tuple[Path, tuple[str, ...]]] = [(folder, ())]
    count = 0
    while left:
        one, around = left.pop()
        own = os.path.realpath(one)
        if own in around:
            _leave_out(one)
            continue
        count += 1
        if count > MOST_FOLDERS:
            raise UserError(f"more than {MOST_FOLDERS:,} folders: links lead in circles", where=str(folder))
        yield one
        below = [path for path in _inside(one) if path.is_dir() and (hidden or not path.name.startswith("."))]
        left += [(path, (*around, own)) for path in reversed(below)]


def _leave_out(link: Path) -> None:
    warn_once(f"{link} is a link to a folder around it, and is left out")


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"the folder can't be read: {error.strerror or error}", where=str(folder)) from None
