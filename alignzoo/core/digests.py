"""Digests of files, folders, sources and plain values."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from alignzoo.core.errors import UserError


def digest(value: Any) -> str:
    """32 hex digits of a plain value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_file(path: Path) -> str:
    """32 hex digits of a file's bytes, read anew."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def file_digest(path: Path) -> str:
    """32 hex digits of a file's bytes; read again only when the file has changed within this process.

    Raises UserError for a file that changes while it is read.
    """
    for _ in range(3):
        before = _state(path)
        found = _digest(str(path.resolve()), *before)
        if _state(path) == before:
            return found
    raise UserError("the file changes while it is read", where=str(path), expected="a file that is complete")


def _state(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def content_digest(folder: Path) -> str:
    """32 hex digits of the files of a folder (not of folders in it): their names and bytes."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    text = "\n".join(f"{path.name} {file_digest(path)}" for path in files)
    return blake2b(text.encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def _digest(path: str, *state: int) -> str:
    with open(path, "rb") as file:  # SHA-256, which processors have instructions for: several times BLAKE2's rate
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def digest_source(path: Path) -> str:
    """32 hex digits of one file."""
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()
