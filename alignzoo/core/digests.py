"""Digests of files, folders, bytes and plain values: 32 hex digits each."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignzoo.core.door import open_file, translate
from alignzoo.core.errors import UserError


def digest(value: Any) -> str:
    """Digest a plain value, independent of the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, default=str).encode())


def digest_bytes(data: bytes) -> str:
    """Digest bytes with BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_file(path: Path) -> str:
    """Digest the bytes of a file with SHA-256.

    Processors compute it several times faster than BLAKE2b.

    Raises:
        BadFile: It can't be read, or is a pipe or a device.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def cached_file_digest(path: Path) -> str:
    """Return `digest_file(path)`, cached in this process until the file changes.

    Raises:
        UserError: The file changes while it is read.
    """
    for _ in range(3):
        before = _status(path)
        found = _digest(str(path.resolve()), *before)
        if _status(path) == before:
            return found
    raise UserError("the file changes while it is read", where=str(path), expected="a file that is complete")


def content_digest(folder: Path) -> str:
    """Digest the files of a folder, without those in folders below it: their names and bytes."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return digest_bytes("\n".join(f"{path.name} {cached_file_digest(path)}" for path in files).encode())


def _status(path: Path) -> tuple[int, ...]:
    with translate(path):
        found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=4096)
def _digest(path: str, *status: int) -> str:
    return digest_file(Path(path))
