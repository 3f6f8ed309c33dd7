"""A cache of chat verdicts, one small file each, for any number of processes."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from alignzoo.core.door import BadFile, read_json
from alignzoo.core.files import write_json

Choice = Literal["A", "B", "tie"]
Verdict = Choice | Annotated[float, Field(allow_inf_nan=False)]
"""The better of two replies, or the score of one."""
WORTH: dict[Choice, float] = {"A": 1.0, "B": 0.0, "tie": 0.5}
"""Value of a verdict for the reply that was shown first."""


def verdict_key(*parts: str | float | None) -> str:
    """Return 32 hex digits of everything that a verdict depends on."""
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


class _Stored(BaseModel):
    """The form of a file."""

    model: str
    verdict: Verdict


class Verdicts:
    """The files `folder/ab/abcd....json`, which can be deleted at the cost of asking again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Verdict | None:
        """Return the verdict, or None if it is unknown or its file is damaged."""
        try:
            return read_json(self._path(key), _Stored, limit=10_000).verdict
        except BadFile:
            return None

    def put(self, key: str, verdict: Verdict, model: str) -> None:
        """Store a verdict, without the rest of the judge's answer."""
        write_json(self._path(key), {"model": model, "verdict": verdict})

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
