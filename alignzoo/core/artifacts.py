"""Folders that are written once, all at once, and read only if they are still what was written."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignzoo.core.digests import digest, digest_file
from alignzoo.core.files import make_folder, sync, translate_os_errors, write_json
from alignzoo.core.redaction import redact

ABOUT = "about.json"


@contextmanager
def atomic_folder(path: Path, needs: int = 0, over: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block ends well it is synced to disk and takes its place.

    Where there is a folder of that name it stays (another process was faster), or with `over` is replaced. Raises
    NotWritten when the disk is full (`needs` bytes are then told), read-only or the like, and leaves nothing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with translate_os_errors(path, needs):
        try:
            make_folder(path.parent)
            temporary.mkdir()
            yield temporary
            for part in (*temporary.rglob("*"), temporary):
                sync(part)
            _take_place(temporary, path, over)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, path: Path, over: bool) -> None:
    old = temporary.with_suffix(".old.tmp")
    if over and path.is_dir():
        os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        if old.is_dir():
            os.rename(old, path)
        if not path.is_dir():
            raise
    shutil.rmtree(old, ignore_errors=True)


def write_manifest(folder: Path, about: dict[str, Any]) -> None:
    """Write about.json, the last file of a folder: `about`, with a digest of every other file and of itself."""
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / ABOUT]
    files = {path.relative_to(folder).as_posix(): digest_file(path) for path in inside}
    whole = json.loads(redact(json.dumps(about))) | {"files": files}
    write_json(folder / ABOUT, whole | {"digest": digest(whole)})


def read_verified(folder: Path) -> dict[str, Any] | None:
    """What about.json says; None where there is no such folder, or a file of it is not what was written."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        own, files = about.pop("digest"), about["files"]
        intact = own == digest(about) and all(digest_file(folder / name) == files[name] for name in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return about if intact else None


def quarantine(folder: Path) -> None:
    """Take a damaged folder out of the way; another process may have done so already, and on a disk that can only be
    read it stays, as damaged as it is.
    """
    try:
        folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.damaged"))
    except OSError:
        pass
