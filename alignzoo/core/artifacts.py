"""Folders written atomically, with a manifest that verifies their files."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from alignzoo.core.digests import digest, digest_file
from alignzoo.core.door import BadFile, UnreadableFile, inside, read_checked
from alignzoo.core.files import make_folder, remove, share, sync, temporary_path, translate_os_errors, write_json
from alignzoo.core.paths import ABOUT


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
    temporary = temporary_path(path)
    with translate_os_errors(path, needs):
        try:
            make_folder(path.parent)
            temporary.mkdir()
            yield temporary
            for part in (*temporary.rglob("*"), temporary):
                if part.is_file():
                    share(part)
                sync(part)
            _rename(temporary, path, over)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: Path, path: Path, over: bool) -> None:
    old = temporary_path(path)
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
    """Write about.json, the last file of a folder, with the digests of all its files.

    It holds `about`, the digest of every other file, and a digest of itself.
    """
    files = {name: digest_file(folder / name) for name in sorted(_listed(folder))}
    content = json.loads(json.dumps(about)) | {"files": files}
    write_json(folder / ABOUT, content | {"digest": digest(content)})


class Manifest(BaseModel, extra="allow"):
    """What the about.json of every folder holds; its schema adds more."""

    files: dict[str, str]
    digest: str
    dropped: list[str] = []
    """Files that were removed on purpose, or are about to be."""


def read_verified(folder: Path, schema: type[Manifest] = Manifest) -> dict[str, Any] | None:
    """Return the content of about.json; None if the folder is absent or damaged.

    It is damaged if its files are others than those listed, one differs from its digest or is a link out of the folder,
    or about.json does not have the form of `schema`.

    Args:
        folder: The folder.
        schema: The form of about.json.

    Raises:
        UnreadableFile: This user can't read a file, which may be intact.
    """
    try:
        about: dict[str, Any] = read_checked(inside(folder, ABOUT), schema)
        own, files = about.pop("digest"), about["files"]
        intact = own == digest(about) and _listed(folder) - set(about.get("dropped", ())) == set(files)
        intact = intact and all(digest_file(inside(folder, name)) == files[name] for name in files)
    except UnreadableFile:
        raise
    except BadFile:
        return None
    return about if intact else None


def _listed(folder: Path) -> set[str]:
    """The names of a folder's files, without about.json and hidden files.

    They are relative paths, as in the manifest. Hidden files are a file system's own.
    """
    found = (path for path in folder.rglob("*") if not path.name.startswith(".") and not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in found} - {ABOUT}


def drop_files(folder: Path, names: Collection[str]) -> None:
    """Remove files of a folder, and their digests from its manifest.

    It goes on where a process was killed. A damaged folder stays as it is.
    """
    try:
        about: dict[str, Any] = read_checked(inside(folder, ABOUT), Manifest)
    except BadFile:
        return
    gone = [name for name in about["files"] if name in names]
    if gone:
        content = {key: value for key, value in about.items() if key != "digest"}
        content["files"] = {name: value for name, value in about["files"].items() if name not in gone}
        content["dropped"] = [*about.get("dropped", ()), *gone]
        # written first, so that a process that is killed in between leaves an intact folder
        write_json(folder / ABOUT, content | {"digest": digest(content)})
    for name in (*gone, *about.get("dropped", ())):
        if name in names:
            remove(folder / name)


def quarantine(folder: Path) -> None:
    """Rename a damaged folder out of the way.

    It stays where it is on a read-only disk, and another process may have renamed it already.
    """
    try:
        folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.damaged"))
    except OSError:
        pass
