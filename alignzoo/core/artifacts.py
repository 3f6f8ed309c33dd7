"""Folders written atomically, with a manifest that verifies their files."""

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
    """Yield a temporary folder, and rename it to `path` after the block.

    Args:
        path: The folder to write.
        needs: Bytes that it takes, for the error on a full disk; 0 if unknown.
        over: Replace an existing folder. By default it stays: another process was faster.

    Raises:
        NotWritten: The disk is full, read-only or the like. No partial folder remains.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with translate_os_errors(path, needs):
        try:
            make_folder(path.parent)
            temporary.mkdir()
            yield temporary
            for part in (*temporary.rglob("*"), temporary):
                sync(part)
            _rename(temporary, path, over)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: Path, path: Path, over: bool) -> None:
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
    """Write about.json, the last file of a folder: `about`, and digests of every other file and of itself."""
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / ABOUT]
    files = {path.relative_to(folder).as_posix(): digest_file(path) for path in inside}
    content = json.loads(redact(json.dumps(about))) | {"files": files}
    write_json(folder / ABOUT, content | {"digest": digest(content)})


def read_verified(folder: Path) -> dict[str, Any] | None:
    """Return the content of about.json; None if the folder is absent or a file differs from its digest."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        own, files = about.pop("digest"), about["files"]
        intact = own == digest(about) and all(digest_file(folder / name) == files[name] for name in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return about if intact else None


def quarantine(folder: Path) -> None:
    """Rename a damaged folder out of the way.

    It stays where it is on a read-only disk, and another process may have renamed it already.
    """
    try:
        folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.damaged"))
    except OSError:
        pass
