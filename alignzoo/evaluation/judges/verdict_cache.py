"""Verdicts that were paid for once: one small file each, so that any number of processes may read and write them."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from alignzoo.core.files import write_json

Verdict = Literal["A", "B", "tie"]
WORTH: dict[Verdict, float] = {"A": 1.0, "B": 0.0, "tie": 0.5}
"""What it is to the reply that was shown first."""


def verdict_key(*asked: str | float | None) -> str:
    """32 hex digits of everything that a verdict depends on."""
    return blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()


class Verdicts:
    """`folder/ab/abcd....json` for every key. Losing it costs the questions again and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Verdict | None:
        """None for what was never asked, and for a file that can't be read: it is asked and written again."""
        try:
            verdict = json.loads(self._path(key).read_text(encoding="utf-8"))["verdict"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return verdict if verdict in WORTH else None

    def put(self, key: str, verdict: Verdict, model: str) -> None:
        """Remember it. What the judge said beside its verdict is not kept."""
        write_json(self._path(key), {"model": model, "verdict": verdict})

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
